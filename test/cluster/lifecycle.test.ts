import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { type KubeList, objectPath, RESOURCES } from '#operator/kube/resource.ts';
import { eventually } from '../../scripts/cluster/processes.ts';
import { Deployments } from '../support/cluster/deployments.ts';
import {
  type OperatorProcess,
  startTestCluster,
  type TestCluster,
} from '../support/cluster/operator.ts';
import { noCluster } from '../support/cluster/requirements.ts';

describe('an NVLMDeployment on a real control plane', {
  skip: noCluster(),
  timeout: 600_000,
}, () => {
  let cluster: TestCluster;
  let operator: OperatorProcess;
  let deployments: Deployments;
  /** Of the installation, without an NVLMDeployment. */
  let installed: string[];

  before(async () => {
    cluster = await startTestCluster();
    operator = await cluster.startOperator();
    deployments = new Deployments(cluster.client);
    // Registered and reached: what comes with the installation is there.
    await eventually('the metrics API is served', async () => {
      const { output } = await cluster.kubectl(
        'get',
        'apiservice',
        'v1beta1.custom.metrics.k8s.io',
      );
      return /\bTrue\b/.test(output);
    });
    installed = await inventory();
  });
  after(() => cluster?.stop());

  /** Every object of every kind that the cluster lists, namespaced or not, besides Events, Leases and what is of nodes. */
  const inventory = async (): Promise<string[]> => {
    const kinds = await cluster.kubectl('api-resources', '--verbs=list', '-o', 'name');
    assert.equal(kinds.code, 0, kinds.output);
    const names = kinds.output
      .trim()
      .split('\n')
      .filter(
        (kind) =>
          !/^(events|leases|componentstatuses|csinodes|flowschemas|prioritylevel)/.test(kind),
      );
    assert.ok(names.includes('clusterroles.rbac.authorization.k8s.io') && names.includes('pods'));
    const custom = ['-o', 'custom-columns=K:.kind,S:.metadata.namespace,N:.metadata.name'];
    const all = await cluster.kubectl('get', names.join(','), '-A', '--no-headers', ...custom);
    assert.equal(all.code, 0, all.output);
    return all.output.trim().split('\n').sort();
  };

  test('is scheduled onto A100 nodes only, and becomes Ready', async () => {
    await deployments.create('chat', { replicas: 2, rollout: { maxSurge: 1, maxUnavailable: 0 } });
    const { status } = await deployments.untilReady('chat');
    assert.equal(status?.ready, '2/2');
    const pods = await deployments.pods('chat');
    assert.equal(pods.length, 2);
    for (const pod of pods) assert.match(String(pod.spec.nodeName), /^a100-/);
    const { output } = await cluster.kubectl('get', 'nvlm', 'chat');
    assert.match(output, /MODEL +TP +READY +QUEUE +PHASE +REASON +AGE/);
    assert.match(output, /NVLM-D-72B +8 +2\/2 +0 +Ready +AllReady/);
    const wide = await cluster.kubectl('get', 'nvlm', 'chat', '-o', 'wide');
    assert.match(wide.output, /AGE +REVISION +COLDSTART +TOK\/S +MODEL CACHED +ENDPOINT/);
    assert.match(wide.output, new RegExp(`${status?.currentRevision} +\\d+m?\\d*s `));
    const route = status?.conditions?.find(({ type }) => type === 'RouteReady');
    assert.equal(`${route?.status} ${route?.reason}`, 'True Routed');
  });

  test('an edit rolls out one pod after the other, and never serves with less than was promised', async () => {
    const before = await deployments.get('chat');
    let fewest = Number.POSITIVE_INFINITY;
    await deployments.patch('chat', { spec: { batchPolicy: { maxSequences: 32 } } });
    await deployments.until(
      'chat',
      'runs the new revision',
      ({ metadata, status }) => {
        if (status?.observedGeneration === metadata.generation) {
          fewest = Math.min(fewest, status.servingReplicas ?? 0);
        }
        return (
          status?.phase === 'Ready' && status.currentRevision !== before.status?.currentRevision
        );
      },
      { timeoutMs: 60_000 },
    );
    assert.ok(fewest >= 2, `only ${fewest} served`);
    const revisions = (await deployments.pods('chat')).map(
      (pod) => pod.metadata.labels?.['serving.nvlm.dev/revision'],
    );
    assert.equal(new Set(revisions).size, 1);
  });

  test('a pod that somebody deletes comes back', async () => {
    const [victim] = await deployments.pods('chat');
    assert.ok(victim);
    await cluster.client.request({
      method: 'DELETE',
      path: objectPath(RESOURCES.pod, victim.metadata.name, 'default'),
    });
    await eventually('another pod is ready', async () => {
      const pods = await deployments.pods('chat');
      return (
        pods.length === 2 && pods.every(({ metadata }) => metadata.uid !== victim.metadata.uid)
      );
    });
    await deployments.untilReady('chat');
  });

  test('a field of a child that somebody changes is set back, and the culprit is named', async () => {
    await cluster.kubectl(
      'patch',
      'service',
      'chat',
      '--field-manager=mallory',
      '--type=merge',
      '-p',
      '{"spec":{"selector":{"serving.nvlm.dev/deployment":"elsewhere"}}}',
    );
    await eventually('the selector is set back', async () => {
      const service = (await cluster.client.request({
        method: 'GET',
        path: objectPath(RESOURCES.service, 'chat', 'default'),
      })) as { spec: { selector: Record<string, string> } };
      return service.spec.selector['serving.nvlm.dev/deployment'] === 'chat';
    });
    await eventually('an event names mallory', async () => {
      const { output } = await cluster.kubectl('get', 'events.events.k8s.io', '-o', 'wide');
      return /Repaired.*mallory set spec\.selector.* of Service default\/chat; set back/.test(
        output,
      );
    });
  });

  test('kubectl scale adds and removes replicas', async () => {
    await cluster.kubectl('scale', 'nvlm/chat', '--replicas=3');
    await deployments.until('chat', 'has three replicas', ({ status }) => status?.ready === '3/3');
    await cluster.kubectl('scale', 'nvlm/chat', '--replicas=1');
    await eventually('one pod is left', async () => (await deployments.pods('chat')).length === 1);
  });

  test('a pod with streams in it drains until they have ended', async () => {
    const [pod] = await deployments.pods('chat');
    assert.ok(pod);
    cluster.engines.set(pod.metadata.name, 0, 3);
    await cluster.kubectl('scale', 'nvlm/chat', '--replicas=0');
    const draining = await deployments.until(
      'chat',
      'is draining',
      ({ status }) => status?.drainingReplicas === 1,
    );
    assert.equal(draining.status?.phase, 'Draining');
    const labels = (await deployments.pods('chat'))[0]?.metadata.labels;
    assert.equal(labels?.['serving.nvlm.dev/traffic'], 'draining');
    // Longer than the least time of a drain: the streams hold it.
    await new Promise((resolve) => setTimeout(resolve, 4000));
    assert.equal((await deployments.pods('chat')).length, 1);
    cluster.engines.set(pod.metadata.name, 0, 0);
    await eventually('the pod is gone', async () => (await deployments.pods('chat')).length === 0);
  });

  test('the operator killed in the middle of a rollout loses nothing, and the next one ends it', async () => {
    await deployments.patch('chat', { spec: { replicas: 3 } });
    await deployments.untilReady('chat');
    await deployments.patch('chat', { spec: { batchPolicy: { maxSequences: 16 } } });
    await deployments.until('chat', 'is rolling out', ({ status }) => status?.phase === 'Updating');
    await operator.child.stop('SIGKILL');
    assert.ok((await deployments.pods('chat')).length >= 2);
    operator = await cluster.startOperator();
    await deployments.untilReady('chat', { timeoutMs: 60_000 });
    const pods = await deployments.pods('chat');
    assert.equal(pods.length, 3);
  });

  test('of two operators one writes, and the other takes over at once when it stops', async () => {
    const second = await cluster.startOperator();
    const leads = async ({ url }: OperatorProcess): Promise<boolean> =>
      /^nvlm_operator_is_leader 1$/m.test(await (await fetch(`${url}/metrics`)).text());
    assert.equal(await leads(operator), true);
    assert.equal(await leads(second), false);
    await operator.child.stop('SIGTERM');
    assert.equal(operator.child.process.exitCode, 0);
    await eventually('the second leads', () => leads(second), { timeoutMs: 5000 });
    await deployments.patch('chat', { spec: { replicas: 1 } });
    await eventually('one pod is left', async () => (await deployments.pods('chat')).length === 1);
    operator = second;
  });

  test('an API server that restarts is found again', async () => {
    await cluster.plane.restart('kube-apiserver');
    await deployments.patch('chat', { spec: { replicas: 2 } });
    await deployments.until('chat', 'has two replicas', ({ status }) => status?.ready === '2/2', {
      timeoutMs: 60_000,
    });
  });

  test('deleting it leaves nothing behind, of any kind, in any namespace or in none', async () => {
    let left: string[] = [];
    const made = (await inventory()).filter((object) => !installed.includes(object));
    assert.ok(made.length >= 6, made.join('\n'));
    await deployments.delete('chat');
    await eventually('it is gone', async () => {
      const list = (await cluster.client.request({
        method: 'GET',
        path: '/apis/serving.nvlm.dev/v1alpha1/namespaces/default/nvlmdeployments',
      })) as KubeList;
      return list.items.length === 0;
    });
    await eventually(
      'nothing is there that was not before, of any kind',
      async () => {
        left = (await inventory()).filter((object) => !installed.includes(object));
        return left.length === 0;
      },
      { timeoutMs: 60_000, intervalMs: 1000, explain: () => left.join('\n') },
    );
  });
});
