/** A deployment followed through a day in minutes: a real control plane and its HPA controller, pods of KWOK, and queues that are set. */
import { objectPath, RESOURCES } from '#operator/kube/resource.ts';
import { eventually } from '../scripts/cluster/processes.ts';
import { Deployments } from '../test/support/cluster/deployments.ts';
import { startTestCluster, type TestCluster } from '../test/support/cluster/operator.ts';
import type { BenchResult } from './result.ts';

type Progress = (fraction: number | undefined, note?: string) => void;

/** What a cluster shows at a moment. */
interface Sample {
  readonly seconds: number;
  readonly event: string;
  readonly waiting: number;
  /** `spec.replicas`, which the HPA writes, or the operator at zero. */
  readonly desired: number;
  readonly ready: number;
  readonly draining: number;
}

interface Stage {
  readonly event: string;
  readonly waiting: number;
  readonly replicas: number;
  readonly isWake?: boolean;
}

const NAME = 'chat';
const AUTOSCALING = {
  minReplicas: 0,
  maxReplicas: 8,
  targetQueueDepth: 16,
  idleTimeout: '60s',
  behavior: {
    scaleDown: {
      stabilizationWindowSeconds: 60,
      policies: [{ type: 'Pods', value: 1, periodSeconds: 30 }],
    },
  },
};
const stages: readonly Stage[] = [
  { event: '80 requests wait', waiting: 80, replicas: 5 },
  { event: '40 wait', waiting: 40, replicas: 3 },
  { event: '10 wait', waiting: 10, replicas: 1 },
  { event: 'none waits', waiting: 0, replicas: 0 },
  { event: 'a wake signal', waiting: 0, replicas: 1, isWake: true },
];
const longestStageMs = 240_000;
const lookMs = 250;

/** Replicas and time of each change. The HPA controller looks every 15 s, as by default. Needs root and Go, as the cluster tests. */
export async function autoscalingBench(progress: Progress): Promise<BenchResult> {
  progress(undefined, 'control plane');
  const cluster = await startTestCluster({
    controllerArgs: ['--horizontal-pod-autoscaler-sync-period=15s'],
  });
  try {
    const operator = await cluster.startOperator();
    const deployments = new Deployments(cluster.client);
    await deployments.create(NAME, {
      autoscaling: AUTOSCALING,
      parallelism: { tensor: 1 },
      drain: { timeout: '5s' },
    });
    await deployments.untilReady(NAME);
    await untilHpaReads(cluster);
    const samples: Sample[] = [];
    const startedAt = performance.now();
    for (const [i, stage] of stages.entries()) {
      progress(i / stages.length, stage.event);
      cluster.engines.setTotal(NAME, stage.waiting);
      if (stage.isWake) await fetch(`${operator.url}/wake/default/${NAME}`, { method: 'POST' });
      await follow(deployments, stage, startedAt, samples);
    }
    return {
      name: 'autoscaling',
      tables: [
        {
          title: `targetQueueDepth ${AUTOSCALING.targetQueueDepth}, one NVLMDeployment on KWOK nodes, every change`,
          columns: ['s', 'what happens', 'waiting', 'desired', 'ready', 'draining'],
          rows: samples.map(({ seconds, event, waiting, desired, ready, draining }) =>
            [seconds.toFixed(0), event, waiting, desired, ready, draining].map(String),
          ),
          note: 'HPA controller every 15 s; scaleDown: window 60 s, one pod in 30 s; idleTimeout 60 s; pods of KWOK are ready at once.',
        },
      ],
      charts: [
        {
          name: 'autoscaling',
          kind: 'line',
          title: 'Replicas as the queue grows and shrinks',
          xLabel: 's',
          yLabel: 'replicas',
          x: samples.map(({ seconds }) => seconds),
          series: [
            { name: 'desired', values: samples.map(({ desired }) => desired) },
            { name: 'ready', values: samples.map(({ ready }) => ready) },
          ],
        },
      ],
      figures: { autoscaling: AUTOSCALING, samples },
    };
  } finally {
    await cluster.stop();
  }
}

/** The HPA controller has read the queue depth once: what comes next is its rule, not its start. */
async function untilHpaReads({ client }: TestCluster): Promise<void> {
  const path = objectPath(RESOURCES.horizontalPodAutoscaler, NAME, 'default');
  await eventually(
    'the HPA controller has read the queue depth',
    async () => {
      const { status } = (await client.request({ method: 'GET', path })) as {
        status?: { conditions?: readonly { type: string; status: string }[] };
      };
      const active = status?.conditions?.find(({ type }) => type === 'ScalingActive');
      return active?.status === 'True';
    },
    { timeoutMs: 120_000, intervalMs: lookMs },
  );
}

/** Adds a sample for each change until the stage has come to its end. */
async function follow(
  deployments: Deployments,
  { event, waiting, replicas }: Stage,
  startedAt: number,
  samples: Sample[],
): Promise<void> {
  let isFirst = true;
  await deployments.until(
    NAME,
    `comes to ${replicas} replicas: ${event}`,
    ({ spec, status }) => {
      const sample: Sample = {
        seconds: (performance.now() - startedAt) / 1000,
        event: isFirst ? event : '',
        waiting,
        desired: spec.replicas,
        ready: status?.readyReplicas ?? 0,
        draining: status?.drainingReplicas ?? 0,
      };
      const last = samples.at(-1);
      const isSame =
        last?.desired === sample.desired &&
        last.ready === sample.ready &&
        last.draining === sample.draining;
      if (isFirst || !isSame) samples.push(sample);
      isFirst = false;
      const isThere = sample.desired === replicas && sample.ready === replicas;
      return isThere && sample.draining === 0;
    },
    { timeoutMs: longestStageMs, intervalMs: lookMs, explain: () => JSON.stringify(samples) },
  );
}
