/**
 * The arithmetic of int8 and int4 linears, as values: what is left of activations and weights after quantisation. Every step
 * is rounded to fp32 as a native kernel rounds it, so that codes agree exactly and only the order of sums differs.
 */
import type { ComputeType, StorageType } from '../program.ts';
import { STORAGE_FORMATS } from '../storage.ts';

/** Values along K that share a scale. */
const GROUP = 32;

/** Nearest integer, ties to even. */
export function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
}

/** Calls visit(begin, end) for each group of 32 along the rows of `values` (rows, width); the last of a row may be shorter. */
function forEachGroup(
  length: number,
  width: number,
  visit: (begin: number, end: number) => void,
): void {
  for (let row = 0; row < length; row += width)
    for (let begin = row; begin < row + width; begin += GROUP)
      visit(begin, Math.min(begin + GROUP, row + width));
}

/** The largest magnitude of values[begin .. end); infinite or NaN when one of them is. */
export function largestMagnitude(values: Float32Array, begin: number, end: number): number {
  let largest = 0;
  for (let i = begin; i < end; i++) largest = Math.max(largest, Math.abs(values[i]!));
  return largest;
}

/**
 * x (rows, width) as int8 codes times a scale per group of 32: the largest magnitude becomes 127. A group with a value that is
 * not finite becomes NaN.
 */
export function quantiseActivations(x: Float32Array, width: number): Float32Array {
  const out = new Float32Array(x.length);
  forEachGroup(x.length, width, (begin, end) => {
    const largest = largestMagnitude(x, begin, end);
    const inverse = largest > 0 ? Math.fround(127 / largest) : 0;
    const scale = Number.isFinite(largest)
      ? Math.fround(largest * Math.fround(1 / 127))
      : Number.NaN;
    for (let i = begin; i < end; i++) out[i] = scale * roundHalfEven(Math.fround(x[i]! * inverse));
  });
  return out;
}

/** int8 weights of a type without codes of its own: symmetric, per group, largest magnitude 127. */
function quantiseSymmetric(values: Float32Array, begin: number, end: number): void {
  const largest = largestMagnitude(values, begin, end);
  const step = Math.fround(largest / 127);
  const inverse = step > 0 ? Math.fround(1 / step) : 0;
  for (let i = begin; i < end; i++) {
    const code = roundHalfEven(Math.fround(Math.fround(values[i]! * inverse) + 128));
    values[i] = step * (Math.min(code, 255) - 128);
  }
}

/** int4 weights of a type without 4-bit codes: 16 levels per group from its least to its greatest value, 0 among the range. */
function quantiseRange(values: Float32Array, begin: number, end: number): void {
  let least = 0;
  let most = 0;
  for (let i = begin; i < end; i++) {
    least = Math.min(least, values[i]!);
    most = Math.max(most, values[i]!);
  }
  const step = Math.fround(Math.fround(most - least) / 15);
  const inverse = step > 0 ? Math.fround(1 / step) : 0;
  for (let i = begin; i < end; i++) {
    const code = roundHalfEven(Math.fround(Math.fround(values[i]! - least) * inverse));
    values[i] = step * Math.min(code, 15) + least;
  }
}

/**
 * Weights (rows, width) stored as `type`, as an int8 or int4 linear multiplies by them. Codes that fit are kept exactly: every
 * quantised type in int8, the 4-bit ones in int4.
 */
export function quantiseWeights(
  values: Float32Array,
  width: number,
  type: StorageType,
  computeType: ComputeType,
): Float32Array {
  const quantised = STORAGE_FORMATS[type].blockLength > 1;
  const fits = computeType === 'int8' ? quantised : ['q4_0', 'q4_1', 'q4_k'].includes(type);
  if (fits) return values;
  const out = values.slice();
  const quantise = computeType === 'int8' ? quantiseSymmetric : quantiseRange;
  forEachGroup(out.length, width, (begin, end) => {
    quantise(out, begin, end);
  });
  return out;
}
