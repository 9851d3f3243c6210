/** What is left of keys and values in a cache, and of the queries that meet them; each step rounded to fp32 as a native kernel does. */
import type { CacheType } from '../program.ts';
import { roundToBfloat16 } from './dequantise.ts';
import { largestMagnitude, roundHalfEven } from './quantise.ts';

/** Dimensions of an int8 key that share a scale; a value's head shares one. */
const KEY_SPAN = 32;

const bits = new Uint32Array(1);
const single = new Float32Array(bits.buffer);

/** The least bf16 that is not below x >= 0; NaN for NaN. */
function bfloat16AtLeast(x: number): number {
  if (Number.isNaN(x)) return x;
  single[0] = x;
  bits[0] = (bits[0]! + 0xffff) & 0xffff0000;
  return single[0]!;
}

/** from[at .. at + count) as int8 codes of one scale, the least bf16 with which the largest magnitude fits 127. */
function roundToInt8(from: Float32Array, at: number, count: number, to: Float32Array, out: number) {
  const largest = largestMagnitude(from, at, at + count);
  const step = bfloat16AtLeast(Math.fround(largest * Math.fround(1 / 127)));
  const inverse = step > 0 ? Math.fround(1 / step) : 0;
  for (let i = 0; i < count; i++) {
    const code = roundHalfEven(Math.fround(from[at + i]! * inverse));
    to[out + i] = Number.isFinite(largest) ? step * code : Number.NaN;
  }
}

/** How one type of cache rounds. `headSize` values at `at` of `from` go to `out` of `to`. */
export interface CacheRounding {
  key(from: Float32Array, at: number, headSize: number, to: Float32Array, out: number): void;
  value(from: Float32Array, at: number, headSize: number, to: Float32Array, out: number): void;
  /** One number of a query, scale included. int8 caches meet int16 queries, which are as good as exact. */
  query(x: number): number;
}

const each =
  (round: (x: number) => number): CacheRounding['key'] =>
  (from, at, headSize, to, out) => {
    for (let i = 0; i < headSize; i++) to[out + i] = round(from[at + i]!);
  };
const exact = (x: number): number => x;

export const CACHE_ROUNDINGS: Readonly<Record<CacheType, CacheRounding>> = {
  float32: { key: each(exact), value: each(exact), query: exact },
  bfloat16: { key: each(roundToBfloat16), value: each(roundToBfloat16), query: roundToBfloat16 },
  int8: {
    key: (from, at, headSize, to, out) => {
      for (let d = 0; d < headSize; d += KEY_SPAN)
        roundToInt8(from, at + d, Math.min(KEY_SPAN, headSize - d), to, out + d);
    },
    value: roundToInt8,
    query: exact,
  },
};
