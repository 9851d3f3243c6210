/** How long the newest replica took from its creation to its first readiness: scheduling, image, model and weights together. */
import { LABELS, WORKER_NAME } from '#charts/labels.ts';
import type { ColdStartStatus } from '#crds/nvlm-deployment.ts';
import { isPodReady, type PodObject, podCondition } from './pod.ts';

/** Pure. What was told stays until a younger pod is ready: a pod that loses its readiness and finds it again has not started anew. */
export function coldStartOf(
  pods: readonly PodObject[],
  before: ColdStartStatus | undefined,
): ColdStartStatus | undefined {
  let newest = before;
  for (const pod of pods) {
    if (pod.metadata.labels?.[LABELS.name] === WORKER_NAME) continue;
    const { name, creationTimestamp = '', deletionTimestamp } = pod.metadata;
    const readyAt = Date.parse(podCondition(pod, 'Ready')?.lastTransitionTime ?? '');
    const seconds = Math.round((readyAt - Date.parse(creationTimestamp)) / 1000);
    if (!isPodReady(pod) || deletionTimestamp !== undefined || Number.isNaN(seconds)) continue;
    // After a restart the pod's age is not what a start takes.
    if (pod.status?.containerStatuses?.some(({ restartCount = 0 }) => restartCount > 0)) continue;
    const isYounger = newest === undefined || creationTimestamp > newest.startedAt;
    if (!isYounger) continue;
    newest = {
      pod: name,
      startedAt: creationTimestamp,
      seconds: Math.max(0, seconds),
      duration: durationText(Math.max(0, seconds)),
    };
  }
  return newest;
}

/** `41s`, `3m12s`, `1h4m`: as kubectl writes ages. */
export function durationText(seconds: number): string {
  if (seconds < 60) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return seconds % 60 === 0 ? `${minutes}m` : `${minutes}m${seconds % 60}s`;
  return minutes % 60 === 0
    ? `${Math.floor(minutes / 60)}h`
    : `${Math.floor(minutes / 60)}h${minutes % 60}m`;
}
