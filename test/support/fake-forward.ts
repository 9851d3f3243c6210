/**
 * A model without arithmetic whose next token is a hash of all token ids before it, read back through the slots and block
 * tables it is given: a wrong slot, a block shared by mistake or reused too early changes the tokens.
 */
import type { Forward, StepInputs, StepOutputs } from '#engine/model/forward.ts';

/** What runners of one model share: the token id that stands in each cache slot. */
export class FakeCache {
  readonly blockSize: number;
  readonly slots: Int32Array;

  constructor(blockSize: number, blockCount: number) {
    this.blockSize = blockSize;
    this.slots = new Int32Array(blockSize * blockCount).fill(-1);
  }
}

/** The token that follows `tokens` when all ids below `vocabulary` may be drawn and none is preferred. */
export function nextFakeToken(tokens: readonly number[], vocabulary: number, seed = 0): number {
  let state = 0x811c9dc5 ^ seed;
  for (const token of tokens) state = mix(state, token);
  return (state >>> 8) % vocabulary;
}

function mix(state: number, token: number): number {
  const mixed = Math.imul(state ^ token, 0x01000193);
  return mixed ^ (mixed >>> 15);
}

export class FakeForward implements Forward {
  readonly #cache: FakeCache;
  readonly #vocabulary: number;
  #isBusy = false;
  /** Called with each step before it runs; throwing makes the step fail. */
  onRun: (inputs: StepInputs) => void | Promise<void> = () => {};
  steps = 0;

  constructor(cache: FakeCache, vocabulary: number) {
    this.#cache = cache;
    this.#vocabulary = vocabulary;
  }

  async run(inputs: StepInputs): Promise<StepOutputs> {
    if (this.#isBusy) throw new Error('run was called while a step was running');
    this.#isBusy = true;
    const copy = structuredClone(inputs);
    try {
      await new Promise((resolve) => setImmediate(resolve));
      await this.onRun(copy);
      this.steps++;
      return this.#compute(copy);
    } finally {
      this.#isBusy = false;
    }
  }

  async close(): Promise<void> {}

  #compute(inputs: StepInputs): StepOutputs {
    const { cuSeqlensQ, seqLens, logitRows, sampling } = inputs;
    inputs.slotMapping.forEach((slot, token) => {
      if (slot < this.#cache.blockSize) throw new Error(`slot ${slot} is in the null block`);
      this.#cache.slots[slot] = inputs.tokenIds[token]!;
    });
    const maxTop = Math.max(0, ...sampling.logprobs);
    const outputs = {
      tokenIds: new Int32Array(logitRows.length),
      logprobs: new Float32Array(logitRows.length),
      topIds: new Int32Array(logitRows.length * maxTop).fill(-1),
      topLogprobs: new Float32Array(logitRows.length * maxTop),
      maxTop,
    };
    for (let row = 0, sequence = 0; row < logitRows.length; row++) {
      const token = logitRows[row]!;
      while (cuSeqlensQ[sequence + 1]! <= token) sequence++;
      const fromEnd = cuSeqlensQ[sequence + 1]! - 1 - token;
      const known = this.#readBack(inputs, sequence, seqLens[sequence]! - fromEnd);
      outputs.tokenIds[row] = this.#draw(inputs, row, known);
      outputs.logprobs[row] = fakeLogprob(known, outputs.tokenIds[row]!);
      for (let top = 0; top < sampling.logprobs[row]!; top++) {
        outputs.topIds[row * maxTop + top] = top;
        outputs.topLogprobs[row * maxTop + top] = fakeLogprob(known, top);
      }
    }
    return outputs;
  }

  #readBack(inputs: StepInputs, sequence: number, length: number): number[] {
    const { blockSize, slots } = this.#cache;
    return Array.from({ length }, (_, position) => {
      const table = sequence * inputs.maxBlocksPerSequence + Math.floor(position / blockSize);
      return slots[inputs.blockTables[table]! * blockSize + (position % blockSize)]!;
    });
  }

  /** The hashed token, or the next higher one that bias and mask allow; the id with the highest positive bias wins at once. */
  #draw({ sampling }: StepInputs, row: number, known: readonly number[]): number {
    const bias = new Map<number, number>();
    for (let at = sampling.biasOffsets[row]!; at < sampling.biasOffsets[row + 1]!; at++) {
      const id = sampling.biasIds[at]!;
      bias.set(id, (bias.get(id) ?? 0) + sampling.biasValues[at]!);
    }
    const words = Math.ceil(this.#vocabulary / 32);
    const isAllowed = (id: number): boolean =>
      bias.get(id) !== Number.NEGATIVE_INFINITY &&
      (sampling.allowedMask === undefined ||
        ((sampling.allowedMask[row * words + (id >>> 5)]! >>> (id & 31)) & 1) === 1);
    const [forced] = [...bias].filter(([, value]) => value > 50).sort((a, b) => b[1] - a[1]);
    if (forced !== undefined && isAllowed(forced[0])) return forced[0];
    if (sampling.position[row] !== known.length && sampling.temperature[row]! > 0) {
      throw new Error(`row ${row} draws token ${known.length} at ${sampling.position[row]}`);
    }
    const seed = sampling.temperature[row]! > 0 ? sampling.seed[row * 2]! : 0;
    const first = nextFakeToken(known, this.#vocabulary, seed);
    for (let step = 0; step < this.#vocabulary; step++) {
      const id = (first + step) % this.#vocabulary;
      if (isAllowed(id)) return id;
    }
    return -1;
  }
}

/** A number that stands for log p(token | known). */
export function fakeLogprob(known: readonly number[], token: number): number {
  return -(nextFakeToken([...known, token], 1000) + 1) / 128;
}
