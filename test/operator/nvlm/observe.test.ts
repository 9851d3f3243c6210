import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import type { KubeObject } from '#operator/kube/resource.ts';
import { ownerIndex, Store } from '#operator/kube/store.ts';
import type { ControllerContext } from '#operator/nvlm/context.ts';
import { groupIndex, observe } from '#operator/nvlm/observe.ts';
import type { PodObject } from '#operator/nvlm/pod.ts';
import { type EndpointSlice, serviceIndex } from '#operator/nvlm/route.ts';
import { DepthBook } from '#operator/scaling/depth.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const now = new Date('2026-01-01T00:10:00Z');

const pod = (name: string, deletionTimestamp?: string): PodObject =>
  ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name,
      namespace: 'ns',
      uid: name,
      resourceVersion: '1',
      ownerReferences: [{ apiVersion: 'v1', kind: 'NVLMDeployment', name: 'chat', uid: 'u' }],
      labels: { 'serving.nvlm.dev/deployment': 'chat', 'serving.nvlm.dev/traffic': 'serving' },
      ...(deletionTimestamp && { deletionTimestamp }),
    },
    spec: {},
    status: { phase: 'Running', conditions: [{ type: 'Ready', status: 'True' }] },
  }) as PodObject;

function drainingSince(time: string): PodObject {
  const one = pod('leaving');
  const labels = { ...one.metadata.labels, 'serving.nvlm.dev/traffic': 'draining' };
  const annotations = { 'serving.nvlm.dev/draining-since': time };
  return { ...one, metadata: { ...one.metadata, labels, annotations } };
}

const groupPod = (group: number, worker: number, set = 'chat-group'): PodObject => {
  const one = pod(worker === 0 ? `${set}-${group}` : `${set}-${group}-${worker}`);
  const labels = {
    ...one.metadata.labels,
    'leaderworkerset.sigs.k8s.io/name': set,
    'leaderworkerset.sigs.k8s.io/group-index': String(group),
    'leaderworkerset.sigs.k8s.io/worker-index': String(worker),
  };
  return { ...one, metadata: { ...one.metadata, ownerReferences: [], labels } };
};

const setOf = (uid: string, replicas: number): KubeObject => ({
  apiVersion: 'leaderworkerset.x-k8s.io/v1',
  kind: 'LeaderWorkerSet',
  metadata: {
    name: 'chat-group',
    namespace: 'ns',
    resourceVersion: '1',
    ownerReferences: [{ apiVersion: 'v1', kind: 'NVLMDeployment', name: 'chat', uid }],
  },
  spec: { replicas },
});

function world(pods: readonly PodObject[], groupSet?: KubeObject) {
  const deployments = new Store<NVLMDeployment & KubeObject>({ owner: ownerIndex });
  deployments.set({
    metadata: { name: 'chat', namespace: 'ns', uid: 'u', resourceVersion: '1' },
  } as NVLMDeployment & KubeObject);
  const podStore = new Store<PodObject>({ owner: ownerIndex, group: groupIndex });
  const groupSets = new Store<KubeObject>({ owner: ownerIndex });
  if (groupSet !== undefined) groupSets.set(groupSet);
  for (const one of pods) podStore.set(one);
  const clock = new FakeClock();
  const depths = new DepthBook(clock);
  const endpointSlices = new Store<EndpointSlice>({ service: serviceIndex });
  const context = {
    deployments,
    pods: podStore,
    endpointSlices,
    children: new Map([['LeaderWorkerSet', groupSets]]),
    depths,
    now: () => now,
  } as unknown as ControllerContext;
  return { context, depths, endpointSlices, clock };
}

test('a pod whose deletion is long overdue does not hold its replica’s place', () => {
  const { context } = world([
    pod('here'),
    pod('going', '2026-01-01T00:09:50Z'),
    pod('lost', '2026-01-01T00:09:00Z'),
  ]);
  const seen = observe(context, 'ns/chat');
  assert.deepEqual(
    seen?.rolloutPods.map(({ name, isTerminating }) => [name, isTerminating]),
    [
      ['here', false],
      ['going', true],
    ],
  );
});

test('requests in a pod are unknown until it has answered, and again when it stops answering', () => {
  const { context, depths } = world([pod('here')]);
  const inFlight = () => observe(context, 'ns/chat')?.rolloutPods[0]?.inFlight;
  assert.equal(inFlight(), undefined);
  depths.record('ns/chat', 'ns/here', { waiting: 1, running: 2, finished: 0 });
  assert.equal(inFlight(), 3);
  depths.miss('ns/chat', 'ns/here');
  assert.equal(inFlight(), undefined);
});

test('what a pod said before it began to drain does not count: requests may have come since', () => {
  const { context, depths, clock } = world([drainingSince('2026-01-01T00:09:50Z')]);
  const inFlight = () => observe(context, 'ns/chat')?.rolloutPods[0]?.inFlight;
  depths.record('ns/chat', 'ns/leaving', { waiting: 0, running: 0, finished: 0 });
  clock.advance(11_000);
  assert.equal(inFlight(), undefined);
  depths.record('ns/chat', 'ns/leaving', { waiting: 0, running: 0, finished: 0 });
  assert.equal(inFlight(), 0);
});

test('a deployment that is gone is not observed', () => {
  const { context } = world([]);
  assert.equal(observe(context, 'ns/ghost'), undefined);
});

test('a group counts once, by its leader; pods of another set are not looked at', () => {
  const pods = [pod('bare'), groupPod(0, 0), groupPod(0, 1), groupPod(1, 0), groupPod(1, 1)];
  const { context } = world([...pods, groupPod(0, 0, 'other-group')], setOf('u', 2));
  const seen = observe(context, 'ns/chat');
  assert.deepEqual(
    seen?.rolloutPods.map(({ name }) => name),
    ['bare', 'chat-group-0', 'chat-group-1'],
  );
  assert.deepEqual(
    seen?.leaders.map(({ index }) => index),
    [0, 1],
  );
  assert.equal(seen?.pods.length, 5);
  assert.equal(seen?.groupSet?.spec.replicas, 2);
});

test('a LeaderWorkerSet of the same name that somebody else made is not ours', () => {
  const { context } = world([], setOf('another', 2));
  assert.equal(observe(context, 'ns/chat')?.groupSet, undefined);
});

test('there is a way to the engines when some slice of their Service has an endpoint that is ready', () => {
  const { context, endpointSlices } = world([pod('here')]);
  const hasRoute = (...ready: (boolean | undefined)[]): boolean | undefined => {
    endpointSlices.replace(
      ready.map((one, i) => ({
        apiVersion: 'discovery.k8s.io/v1',
        kind: 'EndpointSlice',
        metadata: {
          name: `${i === 0 ? 'other' : 'chat'}-${i}`,
          namespace: 'ns',
          resourceVersion: String(++version),
          labels: { 'kubernetes.io/service-name': i === 0 ? 'other' : 'chat' },
        },
        endpoints: [
          { addresses: ['10.0.0.1'], conditions: one === undefined ? {} : { ready: one } },
        ],
      })),
    );
    return observe(context, 'ns/chat')?.hasRoute;
  };
  let version = 0;
  assert.equal(hasRoute(), false);
  assert.equal(hasRoute(true), false, 'of another Service');
  assert.equal(hasRoute(true, false), false);
  assert.equal(hasRoute(false, false, true), true);
  assert.equal(hasRoute(false, undefined), true, 'not told is ready');
});
