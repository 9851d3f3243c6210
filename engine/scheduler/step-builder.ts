/** Turns a plan into the flat arrays of a forward step. Buffers are reused: a runner copies its inputs before it returns. */
import type { StepInputs } from '#engine/model/forward.ts';
import { withCapacity } from './growable.ts';
import { type Plan, type PlanEntry, PROMPT_ROWS_PER_STEP } from './plan.ts';
import { imageRows } from './prompt-images.ts';
import type { Sequence } from './sequence.ts';

/** Added to the one id that a prompt row must "draw": larger than any logit, and finite so that sums stay numbers. */
const FORCED_BIAS = 1e30;

export class StepBuilder {
  readonly #blockSize: number;
  readonly #maskWords: number;
  readonly #tokenIds: Int32Array;
  readonly #positions: Int32Array;
  readonly #slotMapping: Int32Array;
  readonly #cuSeqlensQ: Int32Array;
  readonly #seqLens: Int32Array;
  readonly #logitRows: Int32Array;
  readonly #temperature: Float32Array;
  readonly #topK: Int32Array;
  readonly #topP: Float32Array;
  readonly #minP: Float32Array;
  readonly #repetitionPenalty: Float32Array;
  readonly #presencePenalty: Float32Array;
  readonly #frequencyPenalty: Float32Array;
  readonly #seed: Uint32Array;
  readonly #position: Uint32Array;
  readonly #logprobs: Int32Array;
  readonly #seenOffsets: Int32Array;
  readonly #biasOffsets: Int32Array;
  #blockTables = new Int32Array(64);
  #seenIds = new Int32Array(64);
  #seenCounts = new Int32Array(64);
  #biasIds = new Int32Array(64);
  #biasValues = new Float32Array(64);
  #biasLength = 0;
  #seenLength = 0;

  constructor(options: {
    readonly maxBatchedTokens: number;
    readonly sequencesPerLane: number;
    readonly blockSize: number;
    readonly vocabularyRows: number;
  }) {
    const tokens = options.maxBatchedTokens;
    const sequences = options.sequencesPerLane;
    const rows = Math.min(tokens, sequences + PROMPT_ROWS_PER_STEP);
    this.#blockSize = options.blockSize;
    this.#maskWords = Math.ceil(options.vocabularyRows / 32);
    this.#tokenIds = new Int32Array(tokens);
    this.#positions = new Int32Array(tokens);
    this.#slotMapping = new Int32Array(tokens);
    this.#cuSeqlensQ = new Int32Array(sequences + 1);
    this.#seqLens = new Int32Array(sequences);
    this.#logitRows = new Int32Array(rows);
    this.#temperature = new Float32Array(rows);
    this.#topK = new Int32Array(rows);
    this.#topP = new Float32Array(rows);
    this.#minP = new Float32Array(rows);
    this.#repetitionPenalty = new Float32Array(rows);
    this.#presencePenalty = new Float32Array(rows);
    this.#frequencyPenalty = new Float32Array(rows);
    this.#seed = new Uint32Array(rows * 2);
    this.#position = new Uint32Array(rows);
    this.#logprobs = new Int32Array(rows);
    this.#seenOffsets = new Int32Array(rows + 1);
    this.#biasOffsets = new Int32Array(rows + 1);
  }

  /** Valid until the next call. */
  build(plan: Plan): StepInputs {
    const sequences = plan.entries.length;
    const tokens = plan.tokenCount;
    const rows = plan.rowCount;
    const width = this.#blockTableWidth(plan);
    this.#blockTables = withCapacity(this.#blockTables, sequences * width);
    this.#biasLength = 0;
    this.#seenLength = 0;
    let token = 0;
    for (let index = 0; index < sequences; index++) {
      const entry = plan.entries[index]!;
      this.#writeTokens(entry, token);
      this.#writeBlockTable(entry, index, width);
      this.#writeRows(entry, token);
      token += entry.count;
      this.#cuSeqlensQ[index + 1] = token;
      this.#seqLens[index] = entry.start + entry.count;
    }
    const allowedMask = this.#buildMask(plan);
    return {
      tokenIds: this.#tokenIds.subarray(0, tokens),
      positions: this.#positions.subarray(0, tokens),
      slotMapping: this.#slotMapping.subarray(0, tokens),
      cuSeqlensQ: this.#cuSeqlensQ.subarray(0, sequences + 1),
      seqLens: this.#seqLens.subarray(0, sequences),
      blockTables: this.#blockTables.subarray(0, sequences * width),
      maxBlocksPerSequence: width,
      logitRows: this.#logitRows.subarray(0, rows),
      ...imageRows(plan),
      sampling: {
        temperature: this.#temperature.subarray(0, rows),
        topK: this.#topK.subarray(0, rows),
        topP: this.#topP.subarray(0, rows),
        minP: this.#minP.subarray(0, rows),
        repetitionPenalty: this.#repetitionPenalty.subarray(0, rows),
        presencePenalty: this.#presencePenalty.subarray(0, rows),
        frequencyPenalty: this.#frequencyPenalty.subarray(0, rows),
        seed: this.#seed.subarray(0, rows * 2),
        position: this.#position.subarray(0, rows),
        logprobs: this.#logprobs.subarray(0, rows),
        seenOffsets: this.#seenOffsets.subarray(0, rows + 1),
        seenIds: this.#seenIds.subarray(0, this.#seenLength),
        seenCounts: this.#seenCounts.subarray(0, this.#seenLength),
        biasOffsets: this.#biasOffsets.subarray(0, rows + 1),
        biasIds: this.#biasIds.subarray(0, this.#biasLength),
        biasValues: this.#biasValues.subarray(0, this.#biasLength),
        ...(allowedMask === undefined ? {} : { allowedMask }),
      },
    };
  }

  #blockTableWidth(plan: Plan): number {
    let longest = 1;
    for (const { start, count } of plan.entries) longest = Math.max(longest, start + count);
    return Math.ceil(longest / this.#blockSize);
  }

  #writeTokens({ sequence, start, count }: PlanEntry, firstToken: number): void {
    const blockSize = this.#blockSize;
    for (let offset = 0; offset < count; offset++) {
      const position = start + offset;
      const block = sequence.blockTable[Math.floor(position / blockSize)]!;
      this.#tokenIds[firstToken + offset] = sequence.tokens[position]!;
      this.#positions[firstToken + offset] = position;
      this.#slotMapping[firstToken + offset] = block * blockSize + (position % blockSize);
    }
  }

  #writeBlockTable({ sequence, start, count }: PlanEntry, index: number, width: number): void {
    const used = Math.ceil((start + count) / this.#blockSize);
    this.#blockTables.set(sequence.blockTable.subarray(0, used), index * width);
    this.#blockTables.fill(0, index * width + used, (index + 1) * width);
  }

  #writeRows(entry: PlanEntry, firstToken: number): void {
    const { sequence, start, promptRowStart, promptRowCount } = entry;
    for (let index = 0; index < promptRowCount; index++) {
      const position = promptRowStart + index;
      this.#logitRows[entry.firstRow + index] = firstToken + position - start;
      this.#writePromptRow(entry.firstRow + index, sequence, position);
    }
    if (!entry.samples) return;
    const row = entry.firstRow + promptRowCount;
    this.#logitRows[row] = firstToken + entry.count - 1;
    this.#writeSampleRow(row, sequence);
  }

  /**
   * The log-probability of a prompt token is that of a token "drawn" greedily with a bias that leaves no choice:
   * log-probabilities are of the raw logits, so the bias does not show in them.
   */
  #writePromptRow(row: number, sequence: Sequence, position: number): void {
    this.#temperature[row] = 0;
    this.#topK[row] = 0;
    this.#topP[row] = 1;
    this.#minP[row] = 0;
    this.#repetitionPenalty[row] = 1;
    this.#presencePenalty[row] = 0;
    this.#frequencyPenalty[row] = 0;
    this.#seed[row * 2] = 0;
    this.#seed[row * 2 + 1] = 0;
    this.#position[row] = position + 1;
    this.#logprobs[row] = sequence.request.promptLogprobs;
    this.#appendBias(sequence.tokens[position + 1]!, FORCED_BIAS);
    this.#biasOffsets[row + 1] = this.#biasLength;
    this.#seenOffsets[row + 1] = this.#seenLength;
  }

  #writeSampleRow(row: number, sequence: Sequence): void {
    const { sampling } = sequence;
    const { parameters } = sampling;
    this.#temperature[row] = parameters.temperature;
    this.#topK[row] = parameters.topK;
    this.#topP[row] = parameters.topP;
    this.#minP[row] = parameters.minP;
    this.#repetitionPenalty[row] = parameters.repetitionPenalty;
    this.#presencePenalty[row] = parameters.presencePenalty;
    this.#frequencyPenalty[row] = parameters.frequencyPenalty;
    this.#seed[row * 2] = sampling.seedLow;
    this.#seed[row * 2 + 1] = sampling.seedHigh;
    this.#position[row] = sequence.length;
    this.#logprobs[row] = parameters.logprobs;
    this.#appendSeen(sequence);
    this.#seenOffsets[row + 1] = this.#seenLength;
    this.#appendBiases(sequence);
    this.#biasOffsets[row + 1] = this.#biasLength;
  }

  #appendSeen({ sampling: { seenIds, seenCounts, seenLength } }: Sequence): void {
    if (seenLength === 0) return;
    const length = this.#seenLength + seenLength;
    this.#seenIds = withCapacity(this.#seenIds, length);
    this.#seenCounts = withCapacity(this.#seenCounts, length);
    this.#seenIds.set(seenIds.subarray(0, seenLength), this.#seenLength);
    this.#seenCounts.set(seenCounts.subarray(0, seenLength), this.#seenLength);
    this.#seenLength = length;
  }

  #appendBiases(sequence: Sequence): void {
    const { sampling, request } = sequence;
    for (let index = 0; index < sampling.biasIds.length; index++) {
      this.#appendBias(sampling.biasIds[index]!, sampling.biasValues[index]!);
    }
    if (sequence.generatedTokens < request.minTokens) {
      for (const tokenId of sampling.endIds) this.#appendBias(tokenId, Number.NEGATIVE_INFINITY);
    }
    if (request.sampling.badWords.length > 0) {
      for (const tokenId of sampling.completingIds(sequence.tokens, sequence.length)) {
        this.#appendBias(tokenId, Number.NEGATIVE_INFINITY);
      }
    }
  }

  #appendBias(tokenId: number, value: number): void {
    this.#biasIds = withCapacity(this.#biasIds, this.#biasLength + 1);
    this.#biasValues = withCapacity(this.#biasValues, this.#biasLength + 1);
    this.#biasIds[this.#biasLength] = tokenId;
    this.#biasValues[this.#biasLength++] = value;
  }

  #buildMask(plan: Plan): Uint32Array | undefined {
    const isMasked = (entry: PlanEntry): boolean =>
      entry.samples && entry.sequence.request.sampling.allowedTokenIds !== undefined;
    if (!plan.entries.some(isMasked)) return undefined;
    const mask = new Uint32Array(plan.rowCount * this.#maskWords).fill(0xffffffff);
    for (const entry of plan.entries) {
      if (!isMasked(entry)) continue;
      const row = entry.firstRow + entry.promptRowCount;
      mask.set(entry.sequence.sampling.allowedMask(this.#maskWords)!, row * this.#maskWords);
    }
    return mask;
  }
}
