import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { objectPath, RESOURCES } from '#operator/kube/resource.ts';
import type { PodObject } from '#operator/nvlm/pod.ts';
import { eventually } from '../../scripts/cluster/processes.ts';
import { Deployments } from '../support/cluster/deployments.ts';
import { startTestCluster, type TestCluster } from '../support/cluster/operator.ts';
import { noCluster } from '../support/cluster/requirements.ts';

describe('pods in trouble on a real control plane', { skip: noCluster(), timeout: 600_000 }, () => {
  let cluster: TestCluster;
  let deployments: Deployments;

  before(async () => {
    cluster = await startTestCluster();
    await cluster.startOperator();
    deployments = new Deployments(cluster.client);
  });
  after(() => cluster?.stop());

  /** Writes what a kubelet reports of a container that does not run. */
  const report = async (pod: PodObject, container: object): Promise<void> => {
    const conditions = ['Ready', 'ContainersReady'].map((type) => ({ type, status: 'False' }));
    await cluster.client.request({
      method: 'PATCH',
      path: `${objectPath(RESOURCES.pod, pod.metadata.name, 'default')}/status`,
      contentType: 'application/strategic-merge-patch+json',
      body: {
        status: {
          conditions,
          containerStatuses: [
            {
              name: 'engine',
              image: 'e',
              imageID: '',
              ready: false,
              restartCount: 0,
              ...container,
            },
          ],
        },
      },
    });
  };

  for (const { name, reason, container, told } of [
    {
      name: 'crashing',
      reason: 'CrashLoop',
      container: {
        restartCount: 6,
        state: { waiting: { reason: 'CrashLoopBackOff', message: 'back-off 5m0s' } },
        lastState: {
          terminated: {
            exitCode: 1,
            reason: 'Error',
            message: 'CACHE_MEMORY_TOO_LARGE: 80 GiB',
            startedAt: '2026-11-24T10:00:00Z',
            finishedAt: '2026-11-24T10:00:01Z',
          },
        },
      },
      told: /CACHE_MEMORY_TOO_LARGE|back-off|exit code 1/,
    },
    {
      name: 'imageless',
      reason: 'ImagePull',
      container: {
        state: { waiting: { reason: 'ImagePullBackOff', message: 'nvlm-engine:dev: not found' } },
      },
      told: /not found/,
    },
  ]) {
    test(`${reason}: the phase and the columns tell it, the healthy replica stays, and a new pod ends it`, async () => {
      await deployments.create(name, { replicas: 2 });
      await deployments.untilReady(name);
      const [broken, healthy] = await deployments.pods(name);
      assert.ok(broken !== undefined && healthy !== undefined);
      await report(broken, container);
      const { status } = await deployments.until(
        name,
        `tells of ${reason}`,
        ({ status: seen }) => seen?.reason === reason,
      );
      const degraded = status?.conditions?.find(({ type }) => type === 'Degraded');
      assert.equal(degraded?.status, 'True');
      assert.match(degraded?.message ?? '', told);
      assert.equal(status?.readyReplicas, 1);
      const columns = await cluster.kubectl('get', 'nvlm', name);
      assert.match(columns.output, new RegExp(`1/2 .*${reason}`));
      const stays = (await deployments.pods(name)).find(
        ({ metadata }) => metadata.uid === healthy.metadata.uid,
      );
      assert.equal(stays?.metadata.deletionTimestamp, undefined);
      await cluster.kubectl('delete', 'pod', broken.metadata.name, '--wait=false');
      await deployments.untilReady(name);
      await deployments.delete(name);
      await eventually(`${name} is gone`, async () => (await deployments.pods(name)).length === 0);
    });
  }

  test('a rollout to an image that cannot be pulled stops at its first pod, the old replicas serve, and going back costs none of them', async () => {
    // A node without a kubelet, of KWOK or else: the test says what its pods do.
    await cluster.client.apply(
      RESOURCES.node,
      {
        apiVersion: 'v1',
        kind: 'Node',
        metadata: {
          name: 'unplayed',
          labels: { pool: 'unplayed', 'nvidia.com/gpu.product': 'NVIDIA-A100-SXM4-80GB' },
        },
        spec: { taints: [{ key: 'pool', value: 'unplayed', effect: 'NoSchedule' }] },
      },
      { fieldManager: 'test', force: true },
    );
    const capacity = {
      cpu: '96',
      memory: '1Ti',
      pods: '110',
      'ephemeral-storage': '4Ti',
      'nvidia.com/gpu': '8',
    };
    await cluster.client.apply(
      RESOURCES.node,
      {
        apiVersion: 'v1',
        kind: 'Node',
        metadata: { name: 'unplayed' },
        status: { capacity, allocatable: capacity },
      },
      { fieldManager: 'test', force: true, subresource: 'status' },
    );
    const rollout = { maxSurge: 1, maxUnavailable: 0 };
    await deployments.create('mistyped', { replicas: 2, parallelism: { tensor: 2 }, rollout });
    const { status: first } = await deployments.untilReady('mistyped');
    const before = new Set(
      (await deployments.pods('mistyped')).map(({ metadata }) => metadata.uid),
    );
    const engine = { name: 'engine', image: 'example.com/nvlm-engine:mistyped' };
    await deployments.patch('mistyped', {
      spec: {
        accelerator: { nodeSelector: { pool: 'unplayed' }, tolerations: [{ operator: 'Exists' }] },
        template: { spec: { containers: [engine] } },
      },
    });
    const isNew = ({ metadata }: PodObject): boolean => !before.has(metadata.uid);
    let broken: PodObject | undefined;
    await deployments.until('mistyped', 'has its first new pod on its node', async () => {
      broken = (await deployments.pods('mistyped')).find(isNew);
      return broken?.spec.nodeName === 'unplayed';
    });
    assert.ok(broken);
    assert.equal((broken.spec.containers as { image?: string }[])[0]?.image, engine.image);
    await report(broken, {
      state: { waiting: { reason: 'ImagePullBackOff', message: `${engine.image}: not found` } },
    });
    const { status } = await deployments.until(
      'mistyped',
      'tells of the image',
      ({ status: seen }) => seen?.reason === 'ImagePull',
    );
    assert.equal(status?.servingReplicas, 2);
    const told = status?.conditions?.find(({ type }) => type === 'Degraded')?.message ?? '';
    assert.ok(told.includes(engine.image), told);
    const pods = await deployments.pods('mistyped');
    assert.equal(pods.length, 3);
    assert.equal(pods.filter(isNew).length, 1);
    await deployments.patch('mistyped', { spec: { accelerator: null, template: null } });
    await eventually('the new pod is told to go', async () => {
      const left = (await deployments.pods('mistyped')).find(isNew);
      if (left === undefined) return true;
      if (left.metadata.deletionTimestamp === undefined) return false;
      // What a kubelet does at the end.
      const { name } = left.metadata;
      await cluster.kubectl('delete', 'pod', name, '--grace-period=0', '--force', '--wait=false');
      return true;
    });
    const { status: last } = await deployments.untilReady('mistyped');
    assert.equal(last?.currentRevision, first?.currentRevision);
    const after = (await deployments.pods('mistyped')).map(({ metadata }) => metadata.uid);
    assert.deepEqual(new Set(after), before);
    await deployments.delete('mistyped');
  });
});
