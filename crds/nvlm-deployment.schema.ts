/** Structural schema, defaults and CEL rules of `NVLMDeployment`. Rules stay cheap: every list and string is bounded. */
import type {
  AcceleratorSpec,
  AuthSpec,
  AutoscalingSpec,
  BatchPolicySpec,
  DrainSpec,
  ModelCacheSpec,
  ModelSpec,
  NVLMDeploymentSpec,
  ParallelismSpec,
  RolloutSpec,
  ScalingBehavior,
  ScalingRules,
  TemplateSpec,
  Toleration,
} from './nvlm-deployment.ts';
import type { Schema } from './schema.ts';
import {
  choice,
  duration,
  integer,
  labels,
  objectName,
  objectOf,
  quantity,
  text,
} from './schema.ts';

const cache = objectOf<ModelCacheSpec>(
  'Where the weights are kept: one of pvc, hostPath, ephemeral. ephemeral when none is named.',
  {
    pvc: objectOf<NonNullable<ModelCacheSpec['pvc']>>(
      'A claim in the same namespace, filled once; ReadWriteMany when replicas run on several nodes.',
      { claimName: objectName('The claim.') },
      { required: ['claimName'] },
    ),
    hostPath: objectOf<NonNullable<ModelCacheSpec['hostPath']>>(
      'A directory of the node that replicas on it share. It has to belong to user 65532, which engines run as: one that the kubelet makes belongs to root.',
      {
        path: text('Absolute path on the node.', 1024, { pattern: '^/[^:]*$' }),
      },
      {
        required: ['path'],
        rules: [
          {
            rule: "!self.path.split('/').exists(part, part == '..')",
            message: "must not step up with '..'; name the directory itself",
            fieldPath: '.path',
          },
        ],
      },
    ),
    ephemeral: objectOf<NonNullable<ModelCacheSpec['ephemeral']>>(
      'A directory that lives as long as the pod.',
      { size: quantity('Limit of its size; none when absent.') },
    ),
  },
  {
    default: {},
    rules: [
      {
        rule: '[has(self.pvc), has(self.hostPath), has(self.ephemeral)].filter(given, given).size() <= 1',
        message: 'names more than one place; keep one of pvc, hostPath, ephemeral',
      },
    ],
  },
);

const model = objectOf<ModelSpec>(
  'The model and how it is loaded.',
  {
    source: text('hf://org/name, pypi://name@version, or an absolute path inside the pod.', 512),
    revision: text('Branch, tag or commit of an hf:// source; main when absent.', 128, {
      pattern: '^[A-Za-z0-9._/-]+$',
    }),
    servedName: text(
      'The model name that clients send; the name of this object when absent.',
      128,
      {
        pattern: '^[^\\s]+$',
      },
    ),
    dtype: choice(
      'Type of the weights in memory; auto keeps what the checkpoint has.',
      ['auto', 'float32', 'bfloat16', 'int8', 'int4'],
      { default: 'auto' },
    ),
    kvCacheDtype: choice(
      'What keys and values are kept in; when absent as exact as the dtype, so int8 for int8 and int4.',
      ['float32', 'bfloat16', 'int8'],
    ),
    maxModelLength: integer(
      'Tokens of prompt and answer together; what the model allows when absent.',
      16,
      1048576,
    ),
    cache,
    secretRef: objectOf<NonNullable<ModelSpec['secretRef']>>(
      "A Secret whose key 'token' reads the model hub.",
      { name: objectName('The Secret.') },
      { required: ['name'] },
    ),
  },
  {
    required: ['source'],
    rules: [
      {
        rule: "self.source.matches('^(hf://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*|pypi://[A-Za-z0-9][A-Za-z0-9._-]*@[A-Za-z0-9][A-Za-z0-9._+-]*|/[^:]*)$')",
        message:
          'must be hf://org/name (its revision goes to spec.model.revision), pypi://name@version, or an absolute path inside the pod',
        fieldPath: '.source',
      },
      {
        rule: "!has(self.revision) || self.source.startsWith('hf://')",
        message: 'only an hf:// source has a revision; remove it',
        fieldPath: '.revision',
      },
      {
        rule: "!has(self.secretRef) || self.source.startsWith('hf://')",
        message: 'only an hf:// source needs a token; remove it',
        fieldPath: '.secretRef',
      },
    ],
  },
);

const parallelism = objectOf<ParallelismSpec>(
  'How one replica is split over GPUs.',
  {
    tensor: integer('GPUs of one pod, each with a part of every layer.', 1, 16, { default: 1 }),
    pipeline: integer(
      'Pods of one replica, each with a part of the layers; more than one need the LeaderWorkerSet controller.',
      1,
      64,
      { default: 1 },
    ),
    exclusiveTopology: text(
      'Key of a node label, such as that of a rack: the pods of a replica get nodes of one value, which no other replica gets.',
      316,
      {
        pattern: '^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$',
      },
    ),
  },
  {
    default: {},
    rules: [
      {
        rule: 'self.tensor in [1, 2, 4, 8, 16]',
        message: 'must be 1, 2, 4, 8 or 16, so that attention heads split evenly',
        fieldPath: '.tensor',
      },
      {
        rule: '!has(self.exclusiveTopology) || self.pipeline > 1',
        message: 'places the pods of a pipeline; remove it or set pipeline to 2 or more',
        fieldPath: '.exclusiveTopology',
      },
    ],
  },
);

const batchPolicy = objectOf<BatchPolicySpec>(
  'How requests share the engine.',
  {
    mode: choice(
      'Continuous: requests join and leave at every step. Sequential: one at a time. Static: padded batches. Threads: one worker a request.',
      ['Continuous', 'Sequential', 'Static', 'Threads'],
      { default: 'Continuous' },
    ),
    maxSequences: integer('Sequences that run at once.', 1, 1024, { default: 64 }),
    maxBatchedTokens: integer(
      "Tokens of one step; the engine's own default when absent, 2048.",
      16,
      65536,
    ),
    maxQueuedRequests: integer('Requests that may wait; more are refused with 429.', 0, 100000, {
      default: 256,
    }),
    queueTimeout: duration('How long a request may wait.', { default: '60s' }),
    staticWindow: duration('How long Static collects a batch; 50ms when absent.'),
    threads: integer('Workers of Threads; one per sequence when absent.', 1, 256),
  },
  {
    default: {},
    rules: [
      {
        rule: "!has(self.staticWindow) || self.mode == 'Static'",
        message: 'belongs to mode Static; remove it or change the mode',
        fieldPath: '.staticWindow',
      },
      {
        rule: "!has(self.threads) || self.mode == 'Threads'",
        message: 'belongs to mode Threads; remove it or change the mode',
        fieldPath: '.threads',
      },
      {
        rule: '!has(self.maxBatchedTokens) || self.maxBatchedTokens >= self.maxSequences',
        message: 'must be at least maxSequences: every running sequence needs a token of each step',
        fieldPath: '.maxBatchedTokens',
      },
      {
        rule: "duration(self.queueTimeout) > duration('0s')",
        message: 'must be longer than zero',
        fieldPath: '.queueTimeout',
      },
    ],
  },
);

/** `window` is the HPA's own default, of rules that name none. */
const scalingRules = (description: string, window: number): Schema =>
  objectOf<ScalingRules>(description, {
    stabilizationWindowSeconds: integer(
      `Seconds of history that the HPA looks at; ${window} when absent from these rules.`,
      0,
      3600,
    ),
    selectPolicy: choice('Which policy counts; Max when absent.', ['Max', 'Min', 'Disabled']),
    policies: {
      type: 'array',
      description: "Limits of one step; the HPA's own when absent from these rules.",
      maxItems: 16,
      'x-kubernetes-list-type': 'atomic',
      items: objectOf<NonNullable<ScalingRules['policies']>[number]>(
        'One limit.',
        {
          type: choice('What value counts.', ['Pods', 'Percent']),
          value: integer('Pods, or percent of the present number.', 1, 100000),
          periodSeconds: integer('Seconds that the limit holds for.', 1, 1800),
        },
        { required: ['type', 'value', 'periodSeconds'] },
      ),
    },
  });

const autoscaling = objectOf<AutoscalingSpec>(
  'Scales replicas on queue depth. Without it, replicas is fixed.',
  {
    minReplicas: integer('0 lets an idle deployment stop.', 0, 1000, { default: 1 }),
    maxReplicas: integer('Most replicas.', 1, 1000),
    targetQueueDepth: integer('Waiting requests per replica that the HPA aims at.', 1, 100000, {
      default: 16,
    }),
    idleTimeout: duration(
      'Time without a request until 0 replicas, with minReplicas 0; 30m when absent.',
    ),
    behavior: objectOf<ScalingBehavior>('Passed on to the HorizontalPodAutoscaler.', {
      scaleUp: scalingRules(
        'How fast replicas are added; when absent doubled every 30s, at once.',
        0,
      ),
      scaleDown: scalingRules(
        'How fast replicas are removed; when absent one every 120s, to the highest number of the last 600s.',
        300,
      ),
    }),
  },
  {
    required: ['maxReplicas'],
    rules: [
      {
        rule: 'self.minReplicas <= self.maxReplicas',
        message: 'must not be above maxReplicas',
        fieldPath: '.minReplicas',
      },
      {
        rule: '!has(self.idleTimeout) || self.minReplicas == 0',
        message: 'only minReplicas 0 lets an idle deployment stop; set that or remove idleTimeout',
        fieldPath: '.idleTimeout',
      },
    ],
  },
);

const toleration = objectOf<Toleration>('A toleration of a pod.', {
  key: text('Key of the taint; with Exists, every key when absent.', 316),
  operator: choice('Exists or Equal; Equal when absent.', ['Exists', 'Equal']),
  value: { type: 'string', description: 'Value of the taint.', maxLength: 63 },
  effect: choice('Effect of the taint; every effect when absent.', [
    'NoSchedule',
    'PreferNoSchedule',
    'NoExecute',
  ]),
  tolerationSeconds: { type: 'integer', format: 'int64', description: 'For NoExecute.' },
});

const accelerator = objectOf<AcceleratorSpec>(
  'The GPUs; A100s of any kind when nothing is said.',
  {
    product: {
      type: 'array',
      description:
        'Values of the node label nvidia.com/gpu.product; those of the A100 when absent.',
      minItems: 1,
      maxItems: 16,
      'x-kubernetes-list-type': 'set',
      items: text('A product.', 63, { pattern: '^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$' }),
    },
    memory: quantity("Memory of one GPU; read from the product's name when absent."),
    resourceName: text('The resource that a node offers per GPU.', 253, {
      default: 'nvidia.com/gpu',
      pattern: '^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$',
    }),
    nodeSelector: labels('Labels that a node must have; replaces the choice by product.'),
    tolerations: {
      type: 'array',
      description: 'Added to the toleration of nvidia.com/gpu.',
      maxItems: 32,
      'x-kubernetes-list-type': 'atomic',
      items: toleration,
    },
    runtimeClassName: objectName('RuntimeClass of the engine pods.'),
  },
  {
    default: {},
    rules: [
      {
        rule: '!(has(self.product) && has(self.nodeSelector))',
        message: 'replaces the choice by product; keep one of product and nodeSelector',
        fieldPath: '.nodeSelector',
      },
    ],
  },
);

const rollout = objectOf<RolloutSpec>(
  'What a rollout may cost.',
  {
    maxSurge: integer('Replicas above the wanted number.', 0, 1000, { default: 0 }),
    maxUnavailable: integer('Replicas that may be missing.', 0, 1000, { default: 1 }),
  },
  {
    default: {},
    rules: [
      {
        rule: 'self.maxSurge + self.maxUnavailable > 0',
        message:
          'maxSurge and maxUnavailable must not both be 0: a rollout could not move; set one to 1',
      },
    ],
  },
);

const template = objectOf<TemplateSpec>(
  'Laid over the engine pod by the merge rules of server-side apply; the container is called engine.',
  {
    metadata: objectOf<NonNullable<TemplateSpec['metadata']>>(
      'Added to the pod.',
      {
        labels: labels('Labels.'),
        annotations: {
          type: 'object',
          description: 'Annotations.',
          maxProperties: 64,
          additionalProperties: { type: 'string', maxLength: 4096 },
        },
      },
      {
        rules: [
          {
            rule: "!has(self.labels) || self.labels.all(key, !key.startsWith('serving.nvlm.dev/') && !key.startsWith('app.kubernetes.io/'))",
            message:
              'labels of serving.nvlm.dev and app.kubernetes.io belong to the operator; use another prefix',
            fieldPath: '.labels',
          },
        ],
      },
    ),
    spec: {
      type: 'object',
      description:
        'A partial PodSpec. The container engine asks for 1 + tensor CPUs and 2 + 2 x tensor GiB of memory besides its GPUs; resources here say otherwise.',
      'x-kubernetes-preserve-unknown-fields': true,
    },
  },
);

const auth = objectOf<AuthSpec>(
  'Who may use the engine; everybody who reaches it when absent.',
  {
    apiKeysSecretRef: objectOf<AuthSpec['apiKeysSecretRef']>(
      'A Secret with one API key per line.',
      {
        name: objectName('The Secret.'),
        key: text('Its key.', 253, { default: 'api-keys', pattern: '^[-._a-zA-Z0-9]+$' }),
      },
      { required: ['name'] },
    ),
  },
  { required: ['apiKeysSecretRef'] },
);

/** Objects that were made before the rule of the queue can be scaled, by the HPA too, and edited as long as these two fields stay. */
const hasSameQueue =
  'oldSelf.hasValue() && has(oldSelf.value().autoscaling) && oldSelf.value().batchPolicy.maxQueuedRequests == self.batchPolicy.maxQueuedRequests && oldSelf.value().autoscaling.targetQueueDepth == self.autoscaling.targetQueueDepth';

export const specSchema = objectOf<NVLMDeploymentSpec>(
  'What is wanted.',
  {
    model,
    parallelism,
    batchPolicy,
    replicas: integer('Replicas of the engine. With autoscaling, the HPA writes it.', 0, 1000, {
      default: 1,
    }),
    autoscaling,
    accelerator,
    rollout,
    drain: objectOf<DrainSpec>(
      'How pods leave.',
      {
        timeout: duration(
          'How long streams may go on once their pod is to go. When absent 0.12 s for each token of model.maxModelLength (4096 where that is absent too), between 60s and 15m.',
        ),
      },
      {
        default: {},
        rules: [
          {
            rule: "!has(self.timeout) || duration(self.timeout) <= duration('1h')",
            message: 'must be at most 1h',
            fieldPath: '.timeout',
          },
        ],
      },
    ),
    template,
    auth,
    driftPolicy: choice(
      'Repair sets back what somebody else changed on the objects of this deployment; Report only tells.',
      ['Repair', 'Report'],
      { default: 'Repair' },
    ),
  },
  {
    required: ['model'],
    rules: [
      {
        rule: "self.parallelism.pipeline == 1 || self.batchPolicy.mode == 'Continuous'",
        message: 'a pipeline needs batchPolicy.mode Continuous; set that or pipeline 1',
      },
      {
        // Engines that refuse requests before the queue is as deep as the target never call for more replicas.
        rule: `!has(self.autoscaling) || self.batchPolicy.maxQueuedRequests >= 2 * self.autoscaling.targetQueueDepth || (${hasSameQueue})`,
        optionalOldSelf: true,
        message:
          'must be at least twice autoscaling.targetQueueDepth: a queue that is full sooner calls for no more replicas; raise it or lower the target',
        fieldPath: '.batchPolicy.maxQueuedRequests',
      },
    ],
  },
);
