/** Answers /metrics and health at the addresses of KWOK's pods, which run nothing: how many requests wait is set by the test. */
import { createServer, type Server } from 'node:http';
import type { KubeClient } from '#operator/kube/client.ts';
import { collectionPath, type KubeList, RESOURCES } from '#operator/kube/resource.ts';
import type { PodObject } from '#operator/nvlm/pod.ts';

export interface StubEngines {
  /** Waiting and running requests of each pod whose name starts with the prefix. */
  set(prefix: string, waiting: number, running?: number): void;
  /** Requests that wait over all pods of a deployment, split evenly, whatever their number. */
  setTotal(deployment: string, waiting: number): void;
  /** Pods that do not answer. */
  mute(prefix: string, isMuted: boolean): void;
  /** Gives up the addresses of these pods, for a real engine to listen at. */
  leave(prefix: string): Promise<void>;
  stop(): Promise<void>;
}

interface Load {
  waiting: number;
  running: number;
  finished: number;
}

export async function startStubEngines(client: KubeClient): Promise<StubEngines> {
  const servers = new Map<string, Server>();
  const pods = new Map<string, string>();
  const loads = new Map<string, Load>();
  const totals = new Map<string, number>();
  const muted = new Set<string>();
  const left = new Set<string>();
  const isLeft = (pod: string): boolean => [...left].some((prefix) => pod.startsWith(prefix));
  const deploymentOf = (pod: string): string => pod.replace(/-[0-9a-f]{10}-[a-z0-9]{5}$/, '');
  const loadOf = (pod: string): Load => {
    const prefix = [...loads.keys()].find((candidate) => pod.startsWith(candidate));
    const total = totals.get(deploymentOf(pod));
    const fixed = prefix === undefined ? undefined : loads.get(prefix);
    if (total === undefined) return fixed ?? { waiting: 0, running: 0, finished: 0 };
    const siblings = [...pods.values()]
      .filter((name) => deploymentOf(name) === deploymentOf(pod))
      .sort();
    const share = Math.floor(total / siblings.length);
    const rest = siblings.indexOf(pod) < total % siblings.length ? 1 : 0;
    return { waiting: share + rest, running: 0, finished: 0 };
  };
  const open = (address: string): void => {
    const server = createServer((request, response) => {
      const pod = pods.get(address) ?? '';
      if ([...muted].some((prefix) => pod.startsWith(prefix))) return;
      const { waiting, running, finished } = loadOf(pod);
      response.end(
        request.url === '/metrics'
          ? `vllm:num_requests_waiting{model_name="m"} ${waiting}\nvllm:num_requests_running{model_name="m"} ${running}\nvllm:request_success_total{finished_reason="stop"} ${finished}\n`
          : '{}',
      );
    });
    server.on('error', () => servers.delete(address));
    server.listen(8000, address);
    servers.set(address, server);
  };
  const look = async (): Promise<void> => {
    const path = collectionPath(RESOURCES.pod);
    const list = (await client.request({ method: 'GET', path })) as KubeList<PodObject>;
    // Asked before the end and answered after it: a server that was opened now would keep the process for ever.
    if (isStopped) return;
    pods.clear();
    for (const pod of list.items) {
      const address = pod.status?.podIP;
      if (
        address === undefined ||
        pod.metadata.labels?.['app.kubernetes.io/name'] !== 'nvlm-engine'
      )
        continue;
      pods.set(address, pod.metadata.name);
      if (!servers.has(address) && !isLeft(pod.metadata.name)) open(address);
    }
    for (const [address, server] of servers) {
      if (pods.has(address)) continue;
      server.closeAllConnections();
      server.close();
      servers.delete(address);
    }
  };
  let isStopped = false;
  const timer = setInterval(() => void look().catch(() => {}), 200);
  return {
    set(prefix, waiting, running = 0) {
      const before = loads.get(prefix);
      loads.set(prefix, { waiting, running, finished: (before?.finished ?? 0) + 1 });
    },
    setTotal: (deployment, waiting) => void totals.set(deployment, waiting),
    mute(prefix, isMuted) {
      if (isMuted) muted.add(prefix);
      else muted.delete(prefix);
    },
    async leave(prefix) {
      left.add(prefix);
      for (const [address, pod] of pods) {
        const server = servers.get(address);
        if (server === undefined || !pod.startsWith(prefix)) continue;
        servers.delete(address);
        server.closeAllConnections();
        await new Promise<void>((resolve) => server.close(() => resolve()));
      }
    },
    async stop() {
      isStopped = true;
      clearInterval(timer);
      for (const server of servers.values()) {
        server.closeAllConnections();
        server.close();
      }
    },
  };
}
