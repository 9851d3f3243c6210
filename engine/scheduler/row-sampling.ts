/** What stays the same, or grows a little, in the sampling inputs of one sequence from step to step. */
import { withCapacity } from './growable.ts';
import type { GenerationRequest, SamplingParameters } from './request.ts';

export class RowSampling {
  readonly parameters: SamplingParameters;
  readonly seedLow: number;
  readonly seedHigh: number;
  readonly biasIds: Int32Array;
  readonly biasValues: Float32Array;
  /** Ids that end the sequence, banned until `minTokens` are out. */
  readonly endIds: readonly number[];
  /** Distinct tokens so far and how often each was generated, valid up to `seenLength`; empty without penalties. */
  seenIds = new Int32Array(0);
  seenCounts = new Int32Array(0);
  seenLength = 0;
  readonly #seenIndex: Map<number, number> | undefined;
  #mask: Uint32Array | undefined;

  constructor(request: GenerationRequest) {
    const { sampling } = request;
    this.parameters = sampling;
    this.seedLow = Number(BigInt.asUintN(32, sampling.seed));
    this.seedHigh = Number(BigInt.asUintN(32, sampling.seed >> 32n));
    this.biasIds = Int32Array.from(sampling.logitBias.keys());
    this.biasValues = Float32Array.from(sampling.logitBias.values());
    this.endIds = [...new Set([...request.eosTokenIds, ...request.stopTokenIds])];
    const countsGenerated = sampling.presencePenalty !== 0 || sampling.frequencyPenalty !== 0;
    if (sampling.repetitionPenalty !== 1 || countsGenerated) this.#seenIndex = new Map();
    if (sampling.repetitionPenalty !== 1) {
      for (const tokenId of request.promptIds) this.#see(tokenId, 0);
    }
  }

  countGenerated(tokenId: number): void {
    if (this.#seenIndex !== undefined) this.#see(tokenId, 1);
  }

  /** Bit t % 32 of word t / 32 is set when id t may be drawn; undefined when all may. */
  allowedMask(words: number): Uint32Array | undefined {
    if (this.parameters.allowedTokenIds === undefined || this.#mask !== undefined) {
      return this.#mask;
    }
    this.#mask = new Uint32Array(words);
    for (const tokenId of this.parameters.allowedTokenIds) {
      this.#mask[tokenId >>> 5]! |= 1 << (tokenId & 31);
    }
    return this.#mask;
  }

  /** Last ids of the bad words that `tokens[0 .. length)` has come one token close to. */
  completingIds(tokens: Int32Array, length: number): number[] {
    const ids: number[] = [];
    for (const word of this.parameters.badWords) {
      const start = length - (word.length - 1);
      let matched = word.length > 0 && start >= 0;
      for (let index = 0; matched && index < word.length - 1; index++) {
        matched = tokens[start + index] === word[index];
      }
      if (matched) ids.push(word[word.length - 1]!);
    }
    const allowed = this.parameters.allowedTokenIds;
    // The list of allowed ids is a promise about every token; a bad word yields where it would leave none.
    return allowed?.every((tokenId) => ids.includes(tokenId)) ? [] : ids;
  }

  #see(tokenId: number, times: number): void {
    const index = this.#seenIndex!.get(tokenId);
    if (index !== undefined) {
      this.seenCounts[index]! += times;
      return;
    }
    this.#seenIndex!.set(tokenId, this.seenLength);
    this.seenIds = withCapacity(this.seenIds, this.seenLength + 1);
    this.seenCounts = withCapacity(this.seenCounts, this.seenLength + 1);
    this.seenIds[this.seenLength] = tokenId;
    this.seenCounts[this.seenLength++] = times;
  }
}
