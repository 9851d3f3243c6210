/** Whether a status says anything new. */
import type { NVLMDeploymentStatus } from '#crds/nvlm-deployment.ts';

/** Equal but for the times that would be new: such a status is not written. */
export function isSameStatus(
  a: NVLMDeploymentStatus | undefined,
  b: NVLMDeploymentStatus,
): boolean {
  return a !== undefined && JSON.stringify(sorted(a)) === JSON.stringify(sorted(b));
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) {
    const items = value.map(sorted);
    const hasTypes = items.every((item) => typeof (item as { type?: unknown })?.type === 'string');
    return hasTypes
      ? items.sort((a, b) => ((a as { type: string }).type < (b as { type: string }).type ? -1 : 1))
      : items;
  }
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([key, child]) => [key, sorted(child)]),
  );
}
