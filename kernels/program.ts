/**
 * The op program: what `engine/model` records once and every backend runs once per step.
 * This file is the contract between model and backends; it knows no backend and does no arithmetic.
 *
 * Dims used in comments: T tokens of the step (all sequences flattened), S sequences of the step,
 * L rows for which logits (or features) are wanted, R rows of activations given from outside, D head size, V vocabulary rows, N output and K input features.
 */

/** How a checkpoint stores a tensor. Quantised names are GGUF's block formats, read as stored. */
export type StorageType =
  | 'f32'
  | 'f16'
  | 'bf16'
  | 'q4_0'
  | 'q4_1'
  | 'q5_0'
  | 'q5_1'
  | 'q8_0'
  | 'q4_k'
  | 'q5_k'
  | 'q6_k';

/** A range of a file (memory-mapped by native backends) or bytes in memory. */
export type StoredBytes =
  | { readonly path: string; readonly offset: number; readonly byteLength: number }
  | { readonly data: Uint8Array };

/** Some columns of stored rows: of every `rowBytes` of `rows`, the bytes [begin, end). They are cut out when a backend reads them. */
export interface RowParts {
  readonly rows: StoredBytes;
  readonly rowBytes: number;
  readonly begin: number;
  readonly end: number;
}

/** Bytes of a weight: as stored, or part of each stored row. */
export type WeightBytes = StoredBytes | RowParts;

/** One checkpoint tensor as stored: row-major, `shape` outermost first ([N, K] for a linear). */
export interface WeightSource {
  readonly name: string;
  readonly type: StorageType;
  readonly shape: readonly number[];
  readonly bytes: WeightBytes;
  /**
   * 'interleavedToHalf' when q/k rows are stored in the interleaved rotary order of GGUF llama files:
   * within each head of D rows, logical row i < D/2 is stored row 2i and logical row D/2 + i is stored row 2i + 1.
   */
  readonly rowOrder?: { readonly kind: 'interleavedToHalf'; readonly headSize: number };
}

/** Arithmetic a linear runs in: fp32, bf16 dot products, or integer dots over groups of the K axis. */
export type ComputeType = 'float32' | 'bfloat16' | 'int8' | 'int4';

/**
 * What keys and values are kept in: fp32, bf16, or int8 codes with a scale in bf16 for every 32 dimensions of a key and for every
 * head of a value (reference/cache-rounding.ts says how they are rounded).
 */
export type CacheType = 'float32' | 'bfloat16' | 'int8';

/** Index into `Program.weights`. */
export type WeightId = number;
/** Index into `Program.tensors`: an activation buffer, fp32, [rows, width]. */
export type TensorId = number;

export interface TensorSpec {
  readonly name: string;
  /** What the rows count: T tokens of a step, its L logit rows, or the R rows of `StepInputs.inputRows`. */
  readonly rows: 'tokens' | 'logitRows' | 'inputRows';
  readonly width: number;
}

export interface RopeSpec {
  /** fp32 inverse frequencies, length D/2, scaling (linear, llama3, yarn) already applied. */
  readonly inverseFrequencies: Float32Array;
  /** Factor on cos and sin (yarn's attention factor; 1 otherwise). */
  readonly magnitude: number;
}

/**
 * out[t] = weight[tokenIds[t]], (T, width). With `firstRow` the weight is a rank's share of the table, rows firstRow and on: ids of
 * other ranks' rows give zeros, and the sum over the ranks is the embedding.
 */
export interface EmbeddingOp {
  readonly op: 'embedding';
  readonly weight: WeightId;
  readonly firstRow?: number;
  readonly out: TensorId;
}

/** out = StepInputs.inputRows, (R, width): image patches, or embeddings that stand for tokens. At most one in a program. */
export interface InputOp {
  readonly op: 'input';
  readonly out: TensorId;
}

/**
 * out[inputTargets[r]] = x[r], or += x[r] with `add`; x is (R, width), out (T, width) and already written. Rows of out that no
 * target names stay as they are.
 */
export interface ScatterRowsOp {
  readonly op: 'scatterRows';
  readonly x: TensorId;
  readonly add: boolean;
  readonly out: TensorId;
}

/** out = (x - mean(x)) * rsqrt(mean((x - mean(x))^2) + eps) * weight + bias, row by row, fp32. */
export interface LayerNormOp {
  readonly op: 'layerNorm';
  readonly x: TensorId;
  readonly weight: WeightId;
  readonly bias: WeightId;
  readonly eps: number;
  readonly out: TensorId;
}

/**
 * out (T, 2) = the sums of the squares of the queries and of the keys of qkv (T, (heads + 2 kvHeads) * D), over the first `width`
 * values of each: what a rank knows of a norm over the heads of all ranks. A width of 0 gives zeros.
 */
export interface QueryKeySquaresOp {
  readonly op: 'queryKeySquares';
  readonly qkv: TensorId;
  readonly width: number;
  readonly out: TensorId;
}

/**
 * RMS norm of the queries and of the keys of qkv (T, (heads + 2 kvHeads) * D), in place, each over all heads together. The
 * squares are averaged over the first `meanWidth` values only: InternViT pads its heads, and the padding does not count. With
 * `squares` (T, 2) the sums of squares are those, taken over the heads of all ranks.
 */
export interface QueryKeyNormOp {
  readonly op: 'queryKeyNorm';
  readonly qkv: TensorId;
  /** [heads * D] */
  readonly queryWeight: WeightId;
  /** [kvHeads * D] */
  readonly keyWeight: WeightId;
  readonly meanWidth: number;
  readonly eps: number;
  readonly squares?: TensorId;
}

/**
 * out = x * rsqrt(mean(x^2) + eps) * weight, row by row, fp32. With `residual`, first residual += x (written
 * back, same shape) and the norm is of that sum.
 */
export interface RmsNormOp {
  readonly op: 'rmsNorm';
  readonly x: TensorId;
  readonly residual?: TensorId;
  readonly weight: WeightId;
  readonly eps: number;
  readonly out: TensorId;
}

/**
 * out = epilogue(x @ W^T + bias) (* scale) (+ residual). `weights` are stacked along N: q, k, v of one attention; with
 * 'siluMul' exactly two of equal N, gate then up, and out = silu(gate) * up has width N.
 * 'gelu' is the exact one, x / 2 * (1 + erf(x / sqrt(2))). `residual` may be the same tensor as `out`. Bias ids follow `weights` one to one when given.
 */
export interface LinearOp {
  readonly op: 'linear';
  readonly x: TensorId;
  readonly weights: readonly WeightId[];
  readonly biases?: readonly WeightId[];
  readonly epilogue: 'none' | 'siluMul' | 'gelu';
  /** One factor per column of out: a layer scale. */
  readonly scale?: WeightId;
  readonly residual?: TensorId;
  readonly out: TensorId;
}

/**
 * qkv is (T, (heads + 2 kvHeads) * D): q heads, then k heads, then v heads. Rotates q and k in place by
 * positions[t] (half-split order) and writes k, v of token t to cache slot slotMapping[t] of `layer`
 * (slot = blockId * blockSize + offset; -1: do not store). Without `rope` nothing is rotated.
 */
export interface RopeAndCacheOp {
  readonly op: 'ropeAndCache';
  readonly qkv: TensorId;
  readonly layer: number;
  readonly rope?: RopeSpec;
}

/**
 * Causal attention of every token of the step over the paged cache of `layer`, bottom-right aligned:
 * query i of a sequence with q queries and c keys sees keys 0 .. c - q + i; with `causal: false` it sees all c. out is
 * (T, heads * D).
 * The keys are cut into partitions of `ATTENTION_PARTITION` tokens, merged in index order, so that the bits of
 * a row depend on nothing but its own sequence.
 */
export interface AttentionOp {
  readonly op: 'attention';
  readonly qkv: TensorId;
  readonly layer: number;
  readonly scale: number;
  /** Default true. */
  readonly causal?: boolean;
  readonly out: TensorId;
}

/**
 * out[l] = x[logitRows[l]], (L, width). With `offsets`, out[l] is the rows x[logitRows[l] + offset] side by side, in order of
 * the offsets, (L, width * offsets.length): what a pixel shuffle does with the four patches of a square.
 */
export interface GatherRowsOp {
  readonly op: 'gatherRows';
  readonly x: TensorId;
  readonly offsets?: readonly number[];
  readonly out: TensorId;
}

/** x = the sum of x over all ranks, in place: added in the order of the ranks, so that every rank has the same bits. */
export interface AllReduceOp {
  readonly op: 'allReduce';
  readonly x: TensorId;
}

/** out (rows, sum of widths) = x of rank 0, of rank 1, ... side by side. `widths` are those of x on every rank, in their order. */
export interface AllGatherOp {
  readonly op: 'allGather';
  readonly x: TensorId;
  readonly widths: readonly number[];
  readonly out: TensorId;
}

/**
 * Draws one token id per logit row from logits (L, V) by `StepInputs.sampling`; the order of its stages is that of
 * `kernels/reference/sample.ts`. The last op of a program; a program without it samples nothing. Of several ranks only rank 0 has it.
 */
export interface SampleOp {
  readonly op: 'sample';
  readonly logits: TensorId;
}

export type Op =
  | EmbeddingOp
  | InputOp
  | ScatterRowsOp
  | RmsNormOp
  | LayerNormOp
  | QueryKeySquaresOp
  | QueryKeyNormOp
  | LinearOp
  | RopeAndCacheOp
  | AttentionOp
  | GatherRowsOp
  | AllReduceOp
  | AllGatherOp
  | SampleOp;

/** Keys per attention partition. A constant of the arithmetic: changing it changes bits, not results. */
export const ATTENTION_PARTITION = 512;

/** Shape of the paged cache that the attention ops of a program share. */
export interface CacheSpec {
  readonly layers: number;
  readonly kvHeads: number;
  readonly headSize: number;
}

/** Place among the programs that split one model between devices: all run the same ops in the same order. */
export interface Rank {
  /** 0 .. count - 1 */
  readonly index: number;
  readonly count: number;
}

/** `heads`, `cache.kvHeads` and the sizes of weights and tensors are those of the rank. */
export interface Program {
  readonly name: string;
  /** Absent: the model is whole. */
  readonly rank?: Rank;
  readonly weights: readonly WeightSource[];
  readonly tensors: readonly TensorSpec[];
  readonly ops: readonly Op[];
  readonly heads: number;
  readonly cache: CacheSpec;
  /** Rows of the logits, padding included. */
  readonly vocabularyRows: number;
  /** Ids the tokenizer can decode; rows from here on are padding and are never sampled. */
  readonly validTokenCount: number;
}
