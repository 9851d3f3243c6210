/** The pictures of a prompt where a step and a cache block meet them. */
import type { StepInputs } from '#engine/model/forward.ts';
import type { Plan } from './plan.ts';
import type { GenerationRequest } from './request.ts';

/**
 * The embeddings of a step's context tokens and the rows they go to; nothing when it has none. In memory of its own: a
 * backend reads it while the step runs, and another lane's step may be built meanwhile.
 */
export function imageRows(plan: Plan): Pick<StepInputs, 'inputRows' | 'inputTargets'> {
  const parts: Float32Array[] = [];
  const targets: number[] = [];
  let firstToken = 0;
  for (const { sequence, start, count } of plan.entries) {
    for (const { positions, embeddings } of sequence.request.images ?? []) {
      const begin = firstFrom(positions, start);
      const end = firstFrom(positions, start + count);
      const width = embeddings.length / positions.length;
      for (let i = begin; i < end; i++) targets.push(firstToken + positions[i]! - start);
      if (end > begin) parts.push(embeddings.subarray(begin * width, end * width));
    }
    firstToken += count;
  }
  if (targets.length === 0) return {};
  const inputRows = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    inputRows.set(part, at);
    at += part.length;
  }
  return { inputRows, inputTargets: Int32Array.from(targets) };
}

/**
 * What the tokens start .. end - 1 mean beyond their ids: the pictures that have context tokens among them, undefined for none.
 * Which rows of a picture they are follows from the tokens before, which the keys of a chain cover.
 */
export function imageKey(
  { images }: GenerationRequest,
  start: number,
  end: number,
): string | undefined {
  const digests = images
    ?.filter(({ positions }) => firstFrom(positions, start) < firstFrom(positions, end))
    .map(({ digest }) => digest);
  return digests === undefined || digests.length === 0 ? undefined : digests.join(' ');
}

/** Index of the first position that is at least `least`; the length when there is none. */
function firstFrom(positions: Int32Array, least: number): number {
  let low = 0;
  let high = positions.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (positions[middle]! < least) low = middle + 1;
    else high = middle;
  }
  return low;
}
