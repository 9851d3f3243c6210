/**
 * The one place where the operator writes `spec.replicas`, through the scale subresource: between 0 and 1, and above it only where no HPA
 * can read the queue depth.
 */

import { durationMs } from '#charts/duration.ts';
import { ANNOTATIONS } from '#charts/labels.ts';
import { objectPath } from '../kube/resource.ts';
import type { OwnScaler } from '../scaling/own.ts';
import { decideZero } from '../scaling/zero.ts';
import { type ControllerContext, NVLM_RESOURCE, scalesItself } from './context.ts';
import type { Observation } from './observe.ts';

const defaultIdleTimeout = '30m';

const defaultStabilizationSeconds = 600;
const ownPeriodMs = 2000;

export interface ScaleOutcome {
  readonly scaledTo?: number;
  readonly lookAgainMs?: number;
}

/** Scales when it is time to. Throws KubeError. */
export async function scale(
  context: ControllerContext,
  own: OwnScaler,
  seen: Observation,
  fence: AbortSignal,
): Promise<ScaleOutcome> {
  const atZero = await scaleAtZero(context, seen, fence);
  const { spec } = seen.deployment;
  const isOwn = spec.autoscaling !== undefined && scalesItself(context.metricsState());
  if (atZero.scaledTo !== undefined || spec.replicas === 0 || !isOwn) return atZero;
  const { targetQueueDepth, minReplicas, maxReplicas, behavior } = spec.autoscaling;
  const window = behavior?.scaleDown?.stabilizationWindowSeconds ?? defaultStabilizationSeconds;
  const wanted = own.decide({
    key: seen.key,
    replicas: spec.replicas,
    waiting: seen.depth.waiting,
    isStale: seen.depth.isStale,
    target: targetQueueDepth,
    minReplicas,
    maxReplicas,
    stabilizationMs: window * 1000,
  });
  const lookAgainMs = Math.min(atZero.lookAgainMs ?? ownPeriodMs, ownPeriodMs);
  if (wanted === undefined) return { lookAgainMs };
  await writeReplicas(context, seen, wanted, fence);
  return { scaledTo: wanted, lookAgainMs };
}

async function scaleAtZero(
  context: ControllerContext,
  seen: Observation,
  fence: AbortSignal,
): Promise<ScaleOutcome> {
  const { deployment, rolloutPods, depth, idleMs, now } = seen;
  const { spec, metadata, status } = deployment;
  if (spec.autoscaling === undefined) return {};
  const lastActive = Date.parse(status?.lastActiveTime ?? '');
  const ready = rolloutPods.filter((pod) => pod.isReady);
  const wake = metadata.annotations?.[ANNOTATIONS.wake];
  // Its value is noted in the status with this look: the next one counts the idle time from here.
  if (wake !== undefined && wake !== status?.lastWake && spec.replicas > 0) {
    context.depths.touch(seen.key);
  }
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
    wake,
    lastWake: status?.lastWake,
    waiting: depth.waiting,
    running: depth.running,
    isStale: depth.isStale,
    readyReplicas: readySince?.status === 'True' ? ready.length : 0,
    idleMs: idleTimes.length === 0 ? undefined : Math.min(...idleTimes),
  });
  if (decision === undefined) return {};
  if ('lookAgainMs' in decision) return decision;
  await writeReplicas(context, seen, decision.scaleTo, fence);
  return { scaledTo: decision.scaleTo };
}

async function writeReplicas(
  { client }: ControllerContext,
  { deployment: { metadata } }: Observation,
  replicas: number,
  fence: AbortSignal,
): Promise<void> {
  await client.request({
    method: 'PATCH',
    path: `${objectPath(NVLM_RESOURCE, metadata.name, metadata.namespace)}/scale`,
    query: { fieldManager: 'nvlm-operator-scale' },
    contentType: 'application/merge-patch+json',
    // Only from the state that was looked at: the HPA or a user may have written since.
    body: { metadata: { resourceVersion: metadata.resourceVersion }, spec: { replicas } },
    signal: fence,
  });
}
