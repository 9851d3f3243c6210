import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { drainSeconds, graceSeconds } from '#charts/engine-container.ts';
import { engineObjects } from '#charts/engine-objects.ts';
import { enginePod, enginePodTemplate, engineRevision } from '#charts/engine-pod.ts';
import type { Container } from '#charts/kube.ts';
import { mergePodSpec } from '#charts/merge.ts';
import type { EngineProps } from '#charts/props.ts';
import type { NVLMDeploymentSpec } from '#crds/nvlm-deployment.ts';
import { readServeOptions } from '#engine/options.ts';
import { engineProps, nvlmSpec as spec } from '../support/deployment-spec.ts';

const props = (more: Partial<NVLMDeploymentSpec> = {}): EngineProps => engineProps(spec(more));
const engineOf = (more: Partial<NVLMDeploymentSpec> = {}): Container => {
  const [container] = enginePodTemplate(props(more)).spec.containers;
  assert.ok(container);
  return container;
};
const argumentsOf = (more: Partial<NVLMDeploymentSpec> = {}): readonly string[] =>
  engineOf(more).args as readonly string[];

describe('the engine’s arguments', () => {
  const batch = spec().batchPolicy;
  const cases: Readonly<Record<string, Partial<NVLMDeploymentSpec>>> = {
    'as they are by default': {},
    'with everything that a model has': {
      model: {
        source: 'hf://nvidia/NVLM-D-72B',
        revision: 'main',
        servedName: 'nvlm',
        dtype: 'int4',
        kvCacheDtype: 'bfloat16',
        maxModelLength: 8192,
        cache: {},
      },
    },
    'in Static mode': { batchPolicy: { ...batch, mode: 'Static', staticWindow: '50ms' } },
    'in Threads mode': { batchPolicy: { ...batch, mode: 'Threads', threads: 4 } },
    'with a budget and a compound time': {
      batchPolicy: { ...batch, maxBatchedTokens: 4096, queueTimeout: '1h30m' },
    },
    'with a fractional time': { batchPolicy: { ...batch, queueTimeout: '1.5s' } },
    'with API keys': { auth: { apiKeysSecretRef: { name: 'keys', key: 'api-keys' } } },
    'with a drain time': { drain: { timeout: '5m' } },
    'over several GPUs': { parallelism: { tensor: 8, pipeline: 1 } },
  };
  for (const [what, more] of Object.entries(cases)) {
    test(`are understood by the engine, ${what}`, () => {
      const options = readServeOptions(argumentsOf(more), {});
      assert.notEqual(options, 'help');
      if (options === 'help') return;
      assert.equal(options.port, 8000);
      assert.equal(options.host, '0.0.0.0');
      assert.equal(options.batchMode, spec(more).batchPolicy.mode);
    });
  }

  test('mean what the resource says', () => {
    const options = readServeOptions(argumentsOf(cases['with a budget and a compound time']), {});
    if (options === 'help') assert.fail();
    assert.equal(options.queueTimeout, 5_400_000);
    assert.equal(options.maxBatchedTokens, 4096);
    assert.equal(options.servedModelName, 'chat');
    assert.equal(options.model, 'hf://nvidia/NVLM-D-72B');
  });
});

describe('the engine’s pod', () => {
  test('asks for whole GPUs of A100 nodes, and for as much shared memory as they need', () => {
    const template = enginePodTemplate(props({ parallelism: { tensor: 8, pipeline: 1 } }));
    const engine = template.spec.containers[0];
    assert.deepEqual(engine?.resources, {
      limits: { 'nvidia.com/gpu': '8' },
      requests: { 'nvidia.com/gpu': '8', cpu: '9', memory: '18Gi' },
    });
    const text = JSON.stringify(template.spec.affinity);
    assert.match(text, /nvidia\.com\/gpu\.product.*NVIDIA-A100-SXM4-40GB.*NVIDIA-A100-SXM4-80GB/);
    assert.match(JSON.stringify(template.spec.volumes), /"sizeLimit":"16Gi"/);
  });

  const requestsWith = (resources: object | undefined): object | undefined => {
    const containers = [{ name: 'engine', ...(resources && { resources }) }];
    const { requests } = engineOf({ template: { spec: { containers } } }).resources as {
      requests?: object;
    };
    return requests;
  };
  for (const { what, resources, requests } of [
    {
      what: 'a core for the event loop and one for each GPU, and memory for the process and /dev/shm',
      resources: undefined,
      requests: { 'nvidia.com/gpu': '1', cpu: '2', memory: '4Gi' },
    },
    {
      what: 'what the template asks for instead',
      resources: { requests: { cpu: '500m', memory: '256Mi' }, limits: { memory: '1Gi' } },
      requests: { 'nvidia.com/gpu': '1', cpu: '500m', memory: '256Mi' },
    },
    {
      what: 'nothing that a limit of the template says already, so that the request is never above it',
      resources: { limits: { cpu: '1', memory: '1Gi' } },
      requests: { 'nvidia.com/gpu': '1' },
    },
    {
      what: 'no CPU at all where the template takes it away',
      resources: { requests: { cpu: null } },
      requests: { 'nvidia.com/gpu': '1', memory: '4Gi' },
    },
  ]) {
    test(`asks the host for ${what}`, () => {
      assert.deepEqual(requestsWith(resources), requests);
    });
  }

  test('runs without root, without a token and on a read-only file system', () => {
    const { spec: pod } = enginePodTemplate(props());
    assert.equal(pod.automountServiceAccountToken, false);
    assert.equal((pod.securityContext as { runAsNonRoot: boolean }).runAsNonRoot, true);
    assert.deepEqual(pod.containers[0]?.securityContext, {
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    });
  });

  test('starts without its API keys, so that the engine can say that they are missing', () => {
    const auth = { apiKeysSecretRef: { name: 'keys', key: 'mine' } };
    const { spec: pod } = enginePodTemplate(props({ auth }));
    const volumes = pod.volumes as { name: string; secret?: object }[];
    assert.deepEqual(volumes.find(({ name }) => name === 'api-keys')?.secret, {
      secretName: 'keys',
      items: [{ key: 'mine', path: 'mine' }],
      optional: true,
    });
    assert.ok(argumentsOf({ auth }).includes('--api-keys-file=/etc/nvlm/api-keys/mine'));
  });

  test('gives a first start the time that its weights need, and streams the time to end', () => {
    const small = enginePodTemplate({ ...props(), weightsBytes: 1e9 });
    const large = enginePodTemplate({ ...props(), weightsBytes: 158.76e9 });
    const budget = (template: typeof small): number => {
      const probe = template.spec.containers[0]?.startupProbe as {
        periodSeconds: number;
        failureThreshold: number;
      };
      return probe.periodSeconds * probe.failureThreshold;
    };
    assert.equal(budget(small), 600);
    assert.ok(budget(large) >= (2 * 158.76e9) / 200e6);
    assert.equal(drainSeconds(spec({ drain: { timeout: '2m' } })), 120);
    assert.ok(graceSeconds(spec()) > drainSeconds(spec()));
  });

  test('a template of the user is laid over it, and the operator’s labels stay', () => {
    const more = {
      template: {
        metadata: { labels: { team: 'a' } },
        spec: {
          priorityClassName: 'high',
          containers: [
            {
              name: 'engine',
              env: [{ name: 'EXTRA', value: '1' }],
              resources: { limits: { memory: '8Gi' } },
            },
            { name: 'sidecar', image: 'side:1' },
          ],
          volumes: [{ name: 'tmp', emptyDir: { sizeLimit: '9Gi' } }],
        },
      },
    };
    const template = enginePodTemplate(props(more));
    assert.equal(template.metadata.labels?.team, 'a');
    assert.equal(template.metadata.labels?.['serving.nvlm.dev/deployment'], 'chat');
    assert.equal(template.spec.priorityClassName, 'high');
    const [engine, sidecar] = template.spec.containers;
    assert.ok(engine);
    assert.equal(sidecar?.name, 'sidecar');
    assert.deepEqual(
      (engine.env as { name: string }[]).map(({ name }) => name),
      ['XDG_CACHE_HOME', 'EXTRA'],
    );
    assert.deepEqual((engine.resources as { limits: object }).limits, {
      'nvidia.com/gpu': '1',
      memory: '8Gi',
    });
    const volumes = template.spec.volumes as { name: string; emptyDir?: object }[];
    assert.equal(volumes.length, 3);
    assert.deepEqual(volumes.find(({ name }) => name === 'tmp')?.emptyDir, { sizeLimit: '9Gi' });
  });

  test('sleeps longer before it stops, for as long as the template says', () => {
    const lifecycle = { preStop: { sleep: { seconds: 30 } } };
    const own = { terminationGracePeriodSeconds: 160, containers: [{ name: 'engine', lifecycle }] };
    const { spec: pod } = enginePodTemplate(props({ template: { spec: own } }));
    assert.deepEqual(engineOf().lifecycle, { preStop: { sleep: { seconds: 5 } } });
    assert.deepEqual(pod.containers[0]?.lifecycle, lifecycle);
    assert.equal(pod.terminationGracePeriodSeconds, 160);
  });

  test('its revision is the same for the same pod, and another for another', () => {
    const one = engineRevision(props());
    assert.equal(engineRevision(props()), one);
    assert.equal(engineRevision(props({ replicas: 9 })), one);
    const batchPolicy = { ...spec().batchPolicy, maxSequences: 8 };
    assert.notEqual(engineRevision(props({ batchPolicy })), one);
  });

  test('belongs to its NVLMDeployment, as everything else that is made for it', () => {
    const template = enginePodTemplate(props());
    const all = [
      enginePod(props(), template, engineRevision(props()), 'chat-1'),
      ...engineObjects(
        props({ autoscaling: { minReplicas: 1, maxReplicas: 3, targetQueueDepth: 4 } }),
      ),
    ];
    for (const { kind, metadata } of all) {
      assert.equal(metadata.ownerReferences?.[0]?.uid, 'u-1', kind);
      assert.equal(metadata.namespace, 'team', kind);
      assert.equal(metadata.labels?.['app.kubernetes.io/managed-by'], 'nvlm-operator', kind);
    }
    assert.deepEqual(all.map(({ kind }) => kind).sort(), [
      'HorizontalPodAutoscaler',
      'NetworkPolicy',
      'Pod',
      'PodDisruptionBudget',
      'Service',
    ]);
  });
});

test('merging leaves both sides as they were, and null removes a field', () => {
  const base = { containers: [{ name: 'a', ports: [{ containerPort: 1 }] }], nodeName: 'x' };
  const overlay = {
    nodeName: null,
    containers: [{ name: 'a', ports: [{ containerPort: 1, protocol: 'TCP', name: 'http' }] }],
  };
  const before = JSON.stringify([base, overlay]);
  assert.deepEqual(mergePodSpec(base, overlay), {
    containers: [{ name: 'a', ports: [{ containerPort: 1, protocol: 'TCP', name: 'http' }] }],
  });
  assert.equal(JSON.stringify([base, overlay]), before);
});
