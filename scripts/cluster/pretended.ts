/** The cluster of machines without root or containerd: KWOK plays the nodes, the operator runs beside them as a process. */
import { join } from 'node:path';
import { OPERATOR_NAME } from '#charts/labels.ts';
import { root } from '../build.mjs';
import { type ControlPlane, startControlPlane } from './control-plane.ts';
import { type Kubectl, kubectlOf, succeed } from './kubectl.ts';
import type { Narrate } from './node-cluster.ts';
import { createNodes } from './nodes.ts';
import { operatorKubeconfig } from './operator-account.ts';
import { eventually, startChild } from './processes.ts';
import type { ClusterFolder } from './state.ts';

const namespace = 'nvlm-system';

/** The control plane, ten nodes of eight A100 and two without GPUs, the operator, and one deployment that is Ready. */
export async function startPretendedCluster(
  state: ClusterFolder,
  narrate: Narrate,
): Promise<{ readonly plane: ControlPlane; readonly kubectl: Kubectl }> {
  const plane = await narrate('Start the control plane', () =>
    startControlPlane({ state, kwok: true }),
  );
  const kubectl = kubectlOf(plane);
  await narrate('Make twelve nodes', () => createNodes(plane.client));
  await narrate('Apply charts/install.yaml', async () => {
    await succeed(kubectl, 'apply', '--server-side', '-f', join(root, 'charts/install.yaml'));
    // Its pods would only look as if they ran.
    const deployment = `deployment/${OPERATOR_NAME}`;
    await succeed(kubectl, '-n', namespace, 'scale', deployment, '--replicas=0');
  });
  await narrate('Start the operator', () => startOperator(plane));
  await narrate('Apply the example', () =>
    succeed(kubectl, 'apply', '-f', join(root, 'examples/nvlm-d-72b.yaml')),
  );
  await narrate('Wait until it is Ready', () =>
    succeed(
      kubectl,
      ...['wait', 'nvlm', '--all', '--for=jsonpath={.status.phase}=Ready', '--timeout=3m'],
    ),
  );
  return { plane, kubectl };
}

/** With the rights that the manifest gives it, and no metrics API: no engine here has a queue. */
async function startOperator(plane: ControlPlane): Promise<void> {
  const { folder, state } = plane;
  const kubeconfig = await operatorKubeconfig(plane, namespace, 7 * 86_400);
  const child = startChild(
    'operator',
    process.execPath,
    [
      join(root, 'operator/main.ts'),
      `--kubeconfig=${kubeconfig}`,
      '--host=127.0.0.1',
      '--port=0',
      '--metrics-api=none',
      '--describe-timeout=5s',
    ],
    { logFile: join(folder, 'log/operator.log') },
  );
  state.addProcess(child.process.pid);
  await eventually('the operator leads', () => /"msg":"leading"/.test(child.tail(1000)), {
    explain: () => child.tail(),
    isHopeless: () => child.hasExited,
  });
}
