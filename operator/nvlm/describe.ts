/** What is known of a deployment's model: from its status, or from the pods of the Jobs that read its configuration. */
import { describeJobName } from '#charts/describe-job.ts';
import type { EngineProps } from '#charts/props.ts';
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import type { KubeObject } from '../kube/resource.ts';
import { attemptsOf, pauseMs } from './describe-attempts.ts';
import { findProblem, type PodObject, type PodProblem } from './pod.ts';
import { timeText } from './status.ts';

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
  /** The first Job has not answered, and may yet. */
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
      /** And when it is tried again. */
      readonly why: string;
      /** Until it is tried again. */
      readonly lookAgainMs?: number;
      /** Of an engine that answered, but could not read the model. */
      readonly features?: readonly string[];
    };

export interface Description {
  readonly described: Described;
  /** Numbers of the attempts whose Jobs should be there. */
  readonly attempts: readonly number[];
}

const pollMs = 2000;
/** Of a Job's pod that engines of the same image and Secrets have too. */
const sharedProblems: ReadonlySet<PodProblem['reason']> = new Set(['SecretMissing', 'ImagePull']);
/** As many as the status keeps. */
const maxFeatures = 16;

/**
 * Pure. `jobs` and `pods` are those of the deployment. A first Job that has not answered by `timeoutMs` is not waited for. One that failed
 * is followed by another after a pause; until that has ended as well, what the first one told stays true.
 */
export function whatIsDescribed(
  deployment: NVLMDeployment,
  props: EngineProps,
  jobs: readonly KubeObject[],
  pods: readonly PodObject[],
  now: Date,
  timeoutMs: number,
): Description {
  const of = describeJobName(props);
  const { model } = deployment.status ?? {};
  if (model?.of === of && model.config !== undefined && model.weightBytes !== undefined) {
    const config: unknown = JSON.parse(model.config);
    return { described: known(of, true, { ...model, config }), attempts: [] };
  }
  const attempts = attemptsOf(of, jobs).map((attempt) => ({ ...attempt, ...hear(pods, attempt) }));
  const numbers = attempts.map(({ number }) => number);
  const answered = attempts.find(({ answer }) => answer !== undefined);
  if (answered?.answer !== undefined) {
    // Its pod is kept until the status has what it says.
    return { described: known(of, false, answered.answer), attempts: numbers };
  }
  const last = attempts.at(-1);
  if (last === undefined) {
    return { described: { state: 'waiting', of, lookAgainMs: pollMs }, attempts: [1] };
  }
  const before = attempts.at(-2);
  const unknown = (why: string, lookAgainMs?: number): Described => {
    const features = last.features ?? before?.features;
    return {
      state: 'unknown',
      of,
      why,
      ...(lookAgainMs !== undefined && { lookAgainMs }),
      ...(features !== undefined && { features }),
    };
  };
  const { ended, number, problem } = last;
  if (ended !== undefined) {
    const why = `Job ${last.name}: ${last.why ?? ended.message}`;
    // What an image says without an error, it would say again.
    if (!ended.hasFailed && last.why !== undefined) {
      return { described: unknown(why), attempts: [number] };
    }
    const dueMs = ended.atMs + pauseMs(number);
    const lookAgainMs = dueMs - now.getTime();
    if (lookAgainMs <= 0) {
      return { described: unknown(`${why}; it is tried again`), attempts: [number, last.next] };
    }
    const again = `${why}; it is tried again at ${timeText(new Date(dueMs))}`;
    return { described: unknown(again, lookAgainMs), attempts: [number] };
  }
  if (number !== 1) {
    const failed = before ?? last;
    const why = failed.why ?? before?.ended?.message;
    const told = why === undefined ? '' : `Job ${failed.name}: ${why}; `;
    const held = problem === undefined ? '' : `, and waits: ${problem.message}`;
    return {
      described: unknown(`${told}Job ${last.name} tries again${held}`),
      attempts: before === undefined ? [number] : [before.number, number],
    };
  }
  const waits = { attempts: [1] };
  if (last.why !== undefined) return { ...waits, described: unknown(`Job ${of}: ${last.why}`) };
  // Engines would wait for the same Secret, and hold GPUs meanwhile.
  if (problem?.reason === 'SecretMissing') {
    return { ...waits, described: { state: 'waiting', of, problem } };
  }
  const ageMs = now.getTime() - last.madeAtMs;
  if (ageMs > timeoutMs) {
    const why = `Job ${of} has not answered; its pod tells why`;
    return { ...waits, described: unknown(why) };
  }
  const lookAgainMs = Math.min(pollMs, timeoutMs - ageMs + 1);
  return {
    ...waits,
    described: { state: 'waiting', of, lookAgainMs, ...(problem !== undefined && { problem }) },
  };
}

const known = (
  of: string,
  isRemembered: boolean,
  { config, weightBytes = 0, features }: Answer,
): Described => ({
  state: 'known',
  of,
  isRemembered,
  config,
  weightBytes,
  ...(features !== undefined && { features }),
});

interface Heard {
  /** The last word of a pod that read the model. */
  readonly answer?: Answer;
  /** Why one did not. */
  readonly why?: string;
  readonly features?: readonly string[];
  readonly problem?: PodProblem;
}

/** What the pods of one Job tell. */
function hear(pods: readonly PodObject[], { name }: { readonly name: string }): Heard {
  let heard: Heard = {};
  for (const pod of pods) {
    if (pod.metadata.labels?.['job-name'] !== name) continue;
    const ended = pod.status?.containerStatuses?.[0]?.state?.terminated;
    if (ended === undefined) {
      const problem = findProblem(pod);
      if (problem !== undefined && sharedProblems.has(problem.reason)) {
        heard = { problem, ...heard };
      }
      continue;
    }
    const answer = readAnswer(ended.message);
    if (answer?.config !== undefined) return { answer };
    const why =
      answer?.error ?? (ended.message || `the pod ended with exit code ${ended.exitCode}`);
    heard = { ...heard, why, ...(answer !== undefined && { features: answer.features ?? [] }) };
  }
  return heard;
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
