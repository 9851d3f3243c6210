/** One real node: kubelet, kube-proxy and containerd in namespaces of their own, joined to a control plane of the same host. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { objectPath, RESOURCES } from '#operator/kube/resource.ts';
import { createImage, layoutArchive } from '../../images/layout.mjs';
import { findCompiler } from '../prerequisites.mjs';
import type { ControlPlane } from './control-plane.ts';
import { cniConfig, containerdConfig, kubeletConfig, PAUSE_IMAGE } from './node-config.ts';
import { ip, type NodeNetwork } from './node-network.ts';
import { untilNodeReady } from './nodes.ts';
import { type Child, command, eventually, SETUP_MS, startChild } from './processes.ts';

export interface NodeOptions {
  readonly name?: string;
  /** Pretended ones; the node label `nvidia.com/gpu.product`. */
  readonly product?: string;
  readonly gpus?: number;
  /** OCI or docker archives for containerd. */
  readonly images?: readonly string[];
  /** Puts files on the node before it starts. */
  readonly fill?: (path: RealNode['path']) => void;
}

export interface RealNode {
  readonly name: string;
  readonly folder: string;
  readonly child: Child;
  /** Where a file below the node's /var/lib, /var/log or /run is here. */
  path(onNode: string): string;
  /** `ctr` of the node's containerd, in the namespace of Kubernetes. */
  ctr(...args: readonly string[]): string;
  log(part: 'containerd' | 'kubelet' | 'kube-proxy'): string;
  stop(): Promise<void>;
}

/** Resolves when the node is Ready and has its GPUs. */
export async function startNode(
  plane: ControlPlane,
  network: NodeNetwork,
  {
    name = 'a100-1',
    product = 'NVIDIA-A100-SXM4-40GB',
    gpus = 8,
    images = [],
    fill,
  }: NodeOptions = {},
): Promise<RealNode> {
  const folder = join(plane.folder, name);
  for (const part of ['cni', 'log', 'run', 'pod-logs']) {
    mkdirSync(join(folder, part), { recursive: true });
  }
  const path: RealNode['path'] = (onNode) => join(folder, 'private', onNode);
  fill?.(path);
  const { pki, server, client } = plane;
  const controlGroup = `/nvlm-${process.pid}-${name}`;
  for (const path of createControlGroups(controlGroup)) plane.state.addControlGroup(path);
  const write = (file: string, text: string): void => writeFileSync(join(folder, file), text);
  write('containerd.toml', containerdConfig(folder, { runc: which('runc'), cni: findPlugins() }));
  write('cni/10-pods.conflist', JSON.stringify(cniConfig(folder, network)));
  await pki.certificate(`${name}-serving`, {
    commonName: name,
    hosts: [name, network.nodeAddress],
  });
  const files = {
    authority: pki.path('ca'),
    certificate: pki.path(`${name}-serving`),
    key: join(pki.folder, `${name}-serving.key`),
  };
  write('kubelet.yaml', JSON.stringify(kubeletConfig(folder, controlGroup, files)));
  const kubelet = { commonName: `system:node:${name}`, organization: 'system:nodes' };
  const proxy = { commonName: 'system:kube-proxy' };
  const settings = {
    name,
    programs: plane.programs,
    interface: network.peer,
    address: `${network.nodeAddress}/30`,
    gateway: network.hostAddress,
    pods: network.podCidr,
    labels: `nvidia.com/gpu.product=${product},nvidia.com/gpu.count=${gpus}`,
  };
  write(
    'kubelet.kubeconfig',
    readFileSync(await pki.kubeconfig('kubelet', server, kubelet), 'utf8'),
  );
  write(
    'kube-proxy.kubeconfig',
    readFileSync(await pki.kubeconfig('proxy', server, proxy), 'utf8'),
  );
  write(
    'settings',
    Object.entries(settings)
      .map(([key, value]) => `${key}='${value}'\n`)
      .join(''),
  );
  const namespaces = ['--pid', '--mount', '--net', '--ipc', '--uts', '--fork', '--kill-child'];
  const child = startChild(
    name,
    'unshare',
    [
      ...namespaces,
      '--mount-proc',
      '--propagation=private',
      join(import.meta.dirname, 'node.sh'),
      folder,
    ],
    { logFile: join(folder, 'log/node.log') },
  );
  plane.state.addProcess(child.process.pid);
  const log: RealNode['log'] = (part) => {
    const file = join(folder, `log/${part}.log`);
    return existsSync(file) ? readFileSync(file, 'utf8') : '';
  };
  const ctr: RealNode['ctr'] = (...args) =>
    command('ctr', '--address', join(folder, 'run/containerd.sock'), '-n', 'k8s.io', ...args);
  const explain = (): string =>
    [
      child.tail(),
      ...(['containerd', 'kubelet'] as const).map((part) => log(part).slice(-2000)),
    ].join('\n');
  const isThere = (file: string) => () => existsSync(join(folder, file));
  const waiting = { timeoutMs: SETUP_MS, explain, isHopeless: () => child.hasExited };
  try {
    await eventually('the node has its namespaces', isThere('waiting-for-network'), waiting);
    ip('link', 'set', network.peer, 'netns', String(child.process.pid));
    await eventually('containerd answers', isThere('containerd-is-up'), waiting);
    for (const image of [await pauseImage(folder), ...images]) ctr('images', 'import', image);
    await untilNodeReady(client, name, waiting);
    const status = `${objectPath(RESOURCES.node, name)}/status`;
    // Both, else what can be allocated follows only with the kubelet's next report.
    const add = (field: string) => ({
      op: 'add',
      path: `/status/${field}/nvidia.com~1gpu`,
      value: String(gpus),
    });
    await eventually(`node ${name} has ${gpus} GPUs`, async () => {
      await client.request({
        method: 'PATCH',
        path: status,
        contentType: 'application/json-patch+json',
        body: [add('capacity'), add('allocatable')],
      });
      const node = (await client.request({ method: 'GET', path: status })) as NodeObject;
      return node.status.allocatable['nvidia.com/gpu'] === String(gpus);
    });
  } catch (error) {
    await child.stop('SIGKILL');
    throw error;
  }
  return { name, folder, child, path, ctr, log, stop: () => child.stop('SIGKILL') };
}

interface NodeObject {
  readonly status: { readonly allocatable: Readonly<Record<string, string>> };
}

const which = (name: string): string => command('sh', '-c', `command -v ${name}`).trim();

const pluginFolders = ['/usr/lib/cni', '/opt/cni/bin', '/usr/libexec/cni'];
export const findPlugins = (): string =>
  pluginFolders.find((folder) => existsSync(join(folder, 'bridge'))) ?? '/opt/cni/bin';

/** The same group below every hierarchy that is mounted: one of version 2, or those of version 1. Answers their paths. */
function createControlGroups(group: string): string[] {
  const mounts = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
    .filter(([, , type]) => type === 'cgroup' || type === 'cgroup2');
  return mounts.map(([, place = '']) => {
    const path = join(place, group);
    mkdirSync(path);
    // Of the weight of as many processes as there are cores: a group counts as one, and its pods would starve beside a busy machine.
    const weights = { 'cpu.shares': 1024, 'cpu.weight': 100 };
    for (const [file, weight] of Object.entries(weights)) {
      const setting = join(path, file);
      if (existsSync(setting)) writeFileSync(setting, String(weight * availableParallelism()));
    }
    return path;
  });
}

/** The image whose process holds the namespaces of a pod. */
async function pauseImage(folder: string): Promise<string> {
  const program = join(folder, 'pause');
  const source = join(import.meta.dirname, 'pause.cc');
  command(findCompiler() ?? 'c++', '-O2', '-static', '-nostdlib', '-o', program, source);
  const entry = { path: 'pause', type: 'file' as const, mode: 0o755, data: readFileSync(program) };
  const { files } = await createImage({
    layers: [{ description: 'pause', entries: [entry] }],
    config: { Entrypoint: ['/pause'] },
    reference: PAUSE_IMAGE,
    bill: '{}',
    time: 0,
  });
  const archive = join(folder, 'pause.tar');
  writeFileSync(archive, layoutArchive(files));
  return archive;
}
