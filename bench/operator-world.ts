/** What the bench of the operator works on: engines that answer for all pods, the operator's process, and what is read of all. */
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { constants, setPriority } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { OPERATOR_ENVIRONMENT } from '#charts/operator-objects.ts';
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import type { KubeClient } from '#operator/kube/client.ts';
import { Reflector } from '#operator/kube/reflector.ts';
import {
  collectionPath,
  type KubeList,
  type KubeObject,
  RESOURCES,
} from '#operator/kube/resource.ts';
import { Store } from '#operator/kube/store.ts';
import { NVLM_RESOURCE } from '#operator/nvlm/context.ts';
import type { ControlPlane } from '../scripts/cluster/control-plane.ts';
import { grantOperatorAccess, operatorKubeconfig } from '../scripts/cluster/operator-account.ts';
import { type Child, eventually, startChild } from '../scripts/cluster/processes.ts';

const NAMESPACE = 'nvlm-system';
const POD_NETWORK = '10.252.0.0/16';
const ENGINE_PORT = 8000;
const PARALLEL = 4;
/** Controllers of Kubernetes look at every object of a namespace for each pod: nobody has thousands in one. */
const IN_NAMESPACE = 50;
export const nameOf = (index: number): string => `bench-${index}`;
export const namespaceOf = (index: number): string => `team-${Math.floor(index / IN_NAMESPACE)}`;

/** One server answers for the engines of all pods: every address of their network is this machine. */
export async function startEngines(): Promise<Server> {
  const route = spawnSync('ip', ['route', 'replace', 'local', POD_NETWORK, 'dev', 'lo']);
  if (route.status !== 0) throw new Error(`ip route needs root: ${route.stderr}`);
  const figures = ['vllm:num_requests_waiting', 'vllm:num_requests_running']
    .map((name) => `${name}{model_name="m"} 0\n`)
    .join('');
  const server = createServer((request, response) => {
    response.end(request.url === '/metrics' ? figures : '{}');
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(ENGINE_PORT, '0.0.0.0', 4096, resolve);
  });
  return server;
}

/** Those of `count` deployments. */
export async function createNamespaces(client: KubeClient, count: number): Promise<void> {
  for (let index = 0; index < count; index += IN_NAMESPACE) {
    const metadata = { name: namespaceOf(index) };
    const path = collectionPath(RESOURCES.namespace);
    const body = { apiVersion: 'v1', kind: 'Namespace', metadata };
    await client.request({ method: 'POST', path, body });
  }
}

/** Under the rights of an installation, with the options of one. */
export async function startOperator(plane: ControlPlane): Promise<{ child: Child; url: string }> {
  await grantOperatorAccess(plane.client, NAMESPACE);
  const kubeconfig = await operatorKubeconfig(plane, NAMESPACE, 7200);
  const child = startChild(
    'operator',
    process.execPath,
    [
      join(import.meta.dirname, '../operator/main.ts'),
      `--kubeconfig=${kubeconfig}`,
      '--port=0',
      '--metrics-api=none',
      '--image-pull-policy=Never',
      '--describe-timeout=1s',
    ],
    {
      logFile: join(plane.folder, 'log/operator.log'),
      env: { NODE_EXTRA_CA_CERTS: '', ...OPERATOR_ENVIRONMENT },
    },
  );
  const url = await eventually(
    'the operator listens',
    () => /listening on (http:\/\/\S+?)"/.exec(child.tail(10_000))?.[1] ?? '',
    { explain: () => child.tail() },
  );
  return { child, url: url.replace('0.0.0.0', '127.0.0.1') };
}

/** Calls `work` for 0 .. count - 1, a few at a time, `rate` a second at most. */
export async function inParallel(
  count: number,
  rate: number,
  work: (index: number) => Promise<unknown>,
): Promise<void> {
  const startedAt = performance.now();
  let next = 0;
  const lane = async (): Promise<void> => {
    while (next < count) {
      const index = next++;
      const dueMs = startedAt + (1000 * index) / rate - performance.now();
      if (dueMs > 0) await sleep(dueMs);
      await work(index);
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, lane));
}

/** All NVLMDeployments as a watch tells them, until `signal` aborts: who looks on must not be the operator's heaviest neighbour. */
export async function watchDeployments(
  client: KubeClient,
  signal: AbortSignal,
): Promise<Store<NVLMDeployment & KubeObject>> {
  const store = new Store<NVLMDeployment & KubeObject>();
  const reflector = new Reflector({ client, type: NVLM_RESOURCE, store });
  void reflector.run(signal);
  await reflector.synced;
  return store;
}

/** Seconds until every deployment satisfies `test`. */
export async function untilAll(
  deployments: Store<NVLMDeployment & KubeObject>,
  count: number,
  test: (deployment: NVLMDeployment) => boolean,
  progress: (done: number) => void,
  timeoutSeconds = 1800,
): Promise<number> {
  const startedAt = performance.now();
  for (;;) {
    const done = deployments.list().filter(test).length;
    progress(done);
    const seconds = (performance.now() - startedAt) / 1000;
    if (done === count) return seconds;
    if (seconds > timeoutSeconds) {
      throw new Error(`${done} of ${count} deployments after ${Math.round(seconds)} s`);
    }
    await sleep(500);
  }
}

/** Versions of all that the operator may write: equal sums, no write. */
export async function versions(client: KubeClient): Promise<string> {
  const kinds = ['pod', 'service', 'podDisruptionBudget', 'networkPolicy'] as const;
  const types = [NVLM_RESOURCE, ...kinds.map((kind) => RESOURCES[kind])];
  const parts = [];
  for (const type of types) {
    const path = collectionPath(type, undefined);
    const { items } = (await client.request({ method: 'GET', path })) as KubeList<KubeObject>;
    parts.push(...items.map(({ metadata }) => metadata.resourceVersion));
  }
  return parts.join(' ');
}

export function processFigures({ process: { pid } }: Child): {
  rss: number;
  peak: number;
  cpu: number;
} {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const mebibytes = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0) / 1024;
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ');
  return {
    rss: mebibytes('VmRSS'),
    peak: mebibytes('VmHWM'),
    cpu: (Number(fields[11]) + Number(fields[12])) / 100,
  };
}

/**
 * The parts that stand for machines of their own, thousands of kubelets and the controllers, take the cores only when API server, etcd and
 * operator leave them: the cluster that is measured has more than the cores of this machine.
 */
export function yieldCores(plane: ControlPlane): void {
  for (const [name, part] of plane.parts) {
    const { pid } = part.process;
    if (name === 'etcd' || name === 'kube-apiserver' || pid === undefined) continue;
    setPriority(pid, constants.priority.PRIORITY_LOW);
  }
}
