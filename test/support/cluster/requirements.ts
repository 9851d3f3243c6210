/** Why tests on a real control plane or a real node are skipped, or false. Under CI nothing is skipped: what is missing fails the test. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { findGo } from '../../../scripts/cluster/build.mjs';
import { findPlugins } from './node.ts';
import { missingForSubnets } from './subnet.ts';

export function noCluster(): string | false {
  if (process.env.CI) return false;
  if (findGo() === undefined)
    return 'no Go to build the control plane with; install Go 1.25 or later';
  const missing = missingForSubnets();
  return missing === undefined ? false : `fake pods need ${missing}`;
}

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

/** Without root there is no node, under CI either. */
export function noNode(): string | false {
  if (process.env.CI && process.getuid?.() === 0) return false;
  const missing = missingForNode();
  return missing === undefined ? false : `a real node needs ${missing}`;
}
