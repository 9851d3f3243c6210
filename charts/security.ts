/** What no container of ours needs, it does not get: the rights of the restricted Pod Security Standard, on a read-only file system. */

/** The user of our images. */
const user = 65532;

export const POD_SECURITY = {
  runAsNonRoot: true,
  runAsUser: user,
  runAsGroup: user,
  seccompProfile: { type: 'RuntimeDefault' },
} as const;

/** Of pods that write to volumes. */
export const VOLUME_SECURITY = { ...POD_SECURITY, fsGroup: user } as const;

export const CONTAINER_SECURITY = {
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  capabilities: { drop: ['ALL'] },
} as const;
