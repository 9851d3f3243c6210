/** Builds the flat arrays of a step from sequences described one by one. */
import type { SamplingInputs, StepInputs } from '#kernels/step.ts';

export interface SequenceStep {
  /** Tokens of this step. */
  readonly tokenIds: readonly number[];
  /** Keys already in the cache. */
  readonly cachedLength: number;
  /** Cache blocks of the sequence, enough for cached and new tokens. */
  readonly blocks: readonly number[];
  /** Rows, counted within this step's tokens, whose logits are wanted. Default: the last. */
  readonly logitRows?: readonly number[];
}

/** Greedy sampling of `rows` rows with every option off; `overrides` replaces whole arrays. */
export function greedySampling(
  rows: number,
  overrides: Partial<SamplingInputs> = {},
): SamplingInputs {
  return {
    temperature: new Float32Array(rows),
    topK: new Int32Array(rows),
    topP: new Float32Array(rows).fill(1),
    minP: new Float32Array(rows),
    repetitionPenalty: new Float32Array(rows).fill(1),
    presencePenalty: new Float32Array(rows),
    frequencyPenalty: new Float32Array(rows),
    seed: new Uint32Array(2 * rows),
    position: new Uint32Array(rows),
    seenOffsets: new Int32Array(rows + 1),
    seenIds: new Int32Array(0),
    seenCounts: new Int32Array(0),
    biasOffsets: new Int32Array(rows + 1),
    biasIds: new Int32Array(0),
    biasValues: new Float32Array(0),
    logprobs: new Int32Array(rows).fill(-1),
    ...overrides,
  };
}

/** One step over `sequences`, greedy unless `overrides` says otherwise. */
export function stepOf(
  sequences: readonly SequenceStep[],
  blockSize: number,
  overrides: Partial<StepInputs> = {},
): StepInputs {
  const tokenIds: number[] = [];
  const positions: number[] = [];
  const slotMapping: number[] = [];
  const cuSeqlensQ = [0];
  const logitRows: number[] = [];
  const maxBlocksPerSequence = Math.max(0, ...sequences.map(({ blocks }) => blocks.length));
  const blockTables = new Int32Array(sequences.length * maxBlocksPerSequence);
  for (const [s, sequence] of sequences.entries()) {
    const first = tokenIds.length;
    for (const [i, id] of sequence.tokenIds.entries()) {
      const position = sequence.cachedLength + i;
      const block = sequence.blocks[Math.floor(position / blockSize)];
      if (block === undefined) throw new RangeError(`sequence ${s} has no block for ${position}`);
      tokenIds.push(id);
      positions.push(position);
      slotMapping.push(block * blockSize + (position % blockSize));
    }
    const last = sequence.tokenIds.length ? [sequence.tokenIds.length - 1] : [];
    logitRows.push(...(sequence.logitRows ?? last).map((row) => first + row));
    cuSeqlensQ.push(tokenIds.length);
    blockTables.set(sequence.blocks, s * maxBlocksPerSequence);
  }
  return {
    tokenIds: Int32Array.from(tokenIds),
    positions: Int32Array.from(positions),
    slotMapping: Int32Array.from(slotMapping),
    cuSeqlensQ: Int32Array.from(cuSeqlensQ),
    seqLens: Int32Array.from(sequences, (s) => s.cachedLength + s.tokenIds.length),
    blockTables,
    maxBlocksPerSequence,
    logitRows: Int32Array.from(logitRows),
    sampling: greedySampling(logitRows.length),
    ...overrides,
  };
}
