import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import {
  collectionPath,
  type KubeList,
  type KubeObject,
  objectPath,
  RESOURCES,
  type ResourceType,
} from '#operator/kube/resource.ts';
import { isPodReady, type PodObject } from '#operator/nvlm/pod.ts';
import { type Child, eventually } from '../../scripts/cluster/processes.ts';
import { Deployments } from '../support/cluster/deployments.ts';
import { describePods, endDescribeJob } from '../support/cluster/describe-jobs.ts';
import {
  applyLeaderWorkerSetCrds,
  startLeaderWorkerSets,
} from '../support/cluster/leader-worker-sets.ts';
import { startTestCluster, type TestCluster } from '../support/cluster/operator.ts';
import { noCluster } from '../support/cluster/requirements.ts';
import { slowPods } from '../support/cluster/slow-pods.ts';

const config: unknown = JSON.parse(readFileSync('examples/nvlm-d-72b/config.json', 'utf8'));
const described = { config, weightBytes: 158_759_186_688 };
const able = JSON.stringify({ ...described, features: ['pipeline-over-pods'] });
const statefulSets: ResourceType = {
  group: 'apps',
  version: 'v1',
  kind: 'StatefulSet',
  plural: 'statefulsets',
  namespaced: true,
};

describe('a replica of several pods on a real control plane', {
  skip: noCluster(),
  timeout: 600_000,
}, () => {
  let cluster: TestCluster;
  let deployments: Deployments;
  let controller: Child | undefined;

  before(async () => {
    // The controller makes a group several times over while garbage of the one before it is collected; an engine is not ready so soon.
    cluster = await startTestCluster({ kwokStages: await slowPods(2000) });
    await cluster.startOperator({ args: ['--describe-timeout=120s'] });
    deployments = new Deployments(cluster.client);
  });
  after(async () => {
    await controller?.stop('SIGTERM', 5000);
    await cluster?.stop();
  });

  const create = (name: string, more: object = {}): Promise<NVLMDeployment> =>
    deployments.create(name, { parallelism: { tensor: 8, pipeline: 2 }, ...more });
  /** After KWOK, which ends the pods of Jobs without a word. */
  const answer = async (name: string, message: string): Promise<void> => {
    await eventually(`KWOK has ended the Job of ${name}`, async () => {
      const pods = await describePods(cluster.client, name);
      return pods.some(({ status }) => status?.phase === 'Succeeded');
    });
    await endDescribeJob(cluster.client, name, message, 0);
  };
  const condition = ({ status }: NVLMDeployment, type: string) =>
    status?.conditions?.find((one) => one.type === type);
  const leadersOf = (pods: readonly PodObject[]): PodObject[] =>
    pods.filter(({ metadata }) => metadata.labels?.['app.kubernetes.io/name'] === 'nvlm-engine');
  const list = async (type: ResourceType): Promise<readonly KubeObject[]> =>
    (
      (await cluster.client.request({
        method: 'GET',
        path: collectionPath(type, 'default'),
      })) as KubeList
    ).items;

  /** A group counts as ready by its leader, which may be before its worker is there. */
  const untilBothWhole = (): Promise<unknown> =>
    eventually('both groups have both pods', async () => {
      const pods = await deployments.pods('chat');
      const stays = (pod: PodObject) =>
        isPodReady(pod) && pod.metadata.deletionTimestamp === undefined;
      return pods.length === 4 && pods.every(stays);
    });

  test('the engine of this checkout is not started in groups, and the status says what to do instead', async () => {
    const { stdout } = spawnSync(
      process.execPath,
      ['engine/describe/main.ts', '--model', 'test/fixtures/nvlm-tiny/a'],
      { encoding: 'utf8' },
    );
    await create('refused', { parallelism: { tensor: 1, pipeline: 2 } });
    await answer('refused', stdout);
    const seen = await deployments.until(
      'refused',
      'is refused',
      ({ status }) => status?.phase === 'Failed' && status.reason === 'PipelineUnsupported',
    );
    assert.match(
      condition(seen, 'Accepted')?.message ?? '',
      /runs in one pod only\. Set pipeline to 1/,
    );
    assert.deepEqual(await deployments.pods('refused'), []);
    await deployments.patch('refused', { spec: { parallelism: { pipeline: 1 } } });
    await deployments.untilReady('refused');
    await deployments.delete('refused');
  });

  test('without the LeaderWorkerSet kind the status says what to install; without its controller too; with both it goes on', async () => {
    await create('chat');
    await answer('chat', able);
    const missing = await deployments.until(
      'chat',
      'lacks the kind',
      ({ status }) => status?.phase === 'Failed' && status.reason === 'LeaderWorkerSetMissing',
    );
    assert.match(
      condition(missing, 'Accepted')?.message ?? '',
      /Install it, see https:\/\/lws\.sigs\.k8s\.io/,
    );
    assert.deepEqual(await deployments.pods('chat'), []);

    await applyLeaderWorkerSetCrds(cluster.plane);
    const idle = await deployments.until(
      'chat',
      'lacks the controller',
      ({ status }) =>
        status?.conditions?.some(
          ({ type, reason }) => type === 'Degraded' && reason === 'LeaderWorkerSetMissing',
        ),
      { timeoutMs: 60_000 },
    );
    assert.match(condition(idle, 'Degraded')?.message ?? '', /its controller does not run/);

    controller = await startLeaderWorkerSets(cluster.plane);
    const ready = await deployments.untilReady('chat', { timeoutMs: 90_000 });
    assert.equal(ready.status?.ready, '1/1');
    assert.equal(condition(ready, 'Accepted')?.reason, 'Feasible');
  });

  test('its pods are on A100 nodes, know their place, and clients and counts see the leader alone', async () => {
    // The leader is ready before its worker is scheduled, maybe.
    const pods = await eventually('both pods have their nodes', async () => {
      const found = await deployments.pods('chat');
      return found.length === 2 && found.every(({ spec }) => spec.nodeName) ? found : undefined;
    });
    for (const pod of pods) {
      assert.match(String(pod.spec.nodeName), /^a100-/);
      const [{ env = [] } = {}] = pod.spec.containers as {
        env?: { name: string; value: string }[];
      }[];
      const value = (name: string) => env.find((one) => one.name === name)?.value;
      assert.equal(value('LWS_LEADER_ADDRESS'), 'chat-group-0.chat-group.default');
      assert.equal(value('LWS_GROUP_SIZE'), '2');
      const isLeader = leadersOf([pod]).length === 1;
      assert.equal(value('LWS_WORKER_INDEX'), isLeader ? '0' : '1');
    }
    assert.equal(new Set(pods.map(({ spec }) => spec.nodeName)).size, 2);
    const scaled = (await cluster.client.request({
      method: 'GET',
      path: '/apis/serving.nvlm.dev/v1alpha1/namespaces/default/nvlmdeployments/chat/scale',
    })) as { status: { replicas: number; selector: string } };
    assert.equal(scaled.status.replicas, 1);
    const chosen = (await cluster.client.request({
      method: 'GET',
      path: collectionPath(RESOURCES.pod, 'default'),
      query: { labelSelector: scaled.status.selector },
    })) as KubeList;
    assert.deepEqual(
      chosen.items.map(({ metadata }) => metadata.name),
      ['chat-group-0'],
    );
    const endpoints = await eventually('the Service has its endpoint', async () => {
      const { output } = await cluster.kubectl(
        'get',
        'endpointslices',
        '-l',
        'kubernetes.io/service-name=chat',
        '-o',
        'jsonpath={.items[*].endpoints[*].targetRef.name}',
      );
      return output.trim();
    });
    assert.equal(endpoints, 'chat-group-0');
  });

  test('kubectl scale adds a group, and an edit rolls out group by group within the budget', async () => {
    await cluster.kubectl('scale', 'nvlm/chat', '--replicas=2');
    await deployments.until('chat', 'has two groups', ({ status }) => status?.ready === '2/2');
    await untilBothWhole();
    const before = (await deployments.get('chat')).status?.currentRevision;
    let fewest = Number.POSITIVE_INFINITY;
    await deployments.patch('chat', { spec: { batchPolicy: { maxSequences: 16 } } });
    const after = await deployments.until(
      'chat',
      'runs the new revision',
      async ({ status }) => {
        const ready = leadersOf(await deployments.pods('chat')).filter(isPodReady).length;
        fewest = Math.min(fewest, ready);
        return status?.phase === 'Ready' && status.currentRevision !== before;
      },
      { timeoutMs: 120_000 },
    );
    assert.ok(fewest >= 1, `only ${fewest} groups served`);
    assert.equal(after.status?.updatedReplicas, 2);
    for (const { metadata } of await deployments.pods('chat')) {
      const revision = metadata.labels?.['serving.nvlm.dev/revision'];
      assert.equal(revision, after.status?.currentRevision, metadata.name);
    }
  });

  test('a group drains before it is taken away, and is the last one', async () => {
    await untilBothWhole();
    cluster.engines.set('chat-group-1', 0, 2);
    await cluster.kubectl('scale', 'nvlm/chat', '--replicas=1');
    await deployments.until('chat', 'drains', ({ status }) => status?.drainingReplicas === 1);
    await new Promise((resolve) => setTimeout(resolve, 4000));
    assert.equal((await deployments.pods('chat')).length, 4, 'its streams hold it');
    cluster.engines.set('chat-group-1', 0, 0);
    await eventually('one group is left', async () => {
      const pods = await deployments.pods('chat');
      return pods.length === 2 && pods.every(({ metadata }) => /^chat-group-0/.test(metadata.name));
    });
  });

  test('a worker that is lost takes its group with it, and the group comes back', async () => {
    await deployments.untilReady('chat');
    const before = await deployments.pods('chat');
    const path = objectPath(RESOURCES.pod, 'chat-group-0-1', 'default');
    await cluster.client.request({ method: 'DELETE', path });
    await eventually(
      'another group is there',
      async () => {
        const pods = await deployments.pods('chat');
        const isNew = pods.every(({ metadata }) =>
          before.every((old) => old.metadata.uid !== metadata.uid),
        );
        return pods.length === 2 && isNew;
      },
      { timeoutMs: 60_000 },
    );
    await deployments.untilReady('chat', { timeoutMs: 60_000 });
  });

  test('an edit turns groups into single pods and back, and nothing of the other kind is left', async () => {
    await deployments.patch('chat', { spec: { parallelism: { pipeline: 1 } } });
    await deployments.untilReady('chat', { timeoutMs: 90_000 });
    await eventually(
      'the group is gone',
      async () =>
        (await deployments.pods('chat')).length === 1 &&
        (await list(RESOURCES.leaderWorkerSet)).length === 0,
      { timeoutMs: 60_000 },
    );
    await deployments.patch('chat', { spec: { parallelism: { pipeline: 2 } } });
    await eventually(
      'only the group is left',
      async () => {
        const pods = await deployments.pods('chat');
        return (
          pods.length === 2 && pods.every(({ metadata }) => /^chat-group-0/.test(metadata.name))
        );
      },
      { timeoutMs: 90_000 },
    );
    await deployments.untilReady('chat', { timeoutMs: 60_000 });
  });

  test('deleting it leaves nothing', async () => {
    await deployments.delete('chat');
    for (const type of [
      RESOURCES.leaderWorkerSet,
      statefulSets,
      RESOURCES.pod,
      RESOURCES.podDisruptionBudget,
    ]) {
      await eventually(`no ${type.plural} are left`, async () => (await list(type)).length === 0, {
        timeoutMs: 60_000,
      });
    }
  });
});
