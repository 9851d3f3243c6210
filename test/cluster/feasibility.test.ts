import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { objectPath, RESOURCES } from '#operator/kube/resource.ts';
import { createNodes } from '../../scripts/cluster/nodes.ts';
import { eventually } from '../../scripts/cluster/processes.ts';
import { Deployments } from '../support/cluster/deployments.ts';
import { describePods, endDescribeJob } from '../support/cluster/describe-jobs.ts';
import { startTestCluster, type TestCluster } from '../support/cluster/operator.ts';
import { noCluster } from '../support/cluster/requirements.ts';

const config: unknown = JSON.parse(readFileSync('examples/nvlm-d-72b/config.json', 'utf8'));
const answer = JSON.stringify({ config, weightBytes: 158_759_186_688 });

describe('feasibility on a real control plane', { skip: noCluster(), timeout: 600_000 }, () => {
  let cluster: TestCluster;
  let deployments: Deployments;

  before(async () => {
    // Without nodes the pods of Jobs wait: what a kubelet would report of them is written below.
    cluster = await startTestCluster({ nodes: [] });
    await cluster.startOperator({ args: ['--describe-timeout=60s'] });
    deployments = new Deployments(cluster.client);
  });
  after(() => cluster?.stop());

  const describers = (name: string) => describePods(cluster.client, name);
  const report = (name: string, message: string, exitCode: number): Promise<void> =>
    endDescribeJob(cluster.client, name, message, exitCode);

  test('a spec that cannot fit is refused with the number to change before any pod is made, and runs once it is changed', async () => {
    await deployments.create('large', { parallelism: { tensor: 4 } });
    await deployments.until('large', 'waits for its description', ({ status }) =>
      status?.conditions?.some(({ type, status: is }) => type === 'Accepted' && is === 'Unknown'),
    );
    assert.deepEqual(await deployments.pods('large'), [], 'no pod before the answer');
    await report('large', answer, 0);
    const { status } = await deployments.until(
      'large',
      'is refused',
      ({ status: seen }) => seen?.phase === 'Failed' && seen.reason === 'InsufficientGpuMemory',
    );
    const accepted = status?.conditions?.find(({ type }) => type === 'Accepted');
    assert.match(accepted?.message ?? '', /Set parallelism\.tensor to 8/);
    assert.equal(status?.capacity?.weightsPerGpu, '37.0Gi');
    assert.equal(status?.model?.architecture, 'NVLM_D');
    assert.deepEqual(await deployments.pods('large'), []);
    const events = await cluster.kubectl('events', '--for', 'nvlmdeployment/large');
    assert.match(events.output, /Warning +InsufficientGpuMemory .*parallelism\.tensor to 8/);
    await eventually('the Job is removed', async () => (await describers('large')).length === 0);

    await createNodes(cluster.client, [
      { prefix: 'a100', count: 1, product: 'NVIDIA-A100-SXM4-40GB', gpus: 8 },
    ]);
    await deployments.patch('large', { spec: { parallelism: { tensor: 8 } } });
    const ready = await deployments.untilReady('large');
    const feasible = ready.status?.conditions?.find(({ type }) => type === 'Accepted');
    assert.equal(feasible?.reason, 'Feasible');
    assert.deepEqual(await describers('large'), [], 'the status remembers, no second Job');
    await deployments.patch('large', { spec: { parallelism: { tensor: 2 } } });
    await deployments.until(
      'large',
      'is refused again',
      ({ status: seen }) => seen?.phase === 'Failed',
    );
    const [pod] = await deployments.pods('large');
    assert.equal(pod?.metadata.deletionTimestamp, undefined, 'what serves goes on serving');
    await deployments.delete('large');
    await eventually('large is gone', async () => (await deployments.pods('large')).length === 0);
  });

  test('the real command answers what the operator understands', async () => {
    const directory = 'test/fixtures/nvlm-tiny/a';
    const { stdout, status } = spawnSync(
      process.execPath,
      ['engine/describe/main.ts', '--model', directory],
      { encoding: 'utf8' },
    );
    assert.equal(status, 0);
    assert.ok(Buffer.byteLength(stdout) < 4096, 'a termination message is cut at 4096 bytes');
    await cluster.client.request({
      method: 'PATCH',
      path: objectPath(RESOURCES.node, 'a100-1'),
      contentType: 'application/merge-patch+json',
      body: { spec: { unschedulable: true } },
    });
    await deployments.create('tiny', {
      model: { source: '/models/tiny' },
      parallelism: { tensor: 1 },
    });
    await report('tiny', stdout, 0);
    const seen = await deployments.until('tiny', 'is accepted', ({ status: one }) =>
      one?.conditions?.some(({ reason }) => reason === 'Feasible'),
    );
    assert.equal(seen.status?.model?.architecture, 'NVLM_D');
    await deployments.delete('tiny');
  });
});
