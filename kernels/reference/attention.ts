/** Paged attention, one query and one head at a time: scores, softmax, weighted sum, all in double. */
import type { StepInputs } from '../step.ts';
import type { CacheRounding } from './cache-rounding.ts';

/** Keys and values of one layer, each (slots, kvHeads * D); slot = block * blockSize + offset. */
export interface LayerCache {
  readonly keys: Float32Array;
  readonly values: Float32Array;
}

export interface AttentionShape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  readonly blockSize: number;
  readonly scale: number;
  readonly causal: boolean;
  /** That of the cache; queries are rounded by it too. Probabilities are not. */
  readonly rounding: CacheRounding;
}

/** Slots of the first `length` keys of sequence s, in order. */
function keySlots(inputs: StepInputs, s: number, length: number, blockSize: number): Int32Array {
  const slots = new Int32Array(length);
  for (let i = 0; i < length; i++) {
    const block = inputs.blockTables[s * inputs.maxBlocksPerSequence + Math.floor(i / blockSize)]!;
    slots[i] = block * blockSize + (i % blockSize);
  }
  return slots;
}

/**
 * out (T, heads * D) from the rotated queries of qkv (T, (heads + 2 kvHeads) * D). Query i of a sequence with q queries and
 * c keys sees keys 0 .. c - q + i, all c when not causal. Heads h * heads / kvHeads .. of queries share key head h.
 */
export function attention(
  qkv: Float32Array,
  cache: LayerCache,
  inputs: StepInputs,
  shape: AttentionShape,
  out: Float32Array,
): void {
  const { heads, kvHeads, headSize, blockSize, scale, causal, rounding } = shape;
  const group = heads / kvHeads;
  const qkvWidth = (heads + 2 * kvHeads) * headSize;
  const kvWidth = kvHeads * headSize;
  const sum = new Float64Array(headSize);
  // Scores are in units of log 2: exp(scale * q k) = 2^(scale * log2(e) * q k).
  const factor = Math.fround(Math.fround(scale) * Math.fround(Math.LOG2E));
  const query = new Float32Array(headSize);
  for (let s = 0; s < inputs.seqLens.length; s++) {
    const first = inputs.cuSeqlensQ[s]!;
    const queries = inputs.cuSeqlensQ[s + 1]! - first;
    const keys = inputs.seqLens[s]!;
    const slots = keySlots(inputs, s, keys, blockSize);
    const scores = new Float64Array(keys);
    for (let i = 0; i < queries; i++) {
      const visible = causal ? keys - queries + i + 1 : keys;
      for (let head = 0; head < heads; head++) {
        const q = (first + i) * qkvWidth + head * headSize;
        const kv = Math.floor(head / group) * headSize;
        for (let d = 0; d < headSize; d++) {
          query[d] = rounding.query(Math.fround(qkv[q + d]! * factor));
        }
        let highest = Number.NEGATIVE_INFINITY;
        for (let j = 0; j < visible; j++) {
          const k = slots[j]! * kvWidth + kv;
          let dot = 0;
          for (let d = 0; d < headSize; d++) dot += query[d]! * cache.keys[k + d]!;
          scores[j] = dot;
          highest = Math.max(highest, dot);
        }
        sum.fill(0);
        let normaliser = 0;
        for (let j = 0; j < visible; j++) {
          const weight = 2 ** (scores[j]! - highest);
          normaliser += weight;
          const v = slots[j]! * kvWidth + kv;
          for (let d = 0; d < headSize; d++) sum[d]! += weight * cache.values[v + d]!;
        }
        const to = (first + i) * heads * headSize + head * headSize;
        for (let d = 0; d < headSize; d++) out[to + d] = sum[d]! / normaliser;
      }
    }
  }
}
