/** A pod as the API server tells it, and what it means for its replica. */
import { ANNOTATIONS, LABELS } from '#charts/labels.ts';
import type { KubeObject, ObjectCondition } from '../kube/resource.ts';
import { findUnusableCache } from './pod-cache.ts';
import { findEmptySecret, findMissingVariable } from './pod-secrets.ts';
import type { RolloutPod } from './rollout.ts';

interface ContainerState {
  readonly waiting?: { readonly reason?: string; readonly message?: string };
  readonly running?: { readonly startedAt?: string };
  readonly terminated?: {
    readonly reason?: string;
    readonly exitCode?: number;
    readonly message?: string;
  };
}

export interface PodObject extends KubeObject {
  readonly spec: { readonly nodeName?: string; readonly [field: string]: unknown };
  readonly status?: {
    readonly phase?: 'Pending' | 'Running' | 'Succeeded' | 'Failed' | 'Unknown';
    readonly reason?: string;
    readonly message?: string;
    readonly podIP?: string;
    readonly conditions?: readonly ObjectCondition[];
    readonly containerStatuses?: readonly {
      readonly name: string;
      readonly ready?: boolean;
      readonly restartCount?: number;
      readonly state?: ContainerState;
      readonly lastState?: ContainerState;
    }[];
  };
}

export const podCondition = (pod: PodObject, type: string) =>
  pod.status?.conditions?.find((condition) => condition.type === type);

export const isPodReady = (pod: PodObject): boolean =>
  podCondition(pod, 'Ready')?.status === 'True';

export function toRolloutPod(pod: PodObject, inFlight: number | undefined, now: Date): RolloutPod {
  const {
    name,
    labels = {},
    annotations = {},
    deletionTimestamp,
    creationTimestamp,
  } = pod.metadata;
  const since = Date.parse(annotations[ANNOTATIONS.drainingSince] ?? '');
  return {
    name,
    revision: labels[LABELS.revision] ?? '',
    isReady: isPodReady(pod),
    isDraining: labels[LABELS.traffic] === 'draining',
    isTerminating: deletionTimestamp !== undefined,
    hasFailed: pod.status?.phase === 'Failed' || pod.status?.phase === 'Succeeded',
    inFlight,
    drainingMs: Number.isNaN(since) ? 0 : Math.max(0, now.getTime() - since),
    createdAtMs: Date.parse(creationTimestamp ?? '') || 0,
  };
}

export type PodProblemReason =
  | 'Unschedulable'
  | 'ImagePull'
  | 'OutOfMemory'
  | 'CrashLoop'
  | 'NotReady'
  | 'SecretMissing'
  | 'CacheUnusable'
  | 'LeaderWorkerSetMissing'
  | 'InvalidTemplate';
export interface PodProblem {
  readonly reason: PodProblemReason;
  /** Names the pod, what it reports, and what to do. */
  readonly message: string;
}

/** Why a pod does not serve; undefined when it does, or is only starting. */
export function findProblem(pod: PodObject): PodProblem | undefined {
  if (pod.metadata.deletionTimestamp !== undefined || isPodReady(pod)) return undefined;
  const { name } = pod.metadata;
  const scheduled = podCondition(pod, 'PodScheduled');
  if (scheduled?.status === 'False') {
    return {
      reason: 'Unschedulable',
      message: `Pod ${name} finds no node: ${scheduled.message ?? scheduled.reason ?? 'unknown reason'}. Free GPUs, add nodes, or change spec.accelerator or spec.parallelism.tensor.`,
    };
  }
  for (const { state = {}, lastState = {}, restartCount = 0 } of pod.status?.containerStatuses ??
    []) {
    const waiting = state.waiting?.reason ?? '';
    if (/ImagePull|ErrImage|InvalidImageName/.test(waiting)) {
      return {
        reason: 'ImagePull',
        message: `Pod ${name}: ${waiting}: ${state.waiting?.message ?? 'no message'}. Check the engine image and the pull secrets.`,
      };
    }
    const detail = state.waiting?.message ?? '';
    const ended = state.terminated ?? lastState.terminated;
    const lastWords = (!state.running && ended?.message) || '';
    const missing =
      waiting === 'CreateContainerConfigError'
        ? findMissingVariable(pod, detail)
        : findEmptySecret(pod, lastWords);
    if (missing !== undefined) return { reason: 'SecretMissing', message: missing };
    const unusable = findUnusableCache(pod, lastWords);
    if (unusable !== undefined) return { reason: 'CacheUnusable', message: unusable };
    if (waiting === 'CreateContainerConfigError' || waiting === 'CreateContainerError') {
      return {
        reason: 'InvalidTemplate',
        message: `Pod ${name}: ${waiting}: ${state.waiting?.message}`,
      };
    }
    if (ended?.reason === 'OOMKilled' && !state.running) {
      return {
        reason: 'OutOfMemory',
        message: `Pod ${name} was killed for its memory ${restartCount} times. Lower spec.batchPolicy.maxSequences or spec.model.maxModelLength, or raise the memory limit in spec.template.`,
      };
    }
    if (waiting === 'CrashLoopBackOff' || (restartCount >= 3 && !state.running)) {
      const last = ended?.message?.trim() ?? `exit code ${ended?.exitCode ?? 'unknown'}`;
      return {
        reason: 'CrashLoop',
        message: `Pod ${name} ended ${restartCount} times, last with: ${last.slice(-400)}. See kubectl logs ${name} --previous.`,
      };
    }
  }
  if (pod.status?.phase === 'Failed') {
    return {
      reason: 'CrashLoop',
      message: `Pod ${name} failed: ${pod.status.reason ?? ''} ${pod.status.message ?? ''}`.trim(),
    };
  }
  return undefined;
}
