/** Reads the world as far as one NVLMDeployment goes: from the stores, without asking the API server. */
import { GROUP_LABELS, LABELS } from '#charts/labels.ts';
import { groupSetName } from '#charts/leader-worker-set.ts';
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import { type KubeObject, keyOf } from '../kube/resource.ts';
import type { Depth } from '../scaling/depth.ts';
import type { EngineLoading } from '../scaling/scrape.ts';
import type { ControllerContext } from './context.ts';
import type { Leader } from './groups.ts';
import { type PodObject, toRolloutPod } from './pod.ts';
import type { RolloutPod } from './rollout.ts';
import { hasReadyEndpoint } from './route.ts';

export interface Observation {
  readonly key: string;
  readonly deployment: NVLMDeployment & KubeObject;
  /** Engine pods, those of older revisions and those being deleted too, and all of groups. */
  readonly pods: readonly PodObject[];
  /** One a replica: pods without a group, and leaders. */
  readonly rolloutPods: readonly RolloutPod[];
  readonly barePods: readonly RolloutPod[];
  readonly leaders: readonly Leader[];
  /** Ours, if there is one. */
  readonly groupSet: GroupSet | undefined;
  readonly depth: Depth;
  readonly tokensPerSecond: number | undefined;
  /** The Service leads to an engine. */
  readonly hasRoute: boolean;
  /** Keys of pods that are loading their model. */
  readonly loading: ReadonlyMap<string, EngineLoading>;
  /** Since a request was last seen by this process. */
  readonly idleMs: number | undefined;
  readonly now: Date;
}

export interface GroupSet extends KubeObject {
  readonly spec: { readonly replicas?: number; readonly [field: string]: unknown };
  readonly status?: { readonly conditions?: readonly object[] };
}

/** A pod whose deletion is so long overdue is on a node that is gone: its GPUs are not coming back, and nobody waits for them. */
const lostAfterMs = 30_000;

const isLost = ({ metadata }: PodObject, now: Date): boolean =>
  metadata.deletionTimestamp !== undefined &&
  now.getTime() - Date.parse(metadata.deletionTimestamp) > lostAfterMs;

/** Undefined when the NVLMDeployment is gone. */
export function observe(context: ControllerContext, key: string): Observation | undefined {
  const deployment = context.deployments.get(key);
  if (deployment === undefined) return undefined;
  const now = context.now();
  const bare = context.pods.by('owner', deployment.metadata.uid);
  const groupSet = groupSetOf(context, deployment);
  const grouped = context.pods.by('group', key);
  const toRollout = (pod: PodObject): RolloutPod => {
    const figures = context.depths.podFigures(key, keyOf(pod));
    const inFlight =
      figures === undefined || figures.isStale ? undefined : figures.waiting + figures.running;
    const seen = toRolloutPod(pod, inFlight, now);
    // From before it was taken out of the Service: requests may have come since.
    const isOld = seen.isDraining && (figures?.ageMs ?? 0) >= seen.drainingMs;
    return isOld ? { ...seen, inFlight: undefined } : seen;
  };
  const isThere = (pod: PodObject): boolean => !isLost(pod, now);
  const barePods = bare.filter(isThere).map(toRollout);
  const leaders = grouped
    .filter((pod) => isThere(pod) && pod.metadata.labels?.[GROUP_LABELS.worker] === '0')
    .map((pod) => ({
      // Its ordinal, which the controller's webhook writes to a label as well.
      index: Number(/-(\d+)$/.exec(pod.metadata.name)?.[1]),
      pod: toRollout(pod),
    }));
  return {
    key,
    deployment,
    pods: [...bare, ...grouped],
    rolloutPods: [...barePods, ...leaders.map(({ pod }) => pod)],
    barePods,
    leaders,
    groupSet,
    depth: context.depths.depthOf(key),
    tokensPerSecond: context.depths.tokensPerSecond(key),
    hasRoute: context.endpointSlices.by('service', key).some(hasReadyEndpoint),
    loading: context.depths.loadingOf(key),
    idleMs: context.depths.idleMs(key),
    now,
  };
}

/** Undefined also when somebody else made one of its name. */
function groupSetOf(
  { children }: ControllerContext,
  { metadata: { name, namespace, uid } }: NVLMDeployment,
): GroupSet | undefined {
  const found = children.get('LeaderWorkerSet')?.get(`${namespace}/${groupSetName(name)}`);
  const isOurs = found?.metadata.ownerReferences?.some((owner) => owner.uid === uid) ?? false;
  return isOurs ? (found as GroupSet) : undefined;
}

/** Key of the NVLMDeployment whose group a pod is in: its owner is a StatefulSet of the LeaderWorkerSet controller. */
export function groupIndex({ metadata: { namespace, labels } }: KubeObject): string[] {
  const name = labels?.[LABELS.deployment];
  if (name === undefined || labels?.[GROUP_LABELS.set] !== groupSetName(name)) return [];
  return [`${namespace}/${name}`];
}
