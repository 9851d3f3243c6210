import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { findGo } from './build.mjs';
import { findPlugins } from './node.ts';

const nodeTools: Readonly<Record<string, string>> = {
  containerd: 'containerd',
  ctr: 'containerd',
  runc: 'runc',
  iptables: 'iptables',
  conntrack: 'conntrack',
  ip: 'iproute2',
  unshare: 'util-linux',
};

/** What keeps this machine from running a node, with what to do about it; undefined when nothing does. */
export function missingForNode(): string | undefined {
  if (process.platform !== 'linux') return 'Linux';
  if (process.getuid?.() !== 0)
    return 'root: a kubelet makes mounts, interfaces and control groups';
  if (findGo() === undefined) return 'Go 1.25 or later, to build the control plane and the kubelet';
  const missing = Object.entries(nodeTools)
    .filter(([tool]) => spawnSync('sh', ['-c', `command -v ${tool}`]).status !== 0)
    .map(([, debianPackage]) => debianPackage);
  if (!existsSync(join(findPlugins(), 'bridge'))) missing.push('containernetworking-plugins');
  if (missing.length > 0) return `the packages ${[...new Set(missing)].join(', ')}`;
  const namespaces = ['--pid', '--mount', '--net', '--fork', '--mount-proc'];
  // An overlay on a file system of memory: what containerd does, without leaving anything.
  const rehearsal =
    'mount -t tmpfs t /mnt && mkdir /mnt/l /mnt/u /mnt/w /mnt/m && mount -t overlay -o lowerdir=/mnt/l,upperdir=/mnt/u,workdir=/mnt/w o /mnt/m && ip link add nvlm0 type veth peer name nvlm1 && ip link add nvlm2 type bridge && iptables -t nat -L';
  const { status, stderr } = spawnSync('unshare', [...namespaces, 'sh', '-ec', rehearsal], {
    encoding: 'utf8',
  });
  return status === 0
    ? undefined
    : `the right to make namespaces, overlays, interfaces and packet filter rules (${stderr.trim().split('\n').at(-1)})`;
}
