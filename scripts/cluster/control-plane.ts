/** etcd, kube-apiserver and, when asked for, controller manager, scheduler and KWOK: real, in a temporary folder, on free ports. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connectKube, type KubeClient, loadKubeConfig } from '#operator/kube/client.ts';
import { type KubeObject, objectPath, resourceOf } from '#operator/kube/resource.ts';
import { buildCluster } from './build.mjs';
import { type ClusterPki, createPki } from './pki.ts';
import { type Child, eventually, freePorts, SETUP_MS, startChild } from './processes.ts';
import { type ClusterFolder, createClusterFolder } from './state.ts';

export interface ControlPlaneOptions {
  /** Only etcd and the API server. */
  readonly apiServerOnly?: boolean;
  readonly kwok?: boolean;
  /** For KWOK, in place of its own of the same kinds of object. */
  readonly kwokStages?: readonly object[];
  /** Applied before the controllers start: their discovery is refreshed only every 30 s. */
  readonly crds?: readonly KubeObject[];
  /** Of KWOK's pods. */
  readonly podCidr?: string;
  /** Whether KWOK renews a lease for each of its nodes every ten seconds, and its status twice a minute; else the status every quarter of an hour. */
  readonly nodeHeartbeats?: boolean;
  /** Address of this host that EndpointSlices may name; loopback when nothing outside the API server calls it. */
  readonly hostAddress?: string;
  /** Of ClusterIPs; the API server's own is the first. */
  readonly serviceCidr?: string;
  /** Made already, for what has to be there first; else one is made. Goes when the control plane stops. */
  readonly state?: ClusterFolder;
  readonly apiServerArgs?: readonly string[];
  readonly controllerArgs?: readonly string[];
}

export interface ControlPlane {
  readonly folder: string;
  readonly state: ClusterFolder;
  readonly server: string;
  /** Of the administrator. */
  readonly kubeconfig: string;
  readonly client: KubeClient;
  readonly pki: ClusterPki;
  readonly etcdUrl: string;
  /** Folder of kubectl, etcd and the others. */
  readonly programs: string;
  /** The running parts by name; a part that was killed can be started again. */
  readonly parts: ReadonlyMap<string, Child>;
  /** Starts a part that ended, with the arguments it had; resolves when the API server answers again. */
  restart(part: string): Promise<void>;
  log(part: string): string;
  stop(): Promise<void>;
}

export async function startControlPlane({
  apiServerOnly = false,
  kwok = false,
  kwokStages,
  crds = [],
  podCidr = '10.251.0.1/24',
  nodeHeartbeats = true,
  hostAddress = '127.0.0.1',
  serviceCidr = '10.96.0.0/16',
  state: existing,
  apiServerArgs = [],
  controllerArgs = [],
}: ControlPlaneOptions = {}): Promise<ControlPlane> {
  const programs = await buildCluster();
  const state = existing ?? (await createClusterFolder());
  const folder = state.path;
  for (const name of ['pki', 'log', 'etcd']) mkdirSync(join(folder, name));
  const stagesFile = join(folder, 'kwok.yaml');
  if (kwokStages !== undefined) {
    writeFileSync(stagesFile, kwokStages.map((stage) => JSON.stringify(stage)).join('\n---\n'));
  }
  const [apiPort = 0, etcdPort = 0, peerPort = 0, controllerPort = 0, schedulerPort = 0] =
    await freePorts(5);
  const service = ['kubernetes', 'kubernetes.default', 'kubernetes.default.svc'];
  const hosts = ['localhost', ...service, '127.0.0.1', firstOf(serviceCidr), hostAddress];
  const pki = await createPki(join(folder, 'pki'), [...new Set(hosts)]);
  const server = `https://${hostAddress}:${apiPort}`;
  const etcdUrl = `http://127.0.0.1:${etcdPort}`;
  const masters = { organization: 'system:masters' };
  const [admin, controllers, scheduler] = await Promise.all([
    pki.kubeconfig('admin', server, { commonName: 'admin', ...masters }),
    pki.kubeconfig('controllers', server, { commonName: 'system:kube-controller-manager' }),
    pki.kubeconfig('scheduler', server, { commonName: 'system:kube-scheduler' }),
  ]);
  const client = connectKube(loadKubeConfig(admin));
  const key = (name: string): string => join(pki.folder, `${name}.key`);
  const identities = (kubeconfig: string): string[] => [
    `--kubeconfig=${kubeconfig}`,
    `--authentication-kubeconfig=${kubeconfig}`,
    `--authorization-kubeconfig=${kubeconfig}`,
  ];
  const commands: Record<string, readonly string[]> = {
    etcd: [
      '--name=nvlm',
      `--data-dir=${join(folder, 'etcd')}`,
      // For a cluster that lasts minutes, and wrong everywhere else.
      '--unsafe-no-fsync',
      `--listen-client-urls=${etcdUrl}`,
      `--advertise-client-urls=${etcdUrl}`,
      `--listen-peer-urls=http://127.0.0.1:${peerPort}`,
      `--initial-advertise-peer-urls=http://127.0.0.1:${peerPort}`,
      `--initial-cluster=nvlm=http://127.0.0.1:${peerPort}`,
      '--log-level=warn',
    ],
    'kube-apiserver': [
      `--etcd-servers=${etcdUrl}`,
      '--bind-address=0.0.0.0',
      `--secure-port=${apiPort}`,
      `--advertise-address=${hostAddress === '127.0.0.1' ? '10.255.255.1' : hostAddress}`,
      `--service-cluster-ip-range=${serviceCidr}`,
      '--authorization-mode=Node,RBAC',
      '--allow-privileged=true',
      `--client-ca-file=${pki.path('ca')}`,
      `--tls-cert-file=${pki.path('apiserver')}`,
      `--tls-private-key-file=${key('apiserver')}`,
      `--kubelet-client-certificate=${pki.path('kubelet-client')}`,
      `--kubelet-client-key=${key('kubelet-client')}`,
      '--kubelet-preferred-address-types=InternalIP,Hostname',
      '--service-account-issuer=https://kubernetes.default.svc',
      `--service-account-key-file=${join(pki.folder, 'sa.pub')}`,
      `--service-account-signing-key-file=${key('sa')}`,
      `--requestheader-client-ca-file=${pki.path('front-proxy-ca')}`,
      '--requestheader-allowed-names=front-proxy-client',
      '--requestheader-username-headers=X-Remote-User',
      '--requestheader-group-headers=X-Remote-Group',
      '--requestheader-extra-headers-prefix=X-Remote-Extra-',
      `--proxy-client-cert-file=${pki.path('front-proxy-client')}`,
      `--proxy-client-key-file=${key('front-proxy-client')}`,
      // Aggregated servers run on this host: with an address of its own they are reached by EndpointSlice, else by ExternalName.
      `--enable-aggregator-routing=${hostAddress !== '127.0.0.1'}`,
      ...apiServerArgs,
    ],
    'kube-controller-manager': [
      ...identities(controllers),
      '--bind-address=127.0.0.1',
      `--secure-port=${controllerPort}`,
      '--leader-elect=false',
      '--use-service-account-credentials=true',
      `--service-account-private-key-file=${key('sa')}`,
      `--root-ca-file=${pki.path('ca')}`,
      `--cluster-signing-cert-file=${pki.path('ca')}`,
      `--cluster-signing-key-file=${key('ca')}`,
      '--allocate-node-cidrs=false',
      '--horizontal-pod-autoscaler-sync-period=2s',
      '--horizontal-pod-autoscaler-downscale-stabilization=5s',
      '--kube-api-qps=200',
      '--kube-api-burst=400',
      ...(nodeHeartbeats ? [] : ['--node-monitor-grace-period=1h']),
      ...controllerArgs,
    ],
    'kube-scheduler': [
      ...identities(scheduler),
      '--bind-address=127.0.0.1',
      `--secure-port=${schedulerPort}`,
      '--leader-elect=false',
      '--kube-api-qps=200',
      '--kube-api-burst=400',
    ],
    kwok: [
      `--kubeconfig=${admin}`,
      '--manage-all-nodes=false',
      '--manage-nodes-with-label-selector=type=kwok',
      // With leases KWOK writes statuses more often, not less.
      `--node-lease-duration-seconds=${nodeHeartbeats ? 40 : 0}`,
      `--cidr=${podCidr}`,
      `--node-ip=${hostAddress}`,
      ...(kwokStages === undefined ? [] : [`--config=${stagesFile}`]),
    ],
  };
  const parts = new Map<string, Child>();
  const start = (part: string): void => {
    const child = startChild(part, join(programs, part), commands[part] ?? [], {
      logFile: join(folder, 'log', `${part}.log`),
    });
    state.addProcess(child.process.pid);
    parts.set(part, child);
  };
  const log = (part: string): string => parts.get(part)?.tail() ?? '';
  const isReady = (): Promise<void> =>
    eventually(
      'the API server is ready',
      () =>
        client.request({ method: 'GET', path: '/readyz?verbose', timeoutMs: 2000 }).catch(readyz),
      { timeoutMs: SETUP_MS, explain: () => log('kube-apiserver') },
    ).then(() => {});
  const stop = async (): Promise<void> => {
    const order = ['kwok', 'kube-scheduler', 'kube-controller-manager', 'kube-apiserver', 'etcd'];
    for (const part of order) await parts.get(part)?.stop('SIGTERM', 5000);
    await state.remove();
  };

  try {
    start('etcd');
    start('kube-apiserver');
    await isReady();
    for (const crd of crds) await applyCrd(client, crd);
    if (!apiServerOnly) {
      start('kube-controller-manager');
      start('kube-scheduler');
      if (kwok) start('kwok');
      await eventually(
        'the default service account exists',
        () =>
          client.request({
            method: 'GET',
            path: '/api/v1/namespaces/default/serviceaccounts/default',
          }),
        { timeoutMs: SETUP_MS, explain: () => log('kube-controller-manager') },
      );
    }
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    folder,
    state,
    server,
    kubeconfig: admin,
    client,
    pki,
    etcdUrl,
    programs,
    parts,
    async restart(part) {
      await parts.get(part)?.stop();
      start(part);
      await isReady();
    },
    log,
    stop,
  };
}

const firstOf = (cidr: string): string =>
  cidr.replace(/(\d+)\/\d+$/, (_, last: string) => String(Number(last) + 1));

/** /readyz answers `ok` in plain text, which is no JSON: that error is the good answer. */
function readyz(error: unknown): boolean {
  if (error instanceof Error && 'code' in error && error.code === 'KUBE_PROTOCOL') return true;
  throw error;
}

/** Applies a CustomResourceDefinition and waits until its kind is served. */
export async function applyCrd(client: KubeClient, crd: KubeObject): Promise<void> {
  const type = resourceOf(crd);
  await client.apply(type, crd, { fieldManager: 'test', force: true });
  await eventually(`${crd.metadata.name} is established`, async () => {
    const { status } = (await client.request({
      method: 'GET',
      path: objectPath(type, crd.metadata.name),
    })) as { status?: { conditions?: readonly { type: string; status: string }[] } };
    return status?.conditions?.some(
      (condition) => condition.type === 'Established' && condition.status === 'True',
    );
  });
}
