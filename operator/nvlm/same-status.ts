/** Whether a status says anything new. */
import type { ConditionType } from '#crds/conditions.ts';
import type { NVLMDeploymentStatus } from '#crds/nvlm-deployment.ts';

/** Equal but for the times that would be new: such a status is not written. */
export function isSameStatus(
  a: NVLMDeploymentStatus | undefined,
  b: NVLMDeploymentStatus,
): boolean {
  return a !== undefined && isSame(a, b);
}

/** Equal but for how counts and figures of load go on, and the words that tell them: nobody waits for each step of those. */
export function hasSameHeadline(
  a: NVLMDeploymentStatus | undefined,
  b: NVLMDeploymentStatus,
): boolean {
  return a !== undefined && isSame(headline(a), headline(b));
}

/** Their messages tell how many replicas do what, or how far a model is. */
const counting: ReadonlySet<ConditionType> = new Set([
  'EnginesAvailable',
  'Progressing',
  'Drained',
  'ModelCached',
  'Ready',
]);

function headline(status: NVLMDeploymentStatus) {
  const { observedGeneration, phase, reason, currentRevision, selector, lastWake } = status;
  const { capacity, model, coldStart, conditions = [] } = status;
  return {
    ...{ observedGeneration, phase, reason, currentRevision, selector, lastWake },
    ...{ capacity, model, coldStart },
    conditions: conditions.map(({ message, lastTransitionTime: _, ...condition }) => ({
      ...condition,
      message: counting.has(condition.type) ? '' : message,
    })),
  };
}

const isSame = (a: unknown, b: unknown): boolean =>
  JSON.stringify(sorted(a)) === JSON.stringify(sorted(b));

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
