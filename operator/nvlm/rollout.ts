/**
 * Which pods to make, drain and delete next. A pure function of what is seen now, and it remembers nothing: after a crash, a restart
 * or an edit in mid-rollout it goes on from the cluster alone. Availability is counted over the pods of all revisions, so that
 * going back in mid-rollout cannot take serving pods away.
 */

export interface RolloutPod {
  readonly name: string;
  readonly revision: string;
  /** Ready by its own probe. */
  readonly isReady: boolean;
  /** Taken out of the Service, finishing its streams. */
  readonly isDraining: boolean;
  /** Being deleted: it holds its GPUs until it is gone. */
  readonly isTerminating: boolean;
  /** Ended, and will not start again: Failed, Succeeded, evicted. */
  readonly hasFailed: boolean;
  /** Requests in it; undefined when it did not say lately. */
  readonly inFlight: number | undefined;
  /** How long it has been draining. */
  readonly drainingMs: number;
  readonly createdAtMs: number;
}

export interface RolloutInput {
  readonly pods: readonly RolloutPod[];
  readonly wanted: number;
  readonly currentRevision: string;
  readonly maxSurge: number;
  readonly maxUnavailable: number;
  readonly drainTimeoutMs: number;
  /** A pod drains at least so long: requests that were on their way to it need the time. */
  readonly minDrainMs: number;
}

export interface RolloutPlan {
  /** Pods of the current revision to make. */
  readonly create: number;
  /** Serving pods to take out of the Service. */
  readonly drain: readonly string[];
  /** Draining pods to put back: they are needed after all. */
  readonly undrain: readonly string[];
  readonly delete: readonly string[];
}

export const isServing = (pod: RolloutPod): boolean => pod.isReady && !pod.isDraining;
/** Whether it may go now. */
export const hasDrained = (
  pod: RolloutPod,
  { drainTimeoutMs, minDrainMs }: Pick<RolloutInput, 'drainTimeoutMs' | 'minDrainMs'>,
): boolean =>
  !pod.isReady ||
  pod.drainingMs >= drainTimeoutMs ||
  (pod.inFlight === 0 && pod.drainingMs >= minDrainMs);

/** Pods that go first: those that serve nobody, then the idlest, then the youngest. */
const byCostOfLoss = (a: RolloutPod, b: RolloutPod): number =>
  Number(isServing(a)) - Number(isServing(b)) ||
  (a.inFlight ?? 0) - (b.inFlight ?? 0) ||
  b.createdAtMs - a.createdAtMs ||
  (a.name < b.name ? -1 : 1);

/** Ready pods that drain and are worth more than new ones, the busiest first. */
function findReturning(
  draining: readonly RolloutPod[],
  staying: readonly RolloutPod[],
  { wanted, currentRevision, maxUnavailable }: RolloutInput,
): RolloutPod[] {
  const ready = draining.filter((pod) => pod.isReady).sort((a, b) => -byCostOfLoss(a, b));
  const upToDate = staying.filter((pod) => pod.revision === currentRevision).length;
  // A scale-up, or an edit back to the revision that was being drained.
  const returning = ready
    .filter((pod) => pod.revision === currentRevision)
    .slice(0, Math.max(0, wanted - upToDate));
  const serving = staying.filter(isServing).length + returning.length;
  // Too few serve, for instance because new pods broke: old ones stand in for them.
  const standIns = ready
    .filter((pod) => pod.revision !== currentRevision)
    .slice(0, Math.max(0, wanted - maxUnavailable - serving));
  return [...returning, ...standIns];
}

/**
 * Holds, whenever it is followed: serving pods never fall below `wanted - maxUnavailable` by our doing, and pods that hold GPUs
 * never rise above `wanted + maxSurge`.
 */
export function planRollout(input: RolloutInput): RolloutPlan {
  const { pods, wanted, currentRevision, maxSurge, maxUnavailable } = input;
  const failed = pods.filter((pod) => pod.hasFailed && !pod.isTerminating);
  const live = pods.filter((pod) => !pod.hasFailed && !pod.isTerminating);
  const terminating = pods.length - failed.length - live.length;
  const draining = live.filter((pod) => pod.isDraining);
  const staying = live.filter((pod) => !pod.isDraining);
  const returning = findReturning(draining, staying, input);
  const leaving = draining.filter((pod) => !returning.includes(pod));

  const kept = [...staying, ...returning.map((pod) => ({ ...pod, isDraining: false }))].sort(
    byCostOfLoss,
  );
  const upToDate = kept.filter((pod) => pod.revision === currentRevision);
  const outdated = kept.filter((pod) => pod.revision !== currentRevision);
  let spareServing = kept.filter(isServing).length - Math.max(0, wanted - maxUnavailable);
  const letGo = new Set<RolloutPod>();
  const takeFrom = (candidates: readonly RolloutPod[], count: number): void => {
    let left = count;
    for (const pod of candidates) {
      if (left <= 0) return;
      if (letGo.has(pod)) continue;
      if (isServing(pod)) {
        if (spareServing <= 0) return;
        spareServing--;
      }
      letGo.add(pod);
      left--;
    }
  };

  takeFrom(upToDate, upToDate.length - wanted);
  // An old pod stands in for each new one that does not serve yet.
  takeFrom(outdated, outdated.length - Math.max(0, wanted - upToDate.filter(isServing).length));

  // GPUs of pods that drain or terminate are not free yet.
  const holding = live.length + terminating;
  const lacking = Math.max(0, wanted - upToDate.length);
  const create = Math.min(lacking, Math.max(0, wanted + maxSurge - holding));
  // The other new pods need room: old ones are taken out, as far as the availability allows.
  takeFrom(outdated, lacking - create - letGo.size - leaving.length - terminating);

  const idle = [...letGo].filter((pod) => !isServing(pod));
  return {
    create,
    drain: [...letGo].filter(isServing).map((pod) => pod.name),
    undrain: returning
      .filter((pod) => ![...letGo].some(({ name }) => name === pod.name))
      .map((pod) => pod.name),
    delete: [...failed, ...leaving.filter((pod) => hasDrained(pod, input)), ...idle].map(
      (pod) => pod.name,
    ),
  };
}
