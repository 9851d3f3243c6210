import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { LABELS } from '#charts/labels.ts';
import { eventually } from '../../scripts/cluster/processes.ts';
import { Deployments } from '../support/cluster/deployments.ts';
import {
  type OperatorProcess,
  startTestCluster,
  type TestCluster,
} from '../support/cluster/operator.ts';
import { noCluster } from '../support/cluster/requirements.ts';

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Each brings a deployment into a phase; what it must come to is the same whenever the operator dies. */
describe('an operator killed in the middle of every phase', {
  skip: noCluster(),
  timeout: 600_000,
}, () => {
  let cluster: TestCluster;
  let operator: OperatorProcess;
  let deployments: Deployments;
  const args = ['--describe-timeout=500ms'];

  before(async () => {
    cluster = await startTestCluster({
      nodes: [{ prefix: 'a100', count: 6, product: 'NVIDIA-A100-SXM4-80GB', gpus: 8 }],
    });
    operator = await cluster.startOperator({ args });
    deployments = new Deployments(cluster.client);
  });
  after(() => cluster?.stop());

  const spec = {
    replicas: 2,
    parallelism: { tensor: 1 },
    drain: { timeout: '10s' },
    rollout: { maxSurge: 1, maxUnavailable: 0 },
  };
  const old = ['edited', 'grown', 'shrunk', 'draining', 'deleted', 'reverted'];

  const endsWith = async (name: string, replicas: number): Promise<void> => {
    await deployments.until(
      name,
      `has ${replicas} pods of one revision`,
      async ({ metadata, status }) => {
        const pods = await deployments.pods(name);
        return (
          status?.observedGeneration === metadata.generation &&
          status.ready === `${replicas}/${replicas}` &&
          pods.length === replicas &&
          pods.every((pod) => pod.metadata.labels?.[LABELS.revision] === status.currentRevision)
        );
      },
      { timeoutMs: 60_000 },
    );
  };

  for (const delay of [0, 150, 400, 1000, 2500]) {
    test(`${delay} ms after an apply, an edit, a revert, a scale and a deletion: the next one ends them all, and no serving pod was lost`, async () => {
      await Promise.all(old.map((name) => deployments.create(name, spec)));
      await Promise.all(old.map((name) => deployments.untilReady(name, { timeoutMs: 60_000 })));
      const draining = (await deployments.pods('draining')).map(({ metadata }) => metadata.name);
      for (const pod of draining) cluster.engines.set(pod, 0, 1);
      const kept = new Set(
        (await deployments.pods('grown')).map(({ metadata }) => String(metadata.uid)),
      );
      await Promise.all([
        deployments.create('made', spec),
        deployments.patch('edited', { spec: { batchPolicy: { maxSequences: 8 } } }),
        deployments.patch('reverted', { spec: { batchPolicy: { maxSequences: 8 } } }),
        deployments.patch('grown', { spec: { replicas: 3 } }),
        deployments.patch('shrunk', { spec: { replicas: 1 } }),
        deployments.patch('draining', { spec: { replicas: 0 } }),
        deployments.delete('deleted'),
      ]);
      await pause(delay);
      await operator.child.stop('SIGKILL');
      await deployments.patch('reverted', { spec: { batchPolicy: { maxSequences: null } } });
      const serving = async (name: string) =>
        (await deployments.pods(name)).filter(
          ({ metadata, status }) =>
            metadata.deletionTimestamp === undefined &&
            metadata.labels?.[LABELS.traffic] === 'serving' &&
            status?.conditions?.some((one) => one.type === 'Ready' && one.status === 'True'),
        ).length;
      for (const name of ['edited', 'reverted', 'grown']) {
        assert.ok((await serving(name)) >= 2, `${name} serves with less than it had`);
      }
      operator = await cluster.startOperator({ args });
      for (const pod of draining) cluster.engines.set(pod, 0, 0);
      await endsWith('made', 2);
      await endsWith('edited', 2);
      await endsWith('reverted', 2);
      await endsWith('grown', 3);
      await endsWith('shrunk', 1);
      await endsWith('draining', 0);
      const grown = (await deployments.pods('grown')).map(({ metadata }) => String(metadata.uid));
      assert.equal(grown.filter((uid) => kept.has(uid)).length, 2, 'the old pods stay');
      const names = [...old, 'made'];
      await Promise.all(names.map((name) => deployments.delete(name).catch(() => {})));
      await eventually('all are gone', async () => {
        const { output } = await cluster.kubectl('get', 'nvlm,pods', '-o', 'name');
        return !/nvlmdeployment|-[0-9a-f]{10}-/.test(output);
      });
    });
  }
});
