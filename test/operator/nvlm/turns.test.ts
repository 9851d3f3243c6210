import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { createWatched, type Watched } from '#operator/controllers.ts';
import type { ApplyOptions, KubeClient, KubeRequest } from '#operator/kube/client.ts';
import { Expectations } from '#operator/kube/expectations.ts';
import type { KubeObject, ResourceType } from '#operator/kube/resource.ts';
import { OperatorMetrics } from '#operator/metrics.ts';
import type { ControllerContext } from '#operator/nvlm/context.ts';
import { NVLMController } from '#operator/nvlm/controller.ts';
import { EventRecorder } from '#operator/nvlm/events.ts';
import { DepthBook } from '#operator/scaling/depth.ts';
import { SPEC_DEFAULTS } from '../../support/deployment-spec.ts';

/** An API server that takes everything, and tells watches of it when the test says so. */
class World {
  readonly watched: Watched;
  readonly calls: string[] = [];
  readonly context: ControllerContext;
  #untold: KubeObject[] = [];
  #version = 0;

  constructor() {
    const client: KubeClient = {
      request: async (request) => this.#request(request),
      stream: async function* () {},
      apply: async (type, object, options) => this.#apply(type, object, options) as never,
    };
    this.watched = createWatched({
      client,
      namespace: undefined,
      metrics: new OperatorMetrics(),
      onListenerError: (error) => assert.fail(String(error)),
    });
    this.context = {
      ...this.watched,
      client,
      describeTimeoutMs: 0,
      expectations: new Expectations(),
      depths: new DepthBook(),
      metricsState: () => ({ status: 'off', message: '' }),
      queueMetricsApi: 'custom',
      engineImage: 'nvlm-engine:1',
      imagePullPolicy: 'Never',
      operatorNamespace: 'nvlm-system',
      available: { podMonitor: false, leaderWorkerSet: false },
      identity: 'test',
      // The Job that describes the model is waited for no more.
      now: () => new Date(Date.now() + 5000),
      random: Math.random,
      log: () => {},
    };
  }

  put(object: KubeObject): KubeObject {
    const resourceVersion = String(++this.#version);
    const metadata = {
      uid: `uid-${resourceVersion}`,
      creationTimestamp: new Date().toISOString(),
      ...object.metadata,
      resourceVersion,
    };
    const stored = { ...object, metadata };
    this.#untold.push(stored);
    return stored;
  }

  /** The watches catch up. */
  tell(): void {
    for (const object of this.#untold.splice(0)) {
      const { deployments, pods, endpointSlices, children } = this.watched;
      if (object.kind === 'NVLMDeployment') deployments.set(object as never);
      else if (object.kind === 'Pod') pods.set(object as never);
      else if (object.kind === 'EndpointSlice') endpointSlices.set(object);
      else children.get(object.kind)?.set(object);
    }
  }

  #deployment(): KubeObject {
    const [only] = this.watched.deployments.list();
    assert.ok(only);
    return only;
  }

  #apply(type: ResourceType, object: KubeObject, { subresource }: ApplyOptions): KubeObject {
    this.calls.push(`apply ${subresource ?? type.kind}`);
    if (subresource !== 'status') return this.put(object);
    return this.put({ ...this.#deployment(), status: object.status });
  }

  #request({ method, path, body }: KubeRequest): unknown {
    const what = path.split('/').at(-1);
    this.calls.push(`${method} ${what}`);
    if (method === 'POST' && what === 'pods') {
      const ready = [{ type: 'Ready', status: 'True' }];
      this.put({
        apiVersion: 'discovery.k8s.io/v1',
        kind: 'EndpointSlice',
        metadata: {
          name: 'chat-1',
          namespace: 'team',
          labels: { 'kubernetes.io/service-name': 'chat' },
        },
        endpoints: [{ addresses: ['10.0.0.1'], conditions: { ready: true } }],
      });
      return this.put({ ...(body as KubeObject), status: { phase: 'Running', conditions: ready } });
    }
    if (method === 'PATCH') {
      const deployment = this.#deployment();
      const { metadata } = body as { metadata: object };
      return this.put({ ...deployment, metadata: { ...deployment.metadata, ...metadata } });
    }
    return {};
  }

  /** The calls since the last time, without events. */
  turn(): string[] {
    return this.calls.splice(0).filter((call) => call !== 'POST events');
  }
}

const deployment = (replicas: number): KubeObject => ({
  apiVersion: 'serving.nvlm.dev/v1alpha1',
  kind: 'NVLMDeployment',
  metadata: { name: 'chat', namespace: 'team', generation: 1 },
  spec: {
    model: { source: 'hf://nvidia/NVLM-D-72B', dtype: 'auto', cache: {} },
    ...SPEC_DEFAULTS,
    replicas,
  },
});

describe('a turn of the reconcile', () => {
  const fence = new AbortController().signal;

  test('makes one round of writes, none on what it has not seen yet, and none when nothing is to do', async () => {
    const world = new World();
    const controller = new NVLMController(world.context);
    const turn = async (): Promise<string[]> => {
      await controller.reconcile('team/chat', fence);
      return world.turn();
    };
    world.put(deployment(5));
    world.tell();
    assert.deepEqual(await turn(), ['PATCH chat']);
    world.tell();
    assert.deepEqual((await turn()).sort(), [
      'apply Job',
      'apply NetworkPolicy',
      'apply PodDisruptionBudget',
      'apply Service',
    ]);
    assert.deepEqual(await turn(), [], 'what was written has not come back yet');
    world.tell();
    assert.deepEqual(await turn(), Array(5).fill('POST pods'), 'no status of pods not seen yet');
    world.tell();
    assert.deepEqual(await turn(), ['apply status']);
    assert.deepEqual(await turn(), [], 'the status is not written twice');
    world.tell();
    for (let again = 0; again < 3; again++) assert.deepEqual(await turn(), []);
    assert.equal(
      (world.watched.deployments.get('team/chat') as { status?: { phase?: string } }).status?.phase,
      'Ready',
    );
  });

  test('is over before its events are written', async () => {
    const world = new World();
    let release = (): void => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const written: string[] = [];
    const client = {
      ...world.context.client,
      request: async (request: KubeRequest) => {
        if (!request.path.endsWith('/events')) return world.context.client.request(request);
        await held;
        written.push((request.body as { reason: string }).reason);
        return {};
      },
    };
    const controller = new NVLMController({ ...world.context, client });
    world.put(deployment(1));
    for (let turn = 0; turn < 8; turn++) {
      world.tell();
      await controller.reconcile('team/chat', fence);
    }
    assert.deepEqual(written, []);
    release();
    await controller.flush();
    assert.deepEqual(written, ['Created', 'AllReady']);
  });
});

test('the same event is written once in ten minutes, and a refused one does not stop the next', async () => {
  const written: string[] = [];
  const logged: string[] = [];
  let nowMs = 0;
  const recorder = new EventRecorder({
    client: {
      request: async ({ body }: KubeRequest) => {
        const { note } = body as { note: string };
        if (note === 'refused') throw new Error('no room');
        written.push(note);
      },
    } as unknown as KubeClient,
    identity: 'test',
    now: () => new Date(nowMs),
    log: (_level, message) => logged.push(message),
  });
  const subject = deployment(1) as never;
  const record = async (note: string): Promise<void> => {
    recorder.record(subject, 'Normal', 'Created', 'Create', note);
    await recorder.flush();
  };
  await record('one');
  await record('one');
  await record('refused');
  await record('two');
  nowMs += 601_000;
  await record('one');
  assert.deepEqual(written, ['one', 'two', 'one']);
  assert.deepEqual(logged, ['an event could not be written']);
});
