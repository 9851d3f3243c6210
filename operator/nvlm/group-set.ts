/** Writes the LeaderWorkerSet of a deployment whose replicas are groups of pods, and says what is wrong with it. */
import { ANNOTATIONS, FIELD_MANAGER, LABELS } from '#charts/labels.ts';
import { isGrouped, leaderWorkerSet } from '#charts/leader-worker-set.ts';
import type { EngineProps } from '#charts/props.ts';
import { isConflict, isNotFound } from '../kube/errors.ts';
import { type KubeObject, objectPath, resourceOf } from '../kube/resource.ts';
import type { ChildApplier, Drift } from './children.ts';
import type { ControllerContext } from './context.ts';
import type { GroupSet, Observation } from './observe.ts';
import type { PodProblem } from './pod.ts';
import type { Turn } from './turn.ts';

/** A controller that runs sets the status of what it sees within moments. */
const patienceMs = 15_000;

export const groupsOf = (set: GroupSet | undefined): number => set?.spec.replicas ?? 0;

/** Of the pods that it makes; undefined when there is none. */
export function groupRevision(set: GroupSet | undefined): string | undefined {
  const { leaderWorkerTemplate } = (set?.spec ?? {}) as {
    readonly leaderWorkerTemplate?: {
      readonly leaderTemplate?: { readonly metadata?: KubeObject['metadata'] };
    };
  };
  return leaderWorkerTemplate?.leaderTemplate?.metadata?.labels?.[LABELS.revision];
}

/**
 * Brings the LeaderWorkerSet to `groups` groups of the revision, or, where replicas are single pods again, only to the number, and
 * removes it with its last pod. Throws KubeError, NameTakenError, RefusedError.
 */
export async function carryOutGroups(
  context: ControllerContext,
  children: ChildApplier,
  { key, deployment, groupSet, pods, barePods }: Observation,
  groups: number,
  props: EngineProps,
  revision: string,
  turn: Turn,
): Promise<Drift[]> {
  const { uid } = deployment.metadata;
  if (isGrouped(props) && deployment.metadata.deletionTimestamp === undefined) {
    const lasting = groupRevision(groupSet) === revision ? withBudgetOf(groupSet, props) : props;
    const wanted = leaderWorkerSet(lasting, revision, groups);
    return children.apply(key, uid, wanted, deployment.spec.driftPolicy, turn);
  }
  if (groupSet === undefined) return [];
  if (groups < groupsOf(groupSet)) await resize(context, key, groupSet, groups, turn);
  else if (groups === 0 && pods.length === barePods.length) await children.delete(groupSet, turn);
  return [];
}

/** The size of the weights is learned later than the first groups are made, and another start-up budget would replace them all. */
function withBudgetOf(set: GroupSet | undefined, props: EngineProps): EngineProps {
  const { weightsBytes: _, ...others } = props;
  const told = Number(set?.metadata.annotations?.[ANNOTATIONS.weightsBytes]);
  return Number.isNaN(told) ? others : { ...others, weightsBytes: told };
}

async function resize(
  { client, children, expectations }: ControllerContext,
  key: string,
  set: GroupSet,
  replicas: number,
  turn: Turn,
): Promise<void> {
  const { name, namespace, resourceVersion } = set.metadata;
  try {
    const written = await turn.write(() =>
      client.request({
        method: 'PATCH',
        path: objectPath(resourceOf(set), name, namespace),
        query: { fieldManager: FIELD_MANAGER },
        contentType: 'application/merge-patch+json',
        body: { metadata: { resourceVersion }, spec: { replicas } },
        signal: turn.fence,
      }),
    );
    const store = children.get(set.kind);
    if (store !== undefined) expectations.expectWrite(key, store, written as KubeObject);
  } catch (error) {
    // Changed or gone since: the watch brings it here again.
    if (!isConflict(error) && !isNotFound(error)) throw error;
  }
}

/** Milliseconds after which a LeaderWorkerSet that nobody acts on is a problem; undefined when somebody does. */
function untilLate({ groupSet, now }: Observation): number | undefined {
  const { metadata, status } = groupSet ?? {};
  if (metadata === undefined || (status?.conditions?.length ?? 0) > 0) return undefined;
  return patienceMs - (now.getTime() - Date.parse(metadata.creationTimestamp ?? ''));
}

/** What holds groups up that no pod of theirs tells, and when to look again for it. */
export function findGroupProblem(seen: Observation): {
  readonly problem?: PodProblem;
  readonly lookAgainMs?: number;
} {
  const left = untilLate(seen);
  if (left === undefined) return {};
  if (left > 0) return { lookAgainMs: left };
  return {
    problem: {
      reason: 'LeaderWorkerSetMissing',
      message: `LeaderWorkerSet ${seen.groupSet?.metadata.name} is there and nobody acts on it: its controller does not run. Install it or look at its pods, see https://lws.sigs.k8s.io/docs/installation/.`,
    },
  };
}
