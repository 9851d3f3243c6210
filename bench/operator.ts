/** The operator with many deployments on a real control plane, whose nodes and pods KWOK plays. */
import { setTimeout as sleep } from 'node:timers/promises';
import { customResourceDefinition } from '#crds/crd.ts';
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import { collectionPath, type KubeObject, objectPath } from '#operator/kube/resource.ts';
import { NVLM_RESOURCE } from '#operator/nvlm/context.ts';
import { startControlPlane } from '../scripts/cluster/control-plane.ts';
import { kubectlOf, succeed } from '../scripts/cluster/kubectl.ts';
import { createNodes } from '../scripts/cluster/nodes.ts';
import { type Child, eventually } from '../scripts/cluster/processes.ts';
import { MetricsReading } from './operator-metrics.ts';
import {
  createNamespaces,
  inParallel,
  nameOf,
  namespaceOf,
  processFigures,
  startEngines,
  startOperator,
  untilAll,
  versions,
  watchDeployments,
  yieldCores,
} from './operator-world.ts';
import type { BenchResult } from './result.ts';
import { figure } from './statistics.ts';

export interface OperatorBenchOptions {
  readonly deployments: number;
  readonly pods: number;
  /** How long nothing is asked of it, to see that it writes nothing. */
  readonly steadySeconds: number;
  /** NVLMDeployments that are created in a second; infinite: as fast as four clients can. Four times as many are edited. */
  readonly rate: number;
}

type Progress = (fraction: number | undefined, note?: string) => void;

/** Throws where the machine cannot give pods addresses, or the cluster does not settle within half an hour. */
export async function operatorBench(
  { deployments, pods, steadySeconds, rate }: OperatorBenchOptions,
  progress: Progress,
): Promise<BenchResult> {
  const replicas = Math.max(1, Math.round(pods / deployments));
  const engines = await startEngines();
  progress(undefined, 'control plane');
  const plane = await startControlPlane({
    kwok: true,
    crds: [customResourceDefinition as unknown as KubeObject],
    podCidr: '10.252.0.1/16',
    // Those of hundreds of nodes are most of what an API server on two cores can write.
    nodeHeartbeats: false,
  });
  let operator: Child | undefined;
  const watching = new AbortController();
  try {
    const { client } = plane;
    progress(0.02, 'nodes');
    await createNamespaces(client, deployments);
    await createNodes(client, [
      {
        prefix: 'a100',
        count: Math.ceil((deployments * replicas) / 8),
        product: 'NVIDIA-A100-SXM4-80GB',
      },
      { prefix: 'cpu', count: Math.ceil(deployments / 100) },
    ]);
    yieldCores(plane);
    const started = await startOperator(plane);
    operator = started.child;
    const child = operator;
    const read = async (): Promise<MetricsReading> =>
      new MetricsReading(await (await fetch(`${started.url}/metrics`)).text());
    await eventually(
      'the operator leads',
      async () => (await read()).value('nvlm_operator_is_leader') === 1,
      {
        timeoutMs: 60_000,
      },
    );
    const idle = processFigures(child);
    const seen = await watchDeployments(client, watching.signal);

    const createdAt = performance.now();
    await inParallel(deployments, rate, (index) =>
      client.request({
        method: 'POST',
        path: collectionPath(NVLM_RESOURCE, namespaceOf(index)),
        body: {
          apiVersion: 'serving.nvlm.dev/v1alpha1',
          kind: 'NVLMDeployment',
          metadata: { name: nameOf(index) },
          spec: {
            model: { source: 'hf://nvidia/NVLM-D-72B' },
            parallelism: { tensor: 1 },
            replicas,
          },
        },
      }),
    );
    const creating = (performance.now() - createdAt) / 1000;
    await untilAll(
      seen,
      deployments,
      ({ status }) => status?.readyReplicas === replicas,
      (done) => progress(0.05 + (0.55 * done) / deployments, `${done} of ${deployments} ready`),
    );
    const settling = (performance.now() - createdAt) / 1000;
    const settled = await read();
    const server = new MetricsReading(await succeed(kubectlOf(plane), 'get', '--raw', '/metrics'));
    const afterSettling = processFigures(child);

    progress(0.6, 'rest before the steady state');
    // Statuses follow pods by moments, and describe Jobs end.
    let before = await versions(client);
    await eventually(
      'nothing is written any more',
      async () => {
        await sleep(5000);
        const now = await versions(client);
        const isSame = now === before;
        before = now;
        return isSame;
      },
      { timeoutMs: 300_000 },
    );
    const steadyStart = await read();
    const steadyCpu = processFigures(child).cpu;
    for (let second = 0; second < steadySeconds; second++) {
      progress(0.65 + (0.15 * second) / steadySeconds, 'steady state');
      await sleep(1000);
    }
    const steadyEnd = await read();
    const steady = processFigures(child);
    const steadyIsUnchanged = (await versions(client)) === before;

    const editedAt = await read();
    const editStart = performance.now();
    await inParallel(deployments, 4 * rate, (index) =>
      client.request({
        method: 'PATCH',
        path: objectPath(NVLM_RESOURCE, nameOf(index), namespaceOf(index)),
        contentType: 'application/merge-patch+json',
        body: { spec: { rollout: { maxSurge: 2 } } },
      }),
    );
    const editing = (performance.now() - editStart) / 1000;
    await untilAll(
      seen,
      deployments,
      ({ metadata, status }) => status?.observedGeneration === metadata.generation,
      (done) => progress(0.8 + (0.1 * done) / deployments, `${done} of ${deployments} told`),
    );
    const edited = (performance.now() - editStart) / 1000;
    const editedEnd = await read();

    progress(0.9, 'API server killed');
    await plane.parts.get('kube-apiserver')?.stop('SIGKILL');
    await sleep(2000);
    await plane.restart('kube-apiserver');
    const backAt = performance.now();
    await client.request({
      method: 'PATCH',
      path: objectPath(NVLM_RESOURCE, nameOf(0), namespaceOf(0)),
      contentType: 'application/merge-patch+json',
      body: { spec: { rollout: { maxSurge: 1 } } },
    });
    await eventually(
      'the operator answers an edit again',
      async () => {
        const path = objectPath(NVLM_RESOURCE, nameOf(0), namespaceOf(0));
        const { metadata, status } = (await client.request({
          method: 'GET',
          path,
        })) as NVLMDeployment;
        return status?.observedGeneration === metadata.generation;
      },
      { timeoutMs: 120_000 },
    );
    const recovery = (performance.now() - backAt) / 1000;
    const last = processFigures(child);

    const settlePhase = settled.reconciles();
    const editPhase = editedEnd.reconciles(editedAt);
    const allPhases = editedEnd.reconciles();
    const calls = settled.calls();
    const writes = steadyEnd.writes(steadyStart);
    const others = [...plane.parts].map(([name, part]) => [name, processFigures(part)] as const);
    const milliseconds = (value: number): string => figure(value * 1000);
    return {
      name: 'operator',
      tables: [
        {
          title: `${deployments} NVLMDeployments, ${deployments * replicas} pods on KWOK, ${Number.isFinite(rate) ? `${rate} a second` : 'as fast as four clients can'}`,
          columns: ['what', 'measured', 'target'],
          rows: [
            ['reconcile p50, all phases', `${milliseconds(allPhases.quantile(0.5))} ms`, ''],
            [
              'reconcile p99, all phases',
              `${milliseconds(allPhases.quantile(0.99))} ms`,
              '< 100 ms',
            ],
            [
              'reconcile p99 while settling',
              `${milliseconds(settlePhase.quantile(0.99))} ms`,
              '< 100 ms',
            ],
            [
              'reconcile p99 after an edit of all',
              `${milliseconds(editPhase.quantile(0.99))} ms`,
              '< 100 ms',
            ],
            ['all created', `${figure(creating)} s`, ''],
            ['all ready, from the first creation', `${figure(settling)} s`, ''],
            ['all edited', `${figure(editing)} s`, ''],
            ['all edits observed, from the first', `${figure(edited)} s`, ''],
            ['reconciles to settle', String(settlePhase.count), ''],
            ['mean API call while settling', `${milliseconds(calls.seconds / calls.total)} ms`, ''],
            [
              'mean write at the API server, of all clients',
              `${milliseconds(server.meanServerWrite())} ms`,
              '',
            ],
            ['API calls per reconcile while settling', figure(calls.total / settlePhase.count), ''],
            ['failed reconciles', String(editedEnd.failedReconciles()), '0'],
            [
              `objects written in ${steadySeconds} s of steady state`,
              steadyIsUnchanged ? 'none' : 'some',
              'none',
            ],
            [`writes in that time, the Lease's among them`, String(writes), ''],
            [
              'CPU in steady state',
              `${figure(((steady.cpu - steadyCpu) / steadySeconds) * 100)} % of a core`,
              '',
            ],
            [
              'RSS idle / settled / steady / end',
              [idle, afterSettling, steady, last].map(({ rss }) => figure(rss)).join(' / ') +
                ' MiB',
              '< 400 MiB',
            ],
            ['RSS at most', `${figure(last.peak)} MiB`, '< 400 MiB'],
            [
              'edit answered after the API server was killed, from its return',
              `${figure(recovery)} s`,
              '',
            ],
          ],
          note: 'One operator without the metrics API, fifty NVLMDeployments in a namespace, nodes without heartbeats; the whole control plane and KWOK share the cores with it.',
        },
        {
          title: 'API calls of the operator while settling',
          columns: ['verb', 'code', 'calls', 'mean ms'],
          rows: calls.rows.map(({ verb, code, count, seconds }) => [
            verb,
            code,
            String(count),
            milliseconds(seconds / count),
          ]),
        },
        {
          title: 'Processor time and memory of all parts at the end',
          columns: ['part', 'CPU s', 'RSS MiB'],
          rows: [['operator', last] as const, ...others].map(([name, { cpu, rss }]) => [
            name,
            figure(cpu),
            figure(rss),
          ]),
        },
      ],
      charts: [
        {
          name: 'operator-reconcile',
          kind: 'line',
          title: 'Reconcile time, share of reconciles at most so long',
          xLabel: 'ms',
          yLabel: 'share',
          x: settlePhase.bounds.map((bound) => bound * 1000),
          series: [
            { name: 'settling', values: settlePhase.shares },
            { name: 'after an edit of all', values: editPhase.shares },
          ],
        },
      ],
      figures: {
        deployments,
        rate: Number.isFinite(rate) ? rate : 'inf',
        pods: deployments * replicas,
        creating,
        settling,
        editing,
        edited,
        recovery,
        reconcile: {
          settling: settlePhase.summary,
          edit: editPhase.summary,
          all: allPhases.summary,
        },
        calls: calls.rows,
        steadyWrites: writes,
        steadyIsUnchanged,
        memory: { idle, afterSettling, steady, last },
        parts: Object.fromEntries(others),
      },
    };
  } finally {
    watching.abort();
    await operator?.stop('SIGTERM', 10_000);
    await plane.stop();
    engines.closeAllConnections();
    await new Promise((resolve) => engines.close(resolve));
  }
}
