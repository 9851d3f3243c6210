/** Configuration files of a real node: all paths are below its folder. */
import { join } from 'node:path';
import type { NodeNetwork } from './node-network.ts';

export const PAUSE_IMAGE = 'localhost/pause:1';

/** Of containerd 1.6 and later (version 2 of the format). `bin` are the CNI plugins. */
export function containerdConfig(folder: string, { runc, cni }: { runc: string; cni: string }) {
  const text = (value: string): string => JSON.stringify(value);
  const plugin = '[plugins."io.containerd.grpc.v1.cri"';
  return `version = 2
root = ${text(join(folder, 'containerd'))}
state = ${text(join(folder, 'run/containerd'))}
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[grpc]
  address = ${text(join(folder, 'run/containerd.sock'))}
${plugin}]
  sandbox_image = ${text(PAUSE_IMAGE)}
  # Without CAP_SYS_RESOURCE the score cannot be lowered, and runc ends with "can't get final child's PID from pipe: EOF".
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
${plugin}.cni]
  bin_dir = ${text(cni)}
  conf_dir = ${text(join(folder, 'cni'))}
${plugin}.containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"
${plugin}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
${plugin}.containerd.runtimes.runc.options]
  BinaryName = ${text(runc)}
  SystemdCgroup = false
`;
}

/** One bridge; pods keep their addresses on the way out, the host has a route back. */
export const cniConfig = (folder: string, { podCidr }: NodeNetwork) => ({
  cniVersion: '1.0.0',
  name: 'pods',
  plugins: [
    {
      type: 'bridge',
      bridge: 'cni0',
      isGateway: true,
      hairpinMode: true,
      ipam: {
        type: 'host-local',
        dataDir: join(folder, 'addresses'),
        ranges: [[{ subnet: podCidr }]],
        routes: [{ dst: '0.0.0.0/0' }],
      },
    },
    { type: 'portmap', capabilities: { portMappings: true } },
  ],
});

export interface KubeletFiles {
  readonly authority: string;
  readonly certificate: string;
  readonly key: string;
}

export const kubeletConfig = (
  folder: string,
  cgroupRoot: string,
  { authority, certificate, key }: KubeletFiles,
) => ({
  apiVersion: 'kubelet.config.k8s.io/v1beta1',
  kind: 'KubeletConfiguration',
  authentication: {
    anonymous: { enabled: false },
    webhook: { enabled: true },
    x509: { clientCAFile: authority },
  },
  authorization: { mode: 'Webhook' },
  tlsCertFile: certificate,
  tlsPrivateKeyFile: key,
  containerRuntimeEndpoint: `unix://${join(folder, 'run/containerd.sock')}`,
  cgroupDriver: 'cgroupfs',
  cgroupRoot,
  failCgroupV1: false,
  failSwapOn: false,
  podLogsDir: join(folder, 'pod-logs'),
  volumePluginDir: join(folder, 'kubelet/plugins-of-volumes'),
  resolvConf: join(folder, 'resolv.conf'),
  // Images cannot be pulled again, and this machine's disk may be fuller than a node's.
  imageGCHighThresholdPercent: 100,
  imageGCLowThresholdPercent: 99,
  evictionHard: {
    'memory.available': '100Mi',
    'nodefs.available': '1%',
    'nodefs.inodesFree': '1%',
    'imagefs.available': '1%',
  },
  nodeStatusUpdateFrequency: '5s',
  // Services and endpoints here change by the second.
  syncFrequency: '5s',
});
