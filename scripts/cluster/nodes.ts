/** Nodes that KWOK plays: machines with GPUs, as the GPU operator labels them, and some without. */
import type { KubeClient } from '#operator/kube/client.ts';
import { type KubeObject, objectPath, RESOURCES } from '#operator/kube/resource.ts';
import { eventually, SETUP_MS, type WaitOptions } from './processes.ts';

export interface NodeKind {
  readonly prefix: string;
  readonly count: number;
  /** Undefined: a node without GPUs. */
  readonly product?: string;
  readonly gpus?: number;
}

export const STANDARD_NODES: readonly NodeKind[] = [
  { prefix: 'a100-40', count: 8, product: 'NVIDIA-A100-SXM4-40GB', gpus: 8 },
  { prefix: 'a100-80', count: 2, product: 'NVIDIA-A100-SXM4-80GB', gpus: 8 },
  { prefix: 'cpu', count: 2 },
];

export async function createNodes(
  client: KubeClient,
  kinds: readonly NodeKind[] = STANDARD_NODES,
): Promise<string[]> {
  const nodes = kinds.flatMap(({ prefix, count, product, gpus = 8 }) =>
    Array.from({ length: count }, (_, i) => nodeOf(`${prefix}-${i + 1}`, product, gpus)),
  );
  for (const node of nodes) {
    await client.apply(RESOURCES.node, node, { fieldManager: 'test', force: true });
    const { metadata, status } = node;
    await client.apply(
      RESOURCES.node,
      { apiVersion: 'v1', kind: 'Node', metadata: { name: metadata.name }, status },
      { fieldManager: 'test', force: true, subresource: 'status' },
    );
  }
  for (const { metadata } of nodes) {
    await untilNodeReady(client, metadata.name, { timeoutMs: SETUP_MS });
  }
  return nodes.map(({ metadata }) => metadata.name);
}

function nodeOf(name: string, product: string | undefined, gpus: number): KubeObject {
  const capacity = {
    cpu: '96',
    memory: '1Ti',
    pods: '110',
    'ephemeral-storage': '4Ti',
    ...(product !== undefined && { 'nvidia.com/gpu': String(gpus) }),
  };
  return {
    apiVersion: 'v1',
    kind: 'Node',
    metadata: {
      name,
      annotations: { 'kwok.x-k8s.io/node': 'fake' },
      labels: {
        type: 'kwok',
        'kubernetes.io/hostname': name,
        'kubernetes.io/os': 'linux',
        'kubernetes.io/arch': 'amd64',
        ...(product !== undefined && {
          'nvidia.com/gpu.product': product,
          'nvidia.com/gpu.count': String(gpus),
        }),
      },
    },
    spec:
      product === undefined
        ? {}
        : { taints: [{ key: 'nvidia.com/gpu', value: 'present', effect: 'NoSchedule' }] },
    status: { capacity, allocatable: capacity },
  };
}

/** Waits until a kubelet, or KWOK for it, says that its node is ready. */
export async function untilNodeReady(
  client: KubeClient,
  name: string,
  waiting: WaitOptions,
): Promise<void> {
  const path = objectPath(RESOURCES.node, name);
  await eventually(
    `node ${name} is ready`,
    async () => {
      const { status } = (await client.request({ method: 'GET', path })) as {
        status?: { conditions?: readonly { type: string; status: string }[] };
      };
      return status?.conditions?.some((one) => one.type === 'Ready' && one.status === 'True');
    },
    waiting,
  );
}
