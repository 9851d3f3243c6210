/** What one step of a program takes and gives: flat typed arrays, in the field's usual names. */
import type { TensorId } from './program.ts';

/** Per logit row sampling parameters, structure of arrays; every array has length L unless said otherwise. */
export interface SamplingInputs {
  /** 0: greedy. */
  readonly temperature: Float32Array;
  /** 0: off. */
  readonly topK: Int32Array;
  /** 1: off. */
  readonly topP: Float32Array;
  /** 0: off. */
  readonly minP: Float32Array;
  readonly repetitionPenalty: Float32Array;
  readonly presencePenalty: Float32Array;
  readonly frequencyPenalty: Float32Array;
  /** Philox key: low and high 32 bits of the request's seed, (L, 2). */
  readonly seed: Uint32Array;
  /** Philox counter: index of the token to be drawn, counted from the start of the sequence. */
  readonly position: Uint32Array;
  /**
   * Tokens seen so far for the penalties, as CSR: row l owns seenOffsets[l] .. seenOffsets[l + 1] of `seenIds` and
   * `seenCounts`. seenCounts = times generated (0 for ids that stand only in the prompt: those get the repetition penalty alone).
   */
  readonly seenOffsets: Int32Array;
  readonly seenIds: Int32Array;
  readonly seenCounts: Int32Array;
  /** Additive logit bias as CSR (also used for bans: -Infinity). */
  readonly biasOffsets: Int32Array;
  readonly biasIds: Int32Array;
  readonly biasValues: Float32Array;
  /** Allowed-token bitmask per row, ceil(V / 32) words each, or absent when no row is masked. All ones: free. */
  readonly allowedMask?: Uint32Array;
  /** Number of top log-probabilities wanted per row: -1 none at all, 0 the chosen token's only. */
  readonly logprobs: Int32Array;
}

export interface StepInputs {
  /** (T) */
  readonly tokenIds: Int32Array;
  /** (T) */
  readonly positions: Int32Array;
  /** (T) cache slot of each token, -1: not stored. */
  readonly slotMapping: Int32Array;
  /** (S + 1) */
  readonly cuSeqlensQ: Int32Array;
  /** (S) keys of each sequence after this step's tokens are written. */
  readonly seqLens: Int32Array;
  /** (S, maxBlocksPerSequence), padded with 0. */
  readonly blockTables: Int32Array;
  readonly maxBlocksPerSequence: number;
  /** (L) token rows of the step whose logits are wanted; ascending. */
  readonly logitRows: Int32Array;
  /**
   * (R, width of the program's input op), for programs that have one; absent: R = 0. The one input that is not copied when a step
   * starts: it must not change before the step has ended.
   */
  readonly inputRows?: Float32Array;
  /** (R) token rows that a scatterRows op writes the input rows to; ascending. Absent: R = 0. */
  readonly inputTargets?: Int32Array;
  readonly sampling: SamplingInputs;
  /** Return the raw logits (L, V) too: tests, prompt log-probabilities, echo. */
  readonly wantLogits?: boolean;
  /** Return what these tensors hold when the step ends (not the one a sample op reads: it may overwrite it): tests, layer-by-layer comparison. */
  readonly wantTensors?: readonly TensorId[];
}

export interface StepOutputs {
  /**
   * (L) sampled ids; -1 where nothing was left to draw (mask and bans forbid every id, or no logit is a number: NaN counts as
   * -Infinity). Empty when the program has no sample op.
   */
  readonly tokenIds: Int32Array;
  /** (L) raw log-probability of the sampled id (before temperature and penalties, over valid ids); NaN if not asked. */
  readonly logprobs: Float32Array;
  /** (L, maxTop) ids and log-probabilities, best first, ties by lower id; -1 / NaN beyond a row's own count. */
  readonly topIds: Int32Array;
  readonly topLogprobs: Float32Array;
  readonly maxTop: number;
  /** (L, V) when asked for. */
  readonly logits?: Float32Array;
  /** One array per id of `wantTensors`, in its order: (T or L rows of this step, width). */
  readonly tensors?: readonly Float32Array[];
}
