import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import type { Condition } from '#crds/conditions.ts';
import { objectPath, RESOURCES } from '#operator/kube/resource.ts';
import { createNodes } from '../../scripts/cluster/nodes.ts';
import { eventually } from '../../scripts/cluster/processes.ts';
import { Deployments } from '../support/cluster/deployments.ts';
import { describePods, endDescribeJob } from '../support/cluster/describe-jobs.ts';
import {
  type OperatorProcess,
  startTestCluster,
  type TestCluster,
} from '../support/cluster/operator.ts';
import { noCluster } from '../support/cluster/requirements.ts';

const config: unknown = JSON.parse(readFileSync('examples/nvlm-d-72b/config.json', 'utf8'));
const answer = JSON.stringify({ config, weightBytes: 158_759_186_688 });

describe('feasibility on a real control plane', { skip: noCluster(), timeout: 600_000 }, () => {
  let cluster: TestCluster;
  let deployments: Deployments;

  const args = ['--describe-timeout=60s'];
  let operator: OperatorProcess;

  before(async () => {
    // Without nodes the pods of Jobs wait: what a kubelet would report of them is written below.
    cluster = await startTestCluster({ nodes: [] });
    operator = await cluster.startOperator({ args });
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

  test('a description that failed is tried again, by another operator too, and what was started meanwhile stays', async () => {
    // No node takes pods any more: see above.
    const acceptedOf = async (): Promise<Condition | undefined> => {
      const { status } = await deployments.get('unlucky');
      return status?.conditions?.find(({ type }) => type === 'Accepted');
    };
    await deployments.create('unlucky');
    const refusal = JSON.stringify({ error: 'DOWNLOAD_FAILED: no route' });
    await eventually(
      'the Job has failed for good',
      async () => {
        const failing = (await describers('unlucky')).some(
          ({ status }) => status?.phase === 'Pending',
        );
        if (failing) await report('unlucky', refusal, 1);
        return (await acceptedOf())?.message.includes('it is tried again at');
      },
      { timeoutMs: 120_000 },
    );
    const before = await acceptedOf();
    assert.equal(before?.status, 'True');
    assert.match(before?.message ?? '', /DOWNLOAD_FAILED: no route/);
    const [pod] = await deployments.pods('unlucky');
    assert.ok(pod, 'an engine may start without a description');

    await operator.child.stop('SIGKILL');
    operator = await cluster.startOperator({ args });
    await eventually(
      'another Job has a pod',
      async () =>
        (await describers('unlucky')).some(({ metadata }) =>
          /-describe-[0-9a-f]{8}-2$/.test(metadata.labels?.['job-name'] ?? ''),
        ),
      { timeoutMs: 120_000 },
    );
    await eventually('the status tells of it', async () =>
      (await acceptedOf())?.message.includes('tries again'),
    );
    const during = await acceptedOf();
    assert.equal(during?.lastTransitionTime, before?.lastTransitionTime, 'it stayed accepted');
    await report('unlucky', answer, 0);
    await eventually('it is judged', async () => (await acceptedOf())?.reason === 'Feasible');
    await eventually('no Job is left', async () => (await describers('unlucky')).length === 0);
    const pods = await deployments.pods('unlucky');
    assert.deepEqual(
      pods.map(({ metadata }) => metadata.uid),
      [pod.metadata.uid],
    );
    await deployments.delete('unlucky');
  });
});
