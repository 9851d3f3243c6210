/** Schema of `status`. Written by the operator alone, so it states types and bounds and has no rules. */
import { CONDITION_TYPES, type Condition, PHASES, REASONS } from './conditions.ts';
import type {
  CapacityStatus,
  ColdStartStatus,
  ModelStatus,
  NVLMDeploymentStatus,
} from './nvlm-deployment.ts';
import type { Schema } from './schema.ts';
import { choice, objectOf } from './schema.ts';

const count = (description: string): Schema => ({
  type: 'integer',
  format: 'int32',
  description,
  minimum: 0,
});
const wide = (description: string): Schema => ({
  type: 'integer',
  format: 'int64',
  description,
  minimum: 0,
});
const note = (description: string, maxLength = 1024): Schema => ({
  type: 'string',
  description,
  maxLength,
});
const time = (description: string): Schema => ({
  type: 'string',
  format: 'date-time',
  description,
});

const condition = objectOf<Condition>(
  'One aspect of the state.',
  {
    type: choice('Which aspect.', CONDITION_TYPES),
    status: choice('Whether it holds.', ['True', 'False', 'Unknown']),
    reason: choice('Why, in one word.', Object.keys(REASONS)),
    message: note('Why, for people; says what to change.', 32768),
    observedGeneration: wide('Generation of the spec that it was judged by.'),
    lastTransitionTime: time('When status last changed.'),
  },
  { required: ['type', 'status', 'reason', 'message', 'observedGeneration', 'lastTransitionTime'] },
);

export const statusSchema = objectOf<NVLMDeploymentStatus>('What is.', {
  observedGeneration: wide('Generation of the spec that this status was made from.'),
  phase: choice('The state in one word.', PHASES),
  reason: choice('The reason of the condition that explains the phase.', Object.keys(REASONS)),
  conditions: {
    type: 'array',
    description: 'The aspects of the state.',
    maxItems: 16,
    'x-kubernetes-list-type': 'map',
    'x-kubernetes-list-map-keys': ['type'],
    items: condition,
  },
  replicas: count('Replicas that exist, of all revisions, without those being deleted.'),
  updatedReplicas: count('Replicas of the current revision.'),
  readyReplicas: count('Ready replicas of the current revision.'),
  servingReplicas: count('Replicas of any revision that take requests.'),
  drainingReplicas: count('Replicas that finish their streams before they go.'),
  ready: note('Ready and wanted replicas.', 32),
  selector: note('Label selector of the pods, for scale.', 512),
  currentRevision: note('Hash of the pod template that is being rolled out.', 64),
  queueDepth: count('Requests that wait, over all replicas.'),
  tokensPerSecond: {
    type: 'number',
    description: 'Generated tokens a second over all replicas, a mean of half a minute.',
    minimum: 0,
  },
  coldStart: objectOf<ColdStartStatus>('How the newest replica that became ready started.', {
    pod: note('Its pod.', 253),
    startedAt: time('When the pod was made.'),
    seconds: count('From then until it was ready.'),
    duration: note('The same for people.', 32),
  }),
  lastActiveTime: time('When a request was last seen.'),
  lastWake: note('The wake annotation that was last acted on.', 256),
  capacity: objectOf<CapacityStatus>("What fits into the GPUs' memory.", {
    gpuMemory: note('Memory of one GPU.', 24),
    weightsPerGpu: note('Weights on one GPU.', 24),
    kvCachePerGpu: note('Left for the KV cache on one GPU.', 24),
    kvBytesPerToken: wide('Bytes of KV cache per token, over all GPUs of a replica.'),
    maxCachedTokens: wide('Tokens that the KV cache of one replica holds.'),
    maxSequences: wide('Sequences of maxModelLength that fit at once.'),
  }),
  model: objectOf<ModelStatus>('What is known of the model.', {
    architecture: note('From its configuration.', 128),
    parameters: wide('Number of weights.'),
    maxModelLength: wide('Tokens of prompt and answer together.'),
    weightBytes: wide('Bytes of the weights as stored.'),
    source: note('The model that was described.', 512),
    of: note('The Job that described it.', 256),
    config: note('Its configuration: numbers, switches and short texts.', 8192),
    features: {
      type: 'array',
      description: 'What the engine that described it can do beyond the usual.',
      maxItems: 16,
      'x-kubernetes-list-type': 'set',
      items: note('A feature.', 64),
    },
  }),
  endpoint: note('Address of the Service inside the cluster.', 512),
});
