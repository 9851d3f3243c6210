/** Jobs that describe models, whose pods KWOK does not run: their answers are written as a kubelet reports them. */
import type { KubeClient } from '#operator/kube/client.ts';
import { collectionPath, type KubeList, objectPath, RESOURCES } from '#operator/kube/resource.ts';
import type { PodObject } from '#operator/nvlm/pod.ts';
import { eventually } from '../../../scripts/cluster/processes.ts';

/** Pods of the Job of a deployment. */
export async function describePods(
  client: KubeClient,
  deployment: string,
): Promise<readonly PodObject[]> {
  const list = (await client.request({
    method: 'GET',
    path: collectionPath(RESOURCES.pod, 'default'),
    query: { labelSelector: `serving.nvlm.dev/describes=${deployment}` },
  })) as KubeList<PodObject>;
  return list.items;
}

/** Gives the pods that have not said anything a termination message, once there is one; KWOK ends pods without a word. */
export async function endDescribeJob(
  client: KubeClient,
  deployment: string,
  message: string,
  exitCode: number,
): Promise<void> {
  const pods = await eventually(`the Job of ${deployment} has a pod`, async () => {
    const found = (await describePods(client, deployment)).filter(
      ({ status }) => !status?.containerStatuses?.[0]?.state?.terminated?.message,
    );
    return found.length > 0 ? found : undefined;
  });
  const time = new Date().toISOString();
  for (const { metadata } of pods) {
    await client.request({
      method: 'PATCH',
      path: `${objectPath(RESOURCES.pod, metadata.name, 'default')}/status`,
      contentType: 'application/merge-patch+json',
      body: {
        status: {
          phase: exitCode === 0 ? 'Succeeded' : 'Failed',
          containerStatuses: [
            {
              name: 'describe',
              image: 'nvlm-engine:dev',
              imageID: '',
              ready: false,
              restartCount: 0,
              state: {
                terminated: {
                  exitCode,
                  reason: 'Completed',
                  message,
                  startedAt: time,
                  finishedAt: time,
                },
              },
            },
          ],
        },
      },
    });
  }
}
