import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { engineRevision } from '#charts/engine-pod.ts';
import type { EngineProps } from '#charts/props.ts';
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import type { Described } from '#operator/nvlm/describe.ts';
import { judgeFeasibility, quantityBytes } from '#operator/nvlm/feasibility.ts';

const config: unknown = JSON.parse(readFileSync('examples/nvlm-d-72b/config.json', 'utf8'));
const weightBytes = 158_759_186_688;

function deployment(spec: object = {}, status: object = {}): NVLMDeployment {
  return {
    apiVersion: 'serving.nvlm.dev/v1alpha1',
    kind: 'NVLMDeployment',
    metadata: { name: 'chat', namespace: 'default', uid: 'u' },
    spec: {
      model: { source: 'hf://nvidia/NVLM-D-72B', dtype: 'bfloat16', cache: { ephemeral: {} } },
      parallelism: { tensor: 8, pipeline: 1 },
      batchPolicy: { mode: 'Continuous', maxSequences: 64, queueTimeout: '60s' },
      accelerator: { resourceName: 'nvidia.com/gpu' },
      drain: {},
      replicas: 1,
      ...spec,
    },
    status,
  } as unknown as NVLMDeployment;
}
const propsOf = ({ spec }: NVLMDeployment, changes: Partial<EngineProps> = {}): EngineProps => ({
  name: 'chat',
  namespace: 'default',
  uid: 'u',
  spec,
  image: 'nvlm-engine:1',
  imagePullPolicy: 'IfNotPresent',
  operatorNamespace: 'nvlm-system',
  available: { podMonitor: false, leaderWorkerSet: false },
  ...changes,
});
const known: Described = { state: 'known', of: 'job', isRemembered: true, config, weightBytes };

describe('feasibility', () => {
  test('a spec that fits is accepted with what it leaves, and says so in numbers', () => {
    const { accepted, capacity, model } = judgeFeasibility(deployment(), known);
    assert.equal(accepted.status, 'True');
    assert.equal(accepted.reason, 'Feasible');
    assert.match(accepted.message, /18\.5Gi of weights .* sequences of 32768 tokens/);
    assert.equal(capacity?.gpuMemory, '40.0Gi');
    assert.equal(capacity?.kvBytesPerToken, 327_680);
    assert.equal(model?.parameters, 79_379_593_344);
  });

  test('a spec that cannot fit the smallest GPU it allows is refused with the number to change', () => {
    const four = { parallelism: { tensor: 4, pipeline: 1 } };
    const { accepted } = judgeFeasibility(deployment(four), known);
    assert.equal(accepted.status, 'False');
    assert.equal(accepted.reason, 'InsufficientGpuMemory');
    assert.match(accepted.message, /Set parallelism\.tensor to 8/);
    const large = {
      ...four,
      accelerator: { product: ['NVIDIA-A100-SXM4-80GB'], resourceName: 'g' },
    };
    assert.equal(judgeFeasibility(deployment(large), known).accepted.status, 'True');
    const told = { ...four, accelerator: { memory: '80Gi', resourceName: 'g' } };
    assert.equal(judgeFeasibility(deployment(told), known).accepted.status, 'True');
  });

  test('what is not known stops nothing: model, size or GPU', () => {
    const strange = judgeFeasibility(deployment(), { ...known, config: { model_type: 'mamba' } });
    assert.deepEqual([strange.accepted.status, strange.accepted.reason], ['True', 'ModelUnknown']);
    assert.match(strange.accepted.message, /mamba/);
    const product = { accelerator: { product: ['Radeon'], resourceName: 'g' } };
    assert.match(
      judgeFeasibility(deployment(product), known).accepted.message,
      /accelerator\.memory/,
    );
    const silent = judgeFeasibility(deployment(), {
      state: 'unknown',
      of: 'job',
      why: 'no network',
    });
    assert.deepEqual([silent.accepted.status, silent.accepted.message], ['True', 'no network']);
    const waiting = judgeFeasibility(deployment(), { state: 'waiting', of: 'job', lookAgainMs: 1 });
    assert.deepEqual([waiting.accepted.status, waiting.isWaiting], ['Unknown', true]);
  });

  test('replicas of several pods need an engine that says that it can, and the LeaderWorkerSet kind', () => {
    const two = deployment({ parallelism: { tensor: 8, pipeline: 2 } });
    const reasonOf = (described: Described, servesGroups: boolean): string[] => {
      const { accepted, isWaiting } = judgeFeasibility(two, described, servesGroups);
      return [accepted.status, accepted.reason, isWaiting ? 'waiting' : ''];
    };
    const can: Described = { ...known, features: ['pipeline-over-pods'] };
    assert.deepEqual(reasonOf(can, true), ['True', 'Feasible', '']);
    assert.deepEqual(reasonOf(can, false), ['False', 'LeaderWorkerSetMissing', '']);
    assert.deepEqual(reasonOf(known, true), ['False', 'PipelineUnsupported', '']);
    assert.match(judgeFeasibility(two, known).accepted.message, /pipeline is 2.*Set pipeline to 1/);
    const waiting: Described = { state: 'waiting', of: 'job', lookAgainMs: 1 };
    assert.deepEqual(reasonOf(waiting, true), ['Unknown', 'ModelUnknown', 'waiting']);
    assert.deepEqual(reasonOf(waiting, false), ['False', 'LeaderWorkerSetMissing', '']);
    // An engine that did not answer is not started in groups, one that could not read the model is.
    const silent: Described = { state: 'unknown', of: 'job', why: 'no answer' };
    assert.deepEqual(reasonOf(silent, true), ['Unknown', 'ModelUnknown', 'waiting']);
    const blind: Described = { ...silent, features: ['pipeline-over-pods'] };
    assert.deepEqual(reasonOf(blind, true), ['True', 'ModelUnknown', '']);
    assert.deepEqual(reasonOf({ ...silent, features: [] }, true), [
      'False',
      'PipelineUnsupported',
      '',
    ]);
    const { model } = judgeFeasibility(two, can);
    const remembered = deployment({}, { model });
    assert.deepEqual(model?.features, ['pipeline-over-pods']);
    assert.equal(remembered.status?.model?.features?.length, 1);
  });

  test('learning the size of the weights is no new revision', () => {
    const props = propsOf(deployment());
    assert.equal(engineRevision({ ...props, weightsBytes: weightBytes }), engineRevision(props));
  });

  test('quantities of Kubernetes are read', () => {
    assert.deepEqual(['80Gi', '40G', '1.5Ti', '7', 'x', '3Q'].map(quantityBytes), [
      80 * 2 ** 30,
      40e9,
      1.5 * 2 ** 40,
      7,
      undefined,
      undefined,
    ]);
  });
});
