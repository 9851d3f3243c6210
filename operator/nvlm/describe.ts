/** What is known of a deployment's model: from its status, or from the pods of the Job that reads its configuration. */
import { describeJobName } from '#charts/describe-job.ts';
import type { EngineProps } from '#charts/props.ts';
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import type { KubeObject } from '../kube/resource.ts';
import type { PodObject } from './pod.ts';

export type Described =
  | {
      readonly state: 'known';
      /** The Job that told it. */
      readonly of: string;
      readonly config: unknown;
      readonly weightBytes: number;
    }
  /** The Job has not answered, and may yet. */
  | { readonly state: 'waiting'; readonly of: string; readonly lookAgainMs: number }
  | { readonly state: 'unknown'; readonly of: string; readonly why: string };

const pollMs = 2000;

/** Pure. `job` and `pods` are those of the Job that this model needs; a Job that has not answered by `timeoutMs` is not waited for. */
export function whatIsDescribed(
  deployment: NVLMDeployment,
  props: EngineProps,
  job: KubeObject | undefined,
  pods: readonly PodObject[],
  now: Date,
  timeoutMs: number,
): Described {
  const of = describeJobName(props);
  const { model } = deployment.status ?? {};
  if (model?.of === of && model.config !== undefined && model.weightBytes !== undefined) {
    return { state: 'known', of, config: JSON.parse(model.config), weightBytes: model.weightBytes };
  }
  let why: string | undefined;
  for (const pod of pods) {
    if (pod.metadata.labels?.['job-name'] !== of) continue;
    const ended = pod.status?.containerStatuses?.[0]?.state?.terminated;
    if (ended === undefined) continue;
    const answer = readAnswer(ended.message);
    if (answer?.config !== undefined) {
      return { state: 'known', of, config: answer.config, weightBytes: answer.weightBytes ?? 0 };
    }
    why = answer?.error ?? (ended.message || `the pod ended with exit code ${ended.exitCode}`);
  }
  if (why !== undefined) return { state: 'unknown', of, why: `Job ${of}: ${why}` };
  const madeAt = job?.metadata.creationTimestamp;
  const ageMs = madeAt === undefined ? 0 : now.getTime() - Date.parse(madeAt);
  if (ageMs > timeoutMs) {
    return { state: 'unknown', of, why: `Job ${of} has not answered; its pod tells why` };
  }
  return { state: 'waiting', of, lookAgainMs: Math.min(pollMs, timeoutMs - ageMs + 1) };
}

interface Answer {
  readonly config?: unknown;
  readonly weightBytes?: number;
  readonly error?: string;
}

/** Undefined for what is no answer: the message is of a program, but a cluster is a place where others write too. */
function readAnswer(message: string | undefined): Answer | undefined {
  try {
    const { config, weightBytes, error } = JSON.parse(message ?? '') as Record<string, unknown>;
    return {
      ...(typeof config === 'object' && config !== null && { config }),
      ...(Number.isSafeInteger(weightBytes) && { weightBytes: Number(weightBytes) }),
      ...(typeof error === 'string' && { error }),
    };
  } catch {
    return undefined;
  }
}
