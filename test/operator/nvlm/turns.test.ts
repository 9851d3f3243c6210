import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { NVLMDeploymentStatus } from '#crds/nvlm-deployment.ts';
import { createWatched, type Watched } from '#operator/controllers.ts';
import type { ApplyOptions, KubeClient, KubeRequest } from '#operator/kube/client.ts';
import { Expectations } from '#operator/kube/expectations.ts';
import { type KubeObject, keyOf, type ResourceType } from '#operator/kube/resource.ts';
import { OperatorMetrics } from '#operator/metrics.ts';
import type { ControllerContext } from '#operator/nvlm/context.ts';
import { NVLMController } from '#operator/nvlm/controller.ts';
import { EventRecorder } from '#operator/nvlm/events.ts';
import { DepthBook } from '#operator/scaling/depth.ts';
import { SPEC_DEFAULTS } from '../../support/deployment-spec.ts';
import { FakeClock } from '../../support/fake-clock.ts';

/** An API server that takes everything, and tells watches of it when the test says so. */
class World {
  readonly watched: Watched;
  readonly calls: string[] = [];
  readonly context: ControllerContext;
  #untold: KubeObject[] = [];
  #untoldDeletions: KubeObject[] = [];
  #version = 0;
  #aheadMs = 0;

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
      // The Job that describes the model is not waited for.
      describeTimeoutMs: -1,
      expectations: new Expectations(),
      depths: new DepthBook(),
      metricsState: () => ({ status: 'off', message: '' }),
      queueMetricsApi: 'custom',
      engineImage: 'nvlm-engine:1',
      imagePullPolicy: 'Never',
      operatorNamespace: 'nvlm-system',
      available: { podMonitor: false, leaderWorkerSet: false },
      identity: 'test',
      now: () => this.now(),
      random: Math.random,
      log: () => {},
    };
  }

  now(): Date {
    return new Date(Date.now() + this.#aheadMs);
  }

  advance(ms: number): void {
    this.#aheadMs += ms;
  }

  /** Oldest first. */
  jobs(): KubeObject[] {
    const time = ({ metadata }: KubeObject): number => Date.parse(metadata.creationTimestamp ?? '');
    return (this.watched.children.get('Job')?.list() ?? []).sort((a, b) => time(a) - time(b));
  }

  put(object: KubeObject): KubeObject {
    const resourceVersion = String(++this.#version);
    const metadata = {
      uid: `uid-${resourceVersion}`,
      creationTimestamp: this.now().toISOString(),
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
    for (const object of this.#untoldDeletions.splice(0)) {
      this.watched.children.get(object.kind)?.delete(object);
    }
  }

  #deployment(): KubeObject {
    const [only] = this.watched.deployments.list();
    assert.ok(only);
    return only;
  }

  #apply(type: ResourceType, object: KubeObject, { subresource }: ApplyOptions): KubeObject {
    this.calls.push(`apply ${subresource ?? type.kind}`);
    if (subresource !== 'status') {
      const live = this.watched.children.get(type.kind)?.get(keyOf(object));
      const metadata = { ...live?.metadata, ...object.metadata };
      return this.put({ ...live, ...object, metadata });
    }
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
    if (method === 'DELETE') {
      this.#untoldDeletions.push(...this.jobs().filter(({ metadata }) => metadata.name === what));
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

  test('tries a description that failed again, whichever operator comes, and writes nothing else meanwhile', async () => {
    const world = new World();
    const told = (): string => {
      const [one] = world.watched.deployments.list() as { status?: NVLMDeploymentStatus }[];
      const accepted = one?.status?.conditions?.find(({ type }) => type === 'Accepted');
      return `${accepted?.status} ${one?.status?.phase}: ${accepted?.message}`;
    };
    let operator = new NVLMController(world.context);
    /** The writes until none is left, and when to look again. */
    const settle = async (): Promise<[string[], number | undefined]> => {
      const writes: string[] = [];
      for (;;) {
        world.tell();
        const waitMs = await operator.reconcile('team/chat', fence);
        const turn = world.turn();
        if (turn.length === 0) return [writes, waitMs];
        writes.push(...turn);
      }
    };
    world.put(deployment(1));
    await settle();
    for (const minutes of [1, 2, 4]) {
      const job = world.jobs().at(-1);
      assert.ok(job);
      const lastTransitionTime = world.now().toISOString();
      const failed = { type: 'Failed', status: 'True', message: 'it broke', lastTransitionTime };
      world.put({ ...job, status: { conditions: [failed] } });
      const [writes, waitMs] = await settle();
      assert.deepEqual(
        writes.map((write) => write.replace(/chat-describe-.*/, 'Job')),
        minutes === 1 ? ['apply status'] : ['DELETE Job', 'apply status'],
      );
      assert.match(told(), /^True Ready: Job \S+: it broke; it is tried again at /);
      assert.ok(waitMs !== undefined && waitMs > 0 && waitMs <= minutes * 60_000);
      operator = new NVLMController(world.context);
      await settle();
      world.advance(minutes * 60_000 - 10_000);
      assert.deepEqual((await settle())[0], [], 'nothing is written while it waits');
      world.advance(10_000);
      assert.deepEqual((await settle())[0], ['apply Job', 'apply status']);
      assert.match(told(), /^True Ready: Job \S+: it broke; Job \S+ tries again$/);
      assert.equal(world.jobs().length, 2);
    }
  });

  test('ends soon where each write takes long, and goes on in the next with what is left', async () => {
    const world = new World();
    const clock = new FakeClock();
    const slow = <A extends unknown[], R>(call: (...of: A) => R) => {
      return (...of: A): R => {
        clock.advance(15);
        return call(...of);
      };
    };
    const { request, apply, stream } = world.context.client;
    const client: KubeClient = { request: slow(request), apply: slow(apply) as never, stream };
    const controller = new NVLMController({ ...world.context, client }, clock);
    world.put(deployment(5));
    const turns: string[][] = [];
    for (let turn = 0; turn < 8; turn++) {
      world.tell();
      await controller.reconcile('team/chat', fence);
      turns.push(world.turn());
    }
    const pods = Array<string>(2).fill('POST pods');
    assert.deepEqual(turns.slice(3), [pods, pods, ['POST pods'], ['apply status'], []]);
    assert.deepEqual(
      turns.slice(0, 3).map((calls) => calls.length),
      [1, 2, 2],
    );
  });

  test('tells counts once a second, and what is new besides at once', async () => {
    const world = new World();
    const clock = new FakeClock();
    const controller = new NVLMController(world.context, clock);
    const turn = async (): Promise<[string[], number | undefined]> => {
      world.tell();
      const waitMs = await controller.reconcile('team/chat', fence);
      return [world.turn(), waitMs];
    };
    world.put(deployment(5));
    for (let turns = 0; turns < 5; turns++) await turn();
    const setReady = (index: number, status: 'True' | 'False'): void => {
      const pod = world.watched.pods.list()[index]!;
      world.put({ ...pod, status: { phase: 'Running', conditions: [{ type: 'Ready', status }] } });
    };
    clock.advance(5000);
    setReady(0, 'False');
    setReady(1, 'False');
    assert.deepEqual(await turn(), [['apply status'], undefined], 'it is Ready no more');
    clock.advance(300);
    setReady(2, 'False');
    assert.deepEqual(await turn(), [[], 700], 'one fewer of five');
    clock.advance(700);
    assert.deepEqual(await turn(), [['apply status'], undefined]);
    for (const index of [0, 1, 2]) setReady(index, 'True');
    assert.deepEqual(await turn(), [['apply status'], undefined], 'it is Ready again');
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
