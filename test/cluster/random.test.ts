import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { LABELS } from '#charts/labels.ts';
import { collectionPath, type KubeList, objectPath, RESOURCES } from '#operator/kube/resource.ts';
import { NVLM_RESOURCE } from '#operator/nvlm/context.ts';
import type { PodObject } from '#operator/nvlm/pod.ts';
import { eventually } from '../../scripts/cluster/processes.ts';
import { Deployments } from '../support/cluster/deployments.ts';
import {
  type OperatorProcess,
  startTestCluster,
  type TestCluster,
} from '../support/cluster/operator.ts';
import { noCluster } from '../support/cluster/requirements.ts';
import { createRandom, type Random } from '../support/random.ts';

const waves = 5;
const sequencesOfWave = 40;
const stepsOfSequence = 6;

/** What a sequence leaves behind; undefined: the NVLMDeployment is deleted. */
type Wanted = { readonly replicas: number; readonly maxSequences: number } | undefined;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

describe('random histories on a real control plane', {
  skip: noCluster(),
  timeout: 900_000,
}, () => {
  let cluster: TestCluster;
  let operator: OperatorProcess;
  let deployments: Deployments;
  const args = ['--describe-timeout=500ms'];

  before(async () => {
    cluster = await startTestCluster({
      nodes: [{ prefix: 'a100', count: 30, product: 'NVIDIA-A100-SXM4-80GB', gpus: 8 }],
    });
    operator = await cluster.startOperator({ args });
    deployments = new Deployments(cluster.client);
  });
  after(() => cluster?.stop());

  const removeOnePod = async (name: string, random: Random): Promise<void> => {
    const pods = await deployments.pods(name);
    if (pods.length === 0) return;
    const path = objectPath(RESOURCES.pod, random.pick(pods).metadata.name, 'default');
    // It may be gone by itself.
    await cluster.client.request({ method: 'DELETE', path }).catch(() => {});
  };

  const runSequence = async (name: string, random: Random): Promise<Wanted> => {
    const policy = () => ({ maxSequences: 8 * random.integer(1, 3) });
    let replicas = random.integer(0, 2);
    let { maxSequences } = policy();
    await deployments.create(name, {
      replicas,
      batchPolicy: { maxSequences },
      parallelism: { tensor: 1 },
      drain: { timeout: '5s' },
      rollout: { maxSurge: 1, maxUnavailable: random.integer(0, 1) },
    });
    for (let step = 0; step < stepsOfSequence; step++) {
      await pause(random.integer(0, 600));
      const action = random.integer(0, 9);
      if (action < 4) {
        replicas = random.integer(0, 3);
        await deployments.patch(name, { spec: { replicas } });
      } else if (action < 7) {
        ({ maxSequences } = policy());
        await deployments.patch(name, { spec: { batchPolicy: { maxSequences } } });
      } else if (action < 9) await removeOnePod(name, random);
      else if (step > 2) {
        await deployments.delete(name);
        return undefined;
      }
    }
    return { replicas, maxSequences };
  };

  const differs = (
    name: string,
    wanted: Wanted,
    all: readonly Awaited<ReturnType<Deployments['get']>>[],
    pods: readonly PodObject[],
  ): string => {
    const deployment = all.find(({ metadata }) => metadata.name === name);
    const own = pods.filter(({ metadata }) => metadata.labels?.[LABELS.deployment] === name);
    const told = `${name}: ${JSON.stringify(deployment?.status)}, pods ${own.map(({ metadata }) => metadata.name)}`;
    if (wanted === undefined) {
      return deployment === undefined && own.length === 0 ? '' : `still there: ${told}`;
    }
    const { status, metadata } = deployment ?? {};
    const isRight =
      status?.observedGeneration === metadata?.generation &&
      status?.ready === `${wanted.replicas}/${wanted.replicas}` &&
      own.length === wanted.replicas &&
      own.every(
        (pod) =>
          pod.metadata.labels?.[LABELS.revision] === status?.currentRevision &&
          pod.metadata.labels?.[LABELS.traffic] === 'serving' &&
          JSON.stringify(pod.spec).includes(`--max-sequences=${wanted.maxSequences}`),
      );
    return isRight ? '' : `wanted ${JSON.stringify(wanted)}, ${told}`;
  };

  for (let wave = 1; wave <= waves; wave++) {
    test(`edits, deletions of pods and kills of the operator end in what the spec says: ${sequencesOfWave} sequences, round ${wave} of ${waves}`, async () => {
      const seed = Number(process.env.TEST_SEED ?? Date.now() % 1e9) + wave;
      const chaos = createRandom(seed);
      const names = Array.from({ length: sequencesOfWave }, (_, i) => `r${wave}-${i}`);
      const running = Promise.all(
        names.map((name, i) => runSequence(name, createRandom(seed * 1000 + i))),
      );
      for (let kill = 0; kill < 2; kill++) {
        await pause(chaos.integer(100, 1500));
        await operator.child.stop('SIGKILL');
        operator = await cluster.startOperator({ args });
      }
      const wanted = await running;
      let wrong: string[] = [];
      try {
        await eventually(
          'every sequence has ended in what its spec says',
          async () => {
            const read = async (type: typeof NVLM_RESOURCE) =>
              (await cluster.client.request({
                method: 'GET',
                path: collectionPath(type, 'default'),
              })) as KubeList;
            const all = (await read(NVLM_RESOURCE)).items as never;
            const pods = (await read(RESOURCES.pod)).items.filter(
              ({ metadata }) => metadata.labels?.[LABELS.deployment] !== undefined,
            ) as PodObject[];
            wrong = names.map((name, i) => differs(name, wanted[i], all, pods)).filter(Boolean);
            return wrong.length === 0;
          },
          { timeoutMs: 120_000, explain: () => `seed ${seed}\n${wrong.join('\n')}` },
        );
      } finally {
        await Promise.all(names.map((name) => deployments.delete(name).catch(() => {})));
      }
      await eventually('nothing is left of the round', async () => {
        const left = await Promise.all(names.map((name) => deployments.pods(name)));
        return left.every((pods) => pods.length === 0);
      });
      assert.deepEqual(wrong, []);
    });
  }
});
