/**
 * Sampling of one row, and the definition of it for every backend. Stages, in this order:
 *  1. Log-probabilities are those of the raw logits: log-softmax over ids below `validTokenCount`.
 *  2. NaN becomes -Infinity. Logit bias is added; an id listed twice gets both. Ids outside the allowed mask and padding ids
 *     become -Infinity.
 *  3. Repetition penalty of every seen id, prompt or generated: logit > 0 ? logit / p : logit * p. Then, for ids generated
 *     count > 0 times: logit - (count * frequencyPenalty + presencePenalty).
 *  4. Temperature 0, or a logit of +Infinity: the highest logit, ties to the lower id. Otherwise weights are
 *     exp((logit - highest) / temperature): the highest is taken off first so that no temperature overflows.
 *  5. Order by logit descending, ties by lower id. Top-k keeps the first k. Top-p keeps the shortest prefix whose weights sum to
 *     at least p of the sum of what top-k kept, at least one id (p = 1: all). Min-p then drops weights below minP, the
 *     highest being 1.
 *  6. Inverse CDF in that order: the first id at which the running sum of weights exceeds u times the sum of kept weights,
 *     u = `uniformDraw(seed, position)`.
 * Sums are in double. A row without any logit above -Infinity draws -1.
 */
import type { SamplingInputs } from '../step.ts';
import { uniformDraw } from './philox.ts';

export interface Candidate {
  readonly id: number;
  /** exp((logit - highest logit) / temperature): the first candidate's is 1. */
  readonly weight: number;
}

/** log(sum(exp(values))) over the first `count` values; -Infinity when none is above it. NaN counts as -Infinity. */
function logSumExp(values: Float32Array, count: number): number {
  let highest = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < count; i++) if (values[i]! > highest) highest = values[i]!;
  if (highest === Number.NEGATIVE_INFINITY) return highest;
  let sum = 0;
  for (let i = 0; i < count; i++) {
    const term = Math.exp(values[i]! - highest);
    if (term > 0) sum += term;
  }
  return highest + Math.log(sum);
}

/** The logits of row l after bias, mask, padding and penalties (stages 2 and 3); `raw` (V) is left alone. */
export function adjustedLogits(
  raw: Float32Array,
  sampling: SamplingInputs,
  l: number,
  validTokenCount: number,
): Float32Array {
  const logits = raw.map((value) => (Number.isNaN(value) ? Number.NEGATIVE_INFINITY : value));
  const { biasOffsets, biasIds, biasValues, seenOffsets, seenIds, seenCounts, allowedMask } =
    sampling;
  for (let i = biasOffsets[l]!; i < biasOffsets[l + 1]!; i++)
    logits[biasIds[i]!]! += biasValues[i]!;
  const words = Math.ceil(logits.length / 32);
  for (let id = 0; id < logits.length; id++) {
    const allowed = allowedMask ? (allowedMask[l * words + (id >> 5)]! >>> (id & 31)) & 1 : 1;
    if (id >= validTokenCount || !allowed) logits[id] = Number.NEGATIVE_INFINITY;
  }
  const repetition = sampling.repetitionPenalty[l]!;
  const frequency = sampling.frequencyPenalty[l]!;
  const presence = sampling.presencePenalty[l]!;
  for (let i = seenOffsets[l]!; i < seenOffsets[l + 1]!; i++) {
    const id = seenIds[i]!;
    const logit = logits[id]!;
    logits[id] = logit > 0 ? logit / repetition : logit * repetition;
    const count = seenCounts[i]!;
    if (count > 0) logits[id]! -= count * frequency + presence;
  }
  return logits;
}

/** The candidates that a draw chooses from, heaviest first (stage 5). `logits` must have one above -Infinity. */
export function candidates(
  logits: Float32Array,
  options: { temperature: number; topK: number; topP: number; minP: number },
): Candidate[] {
  const { temperature, topK, topP, minP } = options;
  let ids: number[] = [];
  for (let id = 0; id < logits.length; id++)
    if (logits[id]! > Number.NEGATIVE_INFINITY) ids.push(id);
  ids.sort((a, b) => logits[b]! - logits[a]! || a - b);
  if (topK > 0) ids = ids.slice(0, topK);
  const highest = logits[ids[0]!]!;
  const weights = ids.map((id) => Math.exp((logits[id]! - highest) / temperature));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const kept: Candidate[] = [];
  let mass = 0;
  for (const [i, id] of ids.entries()) {
    const weight = weights[i]!;
    // topP 1 is off: rounding must not let the sum reach the total before the last id.
    if (i > 0 && ((topP < 1 && mass >= topP * total) || weight < minP)) break;
    kept.push({ id, weight });
    mass += weight;
  }
  return kept;
}

/** The id drawn for row l of `raw` (V), or -1 when no id is left (stages 2 to 6). */
export function sampleRow(
  raw: Float32Array,
  sampling: SamplingInputs,
  l: number,
  validTokenCount: number,
): number {
  const logits = adjustedLogits(raw, sampling, l, validTokenCount);
  let best = -1;
  for (let id = 0; id < logits.length; id++)
    if (logits[id]! > (best < 0 ? Number.NEGATIVE_INFINITY : logits[best]!)) best = id;
  const temperature = sampling.temperature[l]!;
  if (best < 0 || temperature === 0 || logits[best] === Number.POSITIVE_INFINITY) return best;
  const kept = candidates(logits, {
    temperature,
    topK: sampling.topK[l]!,
    topP: sampling.topP[l]!,
    minP: sampling.minP[l]!,
  });
  const mass = kept.reduce((sum, candidate) => sum + candidate.weight, 0);
  const target =
    uniformDraw(sampling.seed[2 * l]!, sampling.seed[2 * l + 1]!, sampling.position[l]!) * mass;
  let sum = 0;
  for (const candidate of kept) {
    sum += candidate.weight;
    if (sum > target) return candidate.id;
  }
  return kept.at(-1)!.id;
}

/** Raw log-probabilities of a row (V) over its valid ids; padding ids get -Infinity (stage 1). */
export function logProbabilities(raw: Float32Array, validTokenCount: number): Float32Array {
  const normaliser = logSumExp(raw, validTokenCount);
  return raw.map((value, id) =>
    id < validTokenCount && value > Number.NEGATIVE_INFINITY
      ? value - normaliser
      : Number.NEGATIVE_INFINITY,
  );
}

/** The `count` valid ids of highest raw logit, best first, ties by lower id; only those above -Infinity, so maybe fewer. */
export function topIds(raw: Float32Array, count: number, validTokenCount: number): number[] {
  const ids: number[] = [];
  for (let id = 0; id < validTokenCount; id++)
    if (raw[id]! > Number.NEGATIVE_INFINITY) ids.push(id);
  return ids.sort((a, b) => raw[b]! - raw[a]! || a - b).slice(0, count);
}
