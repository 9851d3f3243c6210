/** Attempts at a model's description: one Job each, and all that is known of them follows from the Jobs that are there. */
import { describeAttempt, nextAttempt } from '#charts/describe-job.ts';
import type { KubeObject, ObjectCondition } from '../kube/resource.ts';

export interface Attempt {
  /** From 1. */
  readonly number: number;
  /** Of the attempt that follows it. */
  readonly next: number;
  /** Of its Job. */
  readonly name: string;
  readonly madeAtMs: number;
  /** When the Job controller gave it up, or called it complete, and its words for that. */
  readonly ended?: {
    readonly atMs: number;
    readonly hasFailed: boolean;
    readonly message: string;
  };
}

interface JobObject extends KubeObject {
  readonly status?: { readonly conditions?: readonly ObjectCondition[] };
}

const firstPauseMs = 60_000;
const maxPauseMs = 30 * 60_000;

/** From the end of an attempt to the next: 1, 2, 4 and so on up to 30 minutes. */
export const pauseMs = (attempt: number): number =>
  Math.min(maxPauseMs, firstPauseMs * 2 ** (attempt - 1));

/** Those of the description whose first Job is called `first`, oldest first. */
export function attemptsOf(first: string, jobs: readonly KubeObject[]): readonly Attempt[] {
  return jobs
    .flatMap((job: JobObject): Attempt[] => {
      const { name, creationTimestamp, deletionTimestamp } = job.metadata;
      const number = describeAttempt(first, name);
      if (number === undefined || deletionTimestamp !== undefined) return [];
      const madeAtMs = Date.parse(creationTimestamp ?? '') || 0;
      const ended = endOf(job, madeAtMs);
      return [
        {
          number,
          next: nextAttempt(number),
          name,
          madeAtMs,
          ...(ended !== undefined && { ended }),
        },
      ];
    })
    .sort((a, b) => a.madeAtMs - b.madeAtMs || a.number - b.number);
}

function endOf({ status }: JobObject, madeAtMs: number): Attempt['ended'] {
  const end = status?.conditions?.find(
    ({ type, status: is }) => (type === 'Failed' || type === 'Complete') && is === 'True',
  );
  if (end === undefined) return undefined;
  return {
    atMs: Date.parse(end.lastTransitionTime ?? '') || madeAtMs,
    hasFailed: end.type === 'Failed',
    message: end.message || 'it ended without an answer',
  };
}
