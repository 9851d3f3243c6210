/** The operator as its own process against a test cluster, with what an installation would have put there. */
import { join } from 'node:path';
import { customResourceDefinition } from '#crds/crd.ts';
import type { KubeClient } from '#operator/kube/client.ts';
import { type KubeObject, RESOURCES } from '#operator/kube/resource.ts';
import { type ControlPlane, startControlPlane } from '../../../scripts/cluster/control-plane.ts';
import { type Kubectl, kubectlOf } from '../../../scripts/cluster/kubectl.ts';
import { createNodes, type NodeKind } from '../../../scripts/cluster/nodes.ts';
import {
  grantOperatorAccess,
  operatorKubeconfig,
} from '../../../scripts/cluster/operator-account.ts';
import {
  type Child,
  eventually,
  freePorts,
  SETUP_MS,
  startChild,
} from '../../../scripts/cluster/processes.ts';
import { skewedClock } from './skewed-clock.ts';
import { type StubEngines, startStubEngines } from './stub-engines.ts';
import { claimSubnet } from './subnet.ts';

const root = join(import.meta.dirname, '../../..');
export const NAMESPACE = 'nvlm-system';

export interface OperatorProcess {
  readonly child: Child;
  readonly url: string;
  /** Its standard output so far. */
  log(): string;
}

export interface TestCluster {
  readonly plane: ControlPlane;
  readonly client: KubeClient;
  readonly engines: StubEngines;
  startOperator(options?: {
    readonly args?: readonly string[];
    readonly kubeconfig?: string;
    /** How far its clock is ahead of the API server's. */
    readonly clockSeconds?: number;
  }): Promise<OperatorProcess>;
  readonly kubectl: Kubectl;
  stop(): Promise<void>;
}

/** A control plane with KWOK nodes, the custom resource, and addresses for pods; no operator yet. */
export async function startTestCluster({
  nodes,
  controllerArgs,
  kwokStages,
}: {
  readonly nodes?: readonly NodeKind[];
  readonly controllerArgs?: readonly string[];
  readonly kwokStages?: readonly object[];
} = {}): Promise<TestCluster> {
  const subnet = await claimSubnet();
  const plane = await startControlPlane({
    kwok: true,
    crds: [customResourceDefinition as unknown as KubeObject],
    podCidr: subnet.podCidr,
    hostAddress: subnet.hostAddress,
    ...(controllerArgs && { controllerArgs }),
    ...(kwokStages && { kwokStages }),
  }).catch(async (error: unknown) => {
    await subnet.release();
    throw error;
  });
  const { client } = plane;
  const operators: Child[] = [];
  await createNodes(client, nodes);
  await grantOperatorAccess(plane.client, NAMESPACE);
  const ownKubeconfig = await operatorKubeconfig(plane, NAMESPACE, 7200);
  const [metricsPort = 0] = await freePorts(1);
  await publish(client, subnet.hostAddress, metricsPort);
  const engines = await startStubEngines(client);
  return {
    plane,
    client,
    engines,
    async startOperator({ args = [], kubeconfig = ownKubeconfig, clockSeconds = 0 } = {}) {
      const name = `operator-${operators.length + 1}`;
      const logFile = join(plane.folder, 'log', `${name}.log`);
      const isFirst = operators.every((operator) => operator.hasExited);
      const child = startChild(
        name,
        process.execPath,
        [
          join(root, 'operator/main.ts'),
          `--kubeconfig=${kubeconfig}`,
          '--host=0.0.0.0',
          '--port=0',
          // The Service leads to one of them; the others answer elsewhere.
          `--metrics-port=${isFirst ? metricsPort : 0}`,
          '--lease-duration=3s',
          '--scrape-period=300ms',
          '--image-pull-policy=Never',
          '--describe-timeout=5s',
          ...args,
        ],
        { logFile, env: { NODE_EXTRA_CA_CERTS: '', ...skewedClock(clockSeconds) } },
      );
      operators.push(child);
      const log = (): string => child.tail(10_000);
      const url = await eventually(
        `${name} listens`,
        () => {
          if (child.hasExited) throw new Error('it ended');
          return /listening on (http:\/\/\S+?)"/.exec(log())?.[1] ?? '';
        },
        { timeoutMs: SETUP_MS, explain: () => child.tail() },
      );
      return { child, url: url.replace('0.0.0.0', '127.0.0.1'), log };
    },
    kubectl: kubectlOf(plane),
    async stop() {
      for (const operator of operators) await operator.stop('SIGTERM', 5000);
      await engines.stop();
      await plane.stop();
      await subnet.release();
      // A handle that was forgotten would hold up the whole run without a word.
      setTimeout(() => {
        console.error('still held open:', process.getActiveResourcesInfo().join(', '));
        process.exit();
      }, 30_000).unref();
    },
  };
}

/** The Service that the APIService names, leading to this host. */
async function publish(client: KubeClient, address: string, port: number): Promise<void> {
  const name = 'nvlm-operator-metrics';
  const apply = { fieldManager: 'test', force: true };
  await client.apply(
    RESOURCES.service,
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name, namespace: NAMESPACE },
      spec: { ports: [{ name: 'https', port: 443, targetPort: port, protocol: 'TCP' }] },
    },
    apply,
  );
  await client.apply(
    {
      group: 'discovery.k8s.io',
      version: 'v1',
      kind: 'EndpointSlice',
      plural: 'endpointslices',
      namespaced: true,
    },
    {
      apiVersion: 'discovery.k8s.io/v1',
      kind: 'EndpointSlice',
      metadata: { name, namespace: NAMESPACE, labels: { 'kubernetes.io/service-name': name } },
      addressType: 'IPv4',
      ports: [{ name: 'https', port, protocol: 'TCP' }],
      endpoints: [{ addresses: [address], conditions: { ready: true } }],
    },
    apply,
  );
}
