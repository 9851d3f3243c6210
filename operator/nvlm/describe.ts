/** What is known of a deployment's model: from its status, or from the pods of the Job that reads its configuration. */
import { describeJobName } from '#charts/describe-job.ts';
import type { EngineProps } from '#charts/props.ts';
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import type { KubeObject } from '../kube/resource.ts';
import { findProblem, type PodObject, type PodProblem } from './pod.ts';

export type Described =
  | {
      readonly state: 'known';
      /** The Job that told it. */
      readonly of: string;
      /** The status has it too, so the Job is needed no more. */
      readonly isRemembered: boolean;
      readonly config: unknown;
      readonly weightBytes: number;
      /** See ENGINE_FEATURES; absent when the engine told none. */
      readonly features?: readonly string[];
    }
  /** The Job has not answered, and may yet. */
  | {
      readonly state: 'waiting';
      readonly of: string;
      /** Undefined: until its pod changes. */
      readonly lookAgainMs?: number;
      /** What holds its pod up. */
      readonly problem?: PodProblem;
    }
  | {
      readonly state: 'unknown';
      readonly of: string;
      readonly why: string;
      /** Of an engine that answered, but could not read the model. */
      readonly features?: readonly string[];
    };

const pollMs = 2000;
/** Of a Job's pod that engines of the same image and Secrets have too. */
const sharedProblems: ReadonlySet<PodProblem['reason']> = new Set(['SecretMissing', 'ImagePull']);
/** As many as the status keeps. */
const maxFeatures = 16;

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
    const { config, weightBytes, features } = model;
    return {
      state: 'known',
      of,
      isRemembered: true,
      config: JSON.parse(config),
      weightBytes,
      ...(features !== undefined && { features }),
    };
  }
  let why: string | undefined;
  let told: readonly string[] | undefined;
  let problem: PodProblem | undefined;
  for (const pod of pods) {
    if (pod.metadata.labels?.['job-name'] !== of) continue;
    const ended = pod.status?.containerStatuses?.[0]?.state?.terminated;
    if (ended === undefined) {
      const found = findProblem(pod);
      if (found !== undefined && sharedProblems.has(found.reason)) problem ??= found;
      continue;
    }
    const answer = readAnswer(ended.message);
    if (answer?.config !== undefined) {
      return {
        state: 'known',
        of,
        isRemembered: false,
        ...answer,
        config: answer.config,
        weightBytes: answer.weightBytes ?? 0,
      };
    }
    if (answer !== undefined) told = answer.features ?? [];
    why = answer?.error ?? (ended.message || `the pod ended with exit code ${ended.exitCode}`);
  }
  if (why !== undefined) {
    return {
      state: 'unknown',
      of,
      why: `Job ${of}: ${why}`,
      ...(told !== undefined && { features: told }),
    };
  }
  // Engines would wait for the same Secret, and hold GPUs meanwhile.
  if (problem?.reason === 'SecretMissing') return { state: 'waiting', of, problem };
  const madeAt = job?.metadata.creationTimestamp;
  const ageMs = madeAt === undefined ? 0 : now.getTime() - Date.parse(madeAt);
  if (ageMs > timeoutMs) {
    return { state: 'unknown', of, why: `Job ${of} has not answered; its pod tells why` };
  }
  return {
    state: 'waiting',
    of,
    lookAgainMs: Math.min(pollMs, timeoutMs - ageMs + 1),
    ...(problem !== undefined && { problem }),
  };
}

interface Answer {
  readonly config?: unknown;
  readonly weightBytes?: number;
  readonly error?: string;
  readonly features?: readonly string[];
}

/** Undefined for what is no answer: the message is of a program, but a cluster is a place where others write too. */
function readAnswer(message: string | undefined): Answer | undefined {
  try {
    const { config, weightBytes, error, features } = JSON.parse(message ?? '') as Record<
      string,
      unknown
    >;
    return {
      ...(typeof config === 'object' && config !== null && { config }),
      ...(Number.isSafeInteger(weightBytes) && { weightBytes: Number(weightBytes) }),
      ...(typeof error === 'string' && { error }),
      ...(Array.isArray(features) && {
        features: [...new Set(features.filter((one) => /^[a-z-]{1,64}$/.test(String(one))))].slice(
          0,
          maxFeatures,
        ),
      }),
    };
  } catch {
    return undefined;
  }
}
