/** A pod that does nothing, on a real node: it has what every pod has, such as namespaces, mounts and an address. */
import { collectionPath, objectPath, RESOURCES } from '#operator/kube/resource.ts';
import { isPodReady, type PodObject } from '#operator/nvlm/pod.ts';
import type { NodeCluster } from '../../../scripts/cluster/node-cluster.ts';
import { PAUSE_IMAGE } from '../../../scripts/cluster/node-config.ts';
import { eventually, SETUP_MS } from '../../../scripts/cluster/processes.ts';

/** Resolves when it is ready, with its address. */
export async function runPausePod({ plane, node }: NodeCluster): Promise<string> {
  const name = 'pause';
  const volumeMounts = [{ name: 'memory', mountPath: '/memory' }];
  const container = { name, image: PAUSE_IMAGE, imagePullPolicy: 'Never', volumeMounts };
  const volumes = [{ name: 'memory', emptyDir: { medium: 'Memory' } }];
  await plane.client.request({
    method: 'POST',
    path: collectionPath(RESOURCES.pod, 'default'),
    body: {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name },
      spec: { containers: [container], volumes },
    },
  });
  let seen: PodObject | undefined;
  return eventually(
    'the pod is ready',
    async () => {
      const path = objectPath(RESOURCES.pod, name, 'default');
      seen = (await plane.client.request({ method: 'GET', path })) as PodObject;
      return isPodReady(seen) ? seen.status?.podIP : undefined;
    },
    {
      timeoutMs: SETUP_MS,
      explain: () => `${JSON.stringify(seen?.status)}\n${node.log('kubelet').slice(-2000)}`,
    },
  );
}
