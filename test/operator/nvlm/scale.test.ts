import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import { type KubeObject, objectPath } from '#operator/kube/resource.ts';
import { ownerIndex, Store } from '#operator/kube/store.ts';
import { type ControllerContext, NVLM_RESOURCE } from '#operator/nvlm/context.ts';
import { groupIndex, observe } from '#operator/nvlm/observe.ts';
import type { PodObject } from '#operator/nvlm/pod.ts';
import { serviceIndex } from '#operator/nvlm/route.ts';
import { scale } from '#operator/nvlm/scale.ts';
import { DepthBook } from '#operator/scaling/depth.ts';
import { OwnScaler } from '#operator/scaling/own.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { FakeKube } from '../../support/fake-kube/server.ts';

const now = new Date('2026-01-01T12:00:00Z');
const ago = (minutes: number): string =>
  new Date(now.getTime() - minutes * 60_000).toISOString().replace('.000Z', 'Z');
const path = objectPath(NVLM_RESOURCE, 'chat', 'ns');

describe('a deployment that may sleep', () => {
  let server: FakeKube;
  let clock: FakeClock;
  let depths: DepthBook;
  let context: ControllerContext;
  let version: number;
  let patches: { spec: { replicas: number }; metadata: { resourceVersion: string } }[];

  beforeEach(async () => {
    server = new FakeKube();
    const client = await server.start();
    patches = [];
    version = 6;
    server.misbehave = (request) => {
      if (request.verb !== 'patch') return false;
      assert.equal(request.path, `${path}/scale`);
      patches.push(request.body as never);
      request.response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
      return true;
    };
    clock = new FakeClock();
    depths = new DepthBook(clock);
    const pods = new Store<PodObject>({ owner: ownerIndex, group: groupIndex });
    pods.set({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: {
        name: 'chat-0',
        namespace: 'ns',
        uid: 'p',
        resourceVersion: '1',
        labels: { 'serving.nvlm.dev/traffic': 'serving' },
        ownerReferences: [{ apiVersion: 'v1', kind: 'NVLMDeployment', name: 'chat', uid: 'u' }],
      },
      spec: {},
      status: { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] },
    } as PodObject);
    context = {
      client,
      pods,
      endpointSlices: new Store({ service: serviceIndex }),
      children: new Map(),
      depths,
      deployments: new Store<NVLMDeployment & KubeObject>({ owner: ownerIndex }),
      now: () => now,
      metricsState: () => ({ status: 'served', message: '' }),
    } as unknown as ControllerContext;
  });
  afterEach(() => server.stop());

  /** Ready for two hours, last asked something forty minutes ago, with an idle time of thirty. */
  const look = async (more: { wake?: string; lastWake?: string } = {}) => {
    context.deployments.set({
      apiVersion: 'serving.nvlm.dev/v1alpha1',
      kind: 'NVLMDeployment',
      metadata: {
        name: 'chat',
        namespace: 'ns',
        uid: 'u',
        resourceVersion: String(++version),
        ...(more.wake && { annotations: { 'serving.nvlm.dev/wake': more.wake } }),
      },
      spec: {
        replicas: 1,
        autoscaling: { minReplicas: 0, maxReplicas: 2, targetQueueDepth: 4, idleTimeout: '30m' },
      },
      status: {
        lastActiveTime: ago(40),
        conditions: [{ type: 'EnginesAvailable', status: 'True', lastTransitionTime: ago(120) }],
        ...(more.lastWake && { lastWake: more.lastWake }),
      },
    } as unknown as NVLMDeployment & KubeObject);
    const seen = observe(context, 'ns/chat');
    assert.ok(seen);
    return scale(context, new OwnScaler(clock), seen, new AbortController().signal);
  };
  const present = new Map([['ns/chat', new Set(['ns/chat-0'])]]);
  const answers = (running: number): void =>
    void depths.record('ns/chat', 'ns/chat-0', { waiting: 0, running, finished: 5 });

  test('is left alone by an operator that has just started, until every engine has said what it does', async () => {
    await look();
    assert.deepEqual(patches, [], 'nobody was asked yet');
    depths.expect(present);
    await look();
    assert.deepEqual(patches, [], 'it was asked and has not answered');
    answers(3);
    await look();
    assert.deepEqual(patches, [], 'it is busy');
  });

  test('sleeps when every engine says that nothing runs, from the state that was looked at', async () => {
    depths.expect(present);
    answers(0);
    assert.deepEqual(await look(), { scaledTo: 0 });
    assert.deepEqual(patches, [{ metadata: { resourceVersion: '7' }, spec: { replicas: 0 } }]);
  });

  test('stays up for a wake signal that comes as it is about to sleep, for another idle time', async () => {
    depths.expect(present);
    answers(0);
    await look({ wake: '2', lastWake: '1' });
    assert.deepEqual(patches, []);
    clock.advance(29 * 60_000);
    answers(0);
    await look({ wake: '2', lastWake: '2' });
    assert.deepEqual(patches, [], 'the signal was noted in the status, and still counts');
    clock.advance(2 * 60_000);
    answers(0);
    await look({ wake: '2', lastWake: '2' });
    assert.equal(patches.length, 1);
  });
});
