import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { describeJob, describeJobName } from '#charts/describe-job.ts';
import { engineRevision } from '#charts/engine-pod.ts';
import type { EngineProps } from '#charts/props.ts';
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import type { KubeObject } from '#operator/kube/resource.ts';
import { type Described, whatIsDescribed } from '#operator/nvlm/describe.ts';
import { judgeFeasibility, quantityBytes } from '#operator/nvlm/feasibility.ts';
import type { PodObject } from '#operator/nvlm/pod.ts';

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

describe('what is known of a model', () => {
  const now = new Date('2026-11-24T10:00:00Z');
  const one = deployment();
  const name = describeJobName(propsOf(one));
  const job = (ageSeconds: number): KubeObject =>
    ({
      metadata: { creationTimestamp: new Date(now.getTime() - ageSeconds * 1000).toISOString() },
    }) as unknown as KubeObject;
  const pod = (message: string | undefined, exitCode = 0, jobName = name): PodObject =>
    ({
      metadata: { labels: { 'job-name': jobName } },
      status: {
        containerStatuses: [{ name: 'describe', state: { terminated: { exitCode, message } } }],
      },
    }) as unknown as PodObject;
  const look = (
    subject: NVLMDeployment,
    pods: PodObject[],
    made: KubeObject | undefined = job(1),
  ): Described => whatIsDescribed(subject, propsOf(subject), made, pods, now, 60_000);

  test('the answer of the Job, and from then on the status', () => {
    const answer = JSON.stringify({ config, weightBytes });
    const ofJob = { state: 'known', of: name, isRemembered: false, config, weightBytes };
    assert.deepEqual(look(one, [pod(answer)]), ofJob);
    const able = JSON.stringify({ config, weightBytes, features: ['pipeline-over-pods', 7, 'Ä'] });
    const told = look(one, [pod(able)]);
    assert.deepEqual(told.state === 'known' && told.features, ['pipeline-over-pods']);
    const status = { model: { of: name, config: JSON.stringify(config), weightBytes } };
    assert.deepEqual(look(deployment({}, status), []), { ...ofJob, isRemembered: true });
    const edited = deployment({ model: { ...one.spec.model, source: 'hf://other/model' } }, status);
    assert.equal(look(edited, []).state, 'waiting', 'another source is another model');
  });

  test('no answer is waited for, but not for ever; a refusal is told; nonsense is no answer', () => {
    assert.equal(look(one, [], undefined).state, 'waiting');
    assert.equal(look(one, []).state, 'waiting');
    assert.equal(look(one, [], job(61)).state, 'unknown');
    const refused = look(one, [pod('{"error":"DOWNLOAD_FAILED: no route"}', 1)]);
    assert.match(refused.state === 'unknown' ? refused.why : '', /DOWNLOAD_FAILED: no route/);
    assert.equal(look(one, [pod('<html>')]).state, 'unknown');
    assert.equal(look(one, [pod(undefined)]).state, 'unknown');
    assert.equal(
      look(one, [pod(JSON.stringify({ config, weightBytes }), 0, 'older')]).state,
      'waiting',
    );
  });

  test('a Job whose Secret is missing is waited for as long as it takes, and the Secret is named', () => {
    const held = (reason: string, message: string): PodObject =>
      ({
        metadata: { name: 'd', namespace: 'default', labels: { 'job-name': name } },
        spec: {},
        status: {
          containerStatuses: [{ name: 'describe', state: { waiting: { reason, message } } }],
        },
      }) as unknown as PodObject;
    const noSecret = held('CreateContainerConfigError', 'secret "hub" not found');
    const described = look(one, [noSecret], job(500));
    assert.ok(described.state === 'waiting');
    assert.equal(described.problem?.reason, 'SecretMissing');
    assert.equal(described.lookAgainMs, undefined, 'its pod tells when it is there');
    const noImage = held('ImagePullBackOff', 'x');
    const waiting = look(one, [noImage], job(1));
    assert.equal(waiting.state === 'waiting' && waiting.problem?.reason, 'ImagePull');
    assert.equal(look(one, [noImage], job(61)).state, 'unknown', 'an image is no Secret');
  });

  test('another image, Secret or model is another Job, and its pod has no rights and no GPU', () => {
    const { spec } = one;
    const names = [
      propsOf(one),
      propsOf(one, { image: 'nvlm-engine:2' }),
      propsOf(deployment({ model: { ...spec.model, secretRef: { name: 'hub' } } })),
      propsOf(deployment({ model: { ...spec.model, revision: 'v2' } })),
    ].map(describeJobName);
    assert.equal(new Set(names).size, 4);
    const text = JSON.stringify(describeJob(propsOf(one)));
    assert.match(text, /"automountServiceAccountToken":false/);
    assert.match(text, /"readOnlyRootFilesystem":true/);
    assert.doesNotMatch(text, /"nvidia.com\/gpu":/);
  });
});
