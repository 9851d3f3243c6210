/** The one place where the operator writes `spec.replicas`: between 0 and 1, through the scale subresource. */

import { durationMs } from '#charts/duration.ts';
import { ANNOTATIONS } from '#charts/labels.ts';
import { objectPath } from '../kube/resource.ts';
import { decideZero } from '../scaling/zero.ts';
import { type ControllerContext, NVLM_RESOURCE } from './context.ts';
import type { Observation } from './observe.ts';

const defaultIdleTimeout = '30m';

export interface ScaleOutcome {
  readonly scaledTo?: 0 | 1;
  readonly lookAgainMs?: number;
}

/** Scales when it is time to. Throws KubeError. */
export async function scaleAtZero(
  context: ControllerContext,
  { deployment, rolloutPods, depth, idleMs, now }: Observation,
  fence: AbortSignal,
): Promise<ScaleOutcome> {
  const { spec, metadata, status } = deployment;
  if (spec.autoscaling === undefined) return {};
  const lastActive = Date.parse(status?.lastActiveTime ?? '');
  const ready = rolloutPods.filter((pod) => pod.isReady);
  const readySince = status?.conditions?.find(({ type }) => type === 'EnginesAvailable');
  const idleTimes = [
    idleMs,
    Number.isNaN(lastActive) ? undefined : now.getTime() - lastActive,
    readySince?.status === 'True'
      ? now.getTime() - Date.parse(readySince.lastTransitionTime)
      : undefined,
  ].filter((value) => value !== undefined);
  const decision = decideZero({
    minReplicas: spec.autoscaling.minReplicas,
    replicas: spec.replicas,
    idleTimeoutMs: durationMs(spec.autoscaling.idleTimeout ?? defaultIdleTimeout),
    wake: metadata.annotations?.[ANNOTATIONS.wake],
    lastWake: status?.lastWake,
    waiting: depth.waiting,
    running: depth.running,
    isStale: depth.isStale,
    readyReplicas: readySince?.status === 'True' ? ready.length : 0,
    idleMs: idleTimes.length === 0 ? undefined : Math.min(...idleTimes),
  });
  if (decision === undefined) return {};
  if ('lookAgainMs' in decision) return decision;
  await context.client.request({
    method: 'PATCH',
    path: `${objectPath(NVLM_RESOURCE, metadata.name, metadata.namespace)}/scale`,
    query: { fieldManager: 'nvlm-operator-scale' },
    contentType: 'application/merge-patch+json',
    // Only from the state that was looked at: the HPA or a user may have written since.
    body: {
      metadata: { resourceVersion: metadata.resourceVersion },
      spec: { replicas: decision.scaleTo },
    },
    signal: fence,
  });
  return { scaledTo: decision.scaleTo };
}
