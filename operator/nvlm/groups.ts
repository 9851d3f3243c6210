/**
 * How many groups there are to be next, and which leaders drain. The LeaderWorkerSet controller makes, replaces and removes groups, and
 * always removes those of the highest index; so a group that is to go drains first, and the number is lowered when it has. A pure
 * function of what is seen now, like the rollout of bare pods, which it uses where an edit turns the one into the other.
 */
import {
  hasDrained,
  isServing,
  planRollout,
  type RolloutInput,
  type RolloutPlan,
  type RolloutPod,
} from './rollout.ts';

/** The pod of a group that answers for it. */
export interface Leader {
  readonly index: number;
  readonly pod: RolloutPod;
}

export interface GroupsInput extends RolloutInput {
  /** `pods` are those without a group. */
  readonly leaders: readonly Leader[];
  /** `spec.replicas` of the LeaderWorkerSet; 0 when there is none. */
  readonly groups: number;
  /** Whether replicas are to be groups. */
  readonly isGrouped: boolean;
}

export interface GroupsPlan extends RolloutPlan {
  /** `spec.replicas` that the LeaderWorkerSet is to have. `drain` and `undrain` name leaders as well as other pods. */
  readonly groups: number;
}

/**
 * Lowers the number of groups to `keep` as far as those above have drained, of which `mayDrain` may begin to now, and takes those below
 * in again.
 */
function shrink(
  keep: number,
  mayDrain: number,
  { leaders, groups, drainTimeoutMs, minDrainMs }: GroupsInput,
): Pick<GroupsPlan, 'groups' | 'drain' | 'undrain'> {
  const live = leaders.filter(({ index, pod }) => index < groups && !pod.isTerminating);
  const leaving = live.filter(({ index }) => index >= keep);
  const holding = leaving
    .filter(
      ({ pod }) =>
        pod.isReady && !(pod.isDraining && hasDrained(pod, { drainTimeoutMs, minDrainMs })),
    )
    .map(({ index }) => index);
  return {
    groups: Math.max(keep, ...holding.map((index) => index + 1)),
    drain: leaving
      .filter(({ pod }) => isServing(pod))
      .sort((a, b) => b.index - a.index)
      .slice(0, mayDrain)
      .map(({ pod }) => pod.name),
    undrain: live
      .filter(({ index, pod }) => index < keep && pod.isDraining)
      .map(({ pod }) => pod.name),
  };
}

/** Every group that the controller was told to have, those without a leader at the moment too. */
function asPods({ leaders, groups, currentRevision, isGrouped }: GroupsInput): RolloutPod[] {
  const byIndex = new Map(leaders.map(({ index, pod }) => [index, pod]));
  const told = Array.from({ length: groups }, (_, index): RolloutPod => {
    const pod = byIndex.get(index);
    return {
      ...(pod ?? {
        name: `group ${index}`,
        isReady: false,
        isDraining: false,
        hasFailed: false,
        inFlight: undefined,
        drainingMs: 0,
        createdAtMs: 0,
      }),
      // The controller makes it again in its place.
      isTerminating: false,
      revision: isGrouped ? currentRevision : (pod?.revision ?? ''),
    };
  });
  const beyond = leaders.filter(({ index }) => index >= groups);
  return [...told, ...beyond.map(({ pod }) => ({ ...pod, isTerminating: true }))];
}

export function planGroups(input: GroupsInput): GroupsPlan {
  const { pods, wanted, groups, leaders, isGrouped, maxUnavailable } = input;
  if (groups === 0 && leaders.length === 0 && !isGrouped) {
    return { ...planRollout(input), groups: 0 };
  }
  const bare = new Set(pods.map(({ name }) => name));
  const stands = asPods(input);
  const plan = planRollout({ ...input, pods: [...pods, ...stands] });
  const own = {
    create: isGrouped ? 0 : plan.create,
    drain: plan.drain.filter((name) => bare.has(name)),
    undrain: plan.undrain.filter((name) => bare.has(name)),
    delete: plan.delete.filter((name) => bare.has(name)),
  };
  // The last groups go, also where those that stay do not serve: not more of them than the others can be without.
  const serving = [...pods, ...leaders.map(({ pod }) => pod)].filter(
    (pod) => isServing(pod) && !pod.isTerminating && !pod.hasFailed,
  ).length;
  const needed = Math.max(0, wanted - maxUnavailable);
  const shrunk = shrink(
    isGrouped ? Math.min(wanted, groups) : groups - leaving(plan, stands),
    Math.max(0, serving - own.drain.length - needed),
    input,
  );
  // While pods without a group are there, groups come as those make room; else the controller may have the number at once.
  const more = pods.length > 0 ? groups + plan.create : wanted;
  return {
    ...own,
    drain: [...own.drain, ...shrunk.drain],
    undrain: [...own.undrain, ...shrunk.undrain],
    groups: isGrouped && wanted > groups ? more : shrunk.groups,
  };
}

/** How many groups a rollout lets go. Which ones does not matter: the controller takes the last. */
function leaving(plan: RolloutPlan, stands: readonly RolloutPod[]): number {
  const returning = new Set(plan.undrain);
  const going = new Set([...plan.drain, ...plan.delete]);
  return stands.filter(
    ({ name, isDraining, isTerminating }) =>
      !isTerminating && (going.has(name) || (isDraining && !returning.has(name))),
  ).length;
}
