/** Reads the world as far as one NVLMDeployment goes: from the stores, without asking the API server. */
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import { type KubeObject, keyOf } from '../kube/resource.ts';
import type { Depth } from '../scaling/depth.ts';
import type { EngineLoading } from '../scaling/scrape.ts';
import type { ControllerContext } from './context.ts';
import { type PodObject, toRolloutPod } from './pod.ts';
import type { RolloutPod } from './rollout.ts';

export interface Observation {
  readonly key: string;
  readonly deployment: NVLMDeployment & KubeObject;
  /** Engine pods, those of older revisions and those being deleted too. */
  readonly pods: readonly PodObject[];
  readonly rolloutPods: readonly RolloutPod[];
  readonly depth: Depth;
  /** Keys of pods that are loading their model. */
  readonly loading: ReadonlyMap<string, EngineLoading>;
  /** Since a request was last seen by this process. */
  readonly idleMs: number | undefined;
  readonly now: Date;
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
  const pods = context.pods.by('owner', deployment.metadata.uid);
  return {
    key,
    deployment,
    pods,
    rolloutPods: pods
      .filter((pod) => !isLost(pod, now))
      .map((pod) => {
        const figures = context.depths.podFigures(key, keyOf(pod));
        const inFlight =
          figures === undefined || figures.isStale ? undefined : figures.waiting + figures.running;
        return toRolloutPod(pod, inFlight, now);
      }),
    depth: context.depths.depthOf(key),
    loading: context.depths.loadingOf(key),
    idleMs: context.depths.idleMs(key),
    now,
  };
}
