import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { objectPath, RESOURCES } from '#operator/kube/resource.ts';
import { eventually } from '../../scripts/cluster/processes.ts';
import { Deployments } from '../support/cluster/deployments.ts';
import { startTestCluster, type TestCluster } from '../support/cluster/operator.ts';
import { noCluster } from '../support/cluster/requirements.ts';

describe('trouble on a real control plane', { skip: noCluster(), timeout: 900_000 }, () => {
  let cluster: TestCluster;
  let deployments: Deployments;

  before(async () => {
    cluster = await startTestCluster({
      nodes: [
        { prefix: 'a100', count: 3, product: 'NVIDIA-A100-SXM4-80GB', gpus: 8 },
        { prefix: 'cpu', count: 1 },
      ],
    });
    await cluster.startOperator();
    deployments = new Deployments(cluster.client);
  });
  after(() => cluster?.stop());

  const gone = (name: string) =>
    eventually(`${name} is gone`, async () => {
      await deployments.delete(name).catch(() => {});
      return (await deployments.pods(name)).length === 0;
    });

  test('too few GPUs: the phase says Pending, the reason says why, and what fits serves', async () => {
    await deployments.create('large', { replicas: 5 });
    const { status } = await deployments.until(
      'large',
      'tells of the shortage',
      ({ status: seen }) => seen?.readyReplicas === 3 && seen.reason === 'Unschedulable',
    );
    const degraded = status?.conditions?.find(({ type }) => type === 'Degraded');
    assert.match(degraded?.message ?? '', /Insufficient nvidia\.com\/gpu/);
    assert.match(degraded?.message ?? '', /spec\.parallelism\.tensor/);
    await gone('large');
  });

  test('a pod that the API server refuses is told with what it said, and mending the template mends it', async () => {
    await deployments.create('bad', {
      template: { spec: { containers: [{ name: 'engine', env: [{ name: '', value: 'x' }] }] } },
    });
    const { status } = await deployments.until(
      'bad',
      'tells of its template',
      ({ status: seen }) => seen?.reason === 'InvalidTemplate',
    );
    const degraded = status?.conditions?.find(({ type }) => type === 'Degraded');
    assert.match(degraded?.message ?? '', /env\[\d\]\.name: Required/);
    await deployments.patch('bad', { spec: { template: null } });
    await deployments.untilReady('bad');
    await gone('bad');
  });

  test('a Service of the name that belongs to somebody else is not touched', async () => {
    await cluster.client.apply(
      RESOURCES.service,
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: {
          name: 'taken',
          namespace: 'default',
          labels: { 'app.kubernetes.io/managed-by': 'nvlm-operator' },
        },
        spec: { ports: [{ port: 1234, protocol: 'TCP' }] },
      },
      { fieldManager: 'somebody', force: true },
    );
    await deployments.create('taken');
    const { status } = await deployments.until(
      'taken',
      'tells of the name',
      ({ status: seen }) =>
        seen?.conditions?.find(({ type }) => type === 'Degraded')?.status === 'True',
    );
    const degraded = status?.conditions?.find(({ type }) => type === 'Degraded');
    assert.match(degraded?.message ?? '', /Service default\/taken exists and does not belong/);
    const service = (await cluster.client.request({
      method: 'GET',
      path: objectPath(RESOURCES.service, 'taken', 'default'),
    })) as { spec: { ports: { port: number }[] } };
    assert.equal(service.spec.ports[0]?.port, 1234);
    await gone('taken');
  });

  test('a drained node: its replica moves, one at a time', async () => {
    await deployments.create('moving', { replicas: 2 });
    await deployments.untilReady('moving');
    const [pod] = await deployments.pods('moving');
    const node = String(pod?.spec.nodeName);
    const { code, output } = await cluster.kubectl(
      'drain',
      node,
      '--ignore-daemonsets',
      '--delete-emptydir-data',
      '--force',
      '--timeout=60s',
    );
    assert.equal(code, 0, output);
    await eventually('both replicas are ready elsewhere', async () => {
      const pods = await deployments.pods('moving');
      return pods.length === 2 && pods.every(({ spec }) => spec.nodeName && spec.nodeName !== node);
    });
    await deployments.untilReady('moving');
    await cluster.kubectl('uncordon', node);
    await gone('moving');
  });

  test('a compacted etcd: watches are taken up again, and edits are seen', async () => {
    await deployments.create('compacted');
    await deployments.untilReady('compacted');
    const at = (await deployments.get('compacted')).metadata.resourceVersion;
    const response = await fetch(`${cluster.plane.etcdUrl}/v3/kv/compaction`, {
      method: 'POST',
      body: JSON.stringify({ revision: at, physical: true }),
    });
    assert.equal(response.status, 200);
    await cluster.plane.restart('kube-apiserver');
    await deployments.patch('compacted', { spec: { replicas: 2 } });
    await deployments.until('compacted', 'has two', ({ status }) => status?.ready === '2/2', {
      timeoutMs: 60_000,
    });
    await gone('compacted');
  });
});
