/**
 * The dense ops on row-major fp32 arrays, in plain loops that accumulate in double and round once per value stored.
 * T tokens, K input and N output features.
 */
import type { RopeSpec } from '../program.ts';

/** out (T, width) = table[rows[t]]; zeros for a row that the table does not have. */
export function embedding(
  table: Float32Array,
  width: number,
  rows: Int32Array,
  out: Float32Array,
): void {
  rows.forEach((row, t) => {
    const isOwn = row >= 0 && (row + 1) * width <= table.length;
    if (isOwn) out.set(table.subarray(row * width, (row + 1) * width), t * width);
    else out.fill(0, t * width, (t + 1) * width);
  });
}

/** See `RmsNormOp`; x, residual and out are (rows, width), and rows = x.length / width. */
export function rmsNorm(
  x: Float32Array,
  residual: Float32Array | undefined,
  weight: Float32Array,
  eps: number,
  out: Float32Array,
): void {
  const width = weight.length;
  for (let row = 0; row < x.length; row += width) {
    let source = x;
    if (residual) {
      for (let i = row; i < row + width; i++) residual[i]! += x[i]!;
      source = residual;
    }
    let squares = 0;
    for (let i = row; i < row + width; i++) squares += source[i]! * source[i]!;
    const scale = 1 / Math.sqrt(squares / width + eps);
    for (let i = 0; i < width; i++) out[row + i] = source[row + i]! * scale * weight[i]!;
  }
}

/** out (rows, N) = x (rows, K) @ weight (N, K)^T + bias (N). Sums run over K in order, in double. */
export function matmulTransposed(
  x: Float32Array,
  weight: Float32Array,
  width: number,
  bias: Float32Array | undefined,
): Float32Array {
  const rows = x.length / width;
  const outputs = weight.length / width;
  const out = new Float32Array(rows * outputs);
  // Weight rows outermost: each is read from memory once however many rows x has. Four rows of x share one pass.
  for (let n = 0; n < outputs; n++) {
    const at = n * width;
    const start = bias ? bias[n]! : 0;
    let row = 0;
    for (; row + 4 <= rows; row += 4) {
      const x0 = row * width;
      const x1 = x0 + width;
      const x2 = x1 + width;
      const x3 = x2 + width;
      let sum0 = 0;
      let sum1 = 0;
      let sum2 = 0;
      let sum3 = 0;
      for (let k = 0; k < width; k++) {
        const w = weight[at + k]!;
        sum0 += w * x[x0 + k]!;
        sum1 += w * x[x1 + k]!;
        sum2 += w * x[x2 + k]!;
        sum3 += w * x[x3 + k]!;
      }
      out[row * outputs + n] = sum0 + start;
      out[(row + 1) * outputs + n] = sum1 + start;
      out[(row + 2) * outputs + n] = sum2 + start;
      out[(row + 3) * outputs + n] = sum3 + start;
    }
    for (; row < rows; row++) {
      const from = row * width;
      let sum = 0;
      for (let k = 0; k < width; k++) sum += weight[at + k]! * x[from + k]!;
      out[row * outputs + n] = sum + start;
    }
  }
  return out;
}

/** See `LayerNormOp`; x and out are (rows, width), and rows = x.length / width. */
export function layerNorm(
  x: Float32Array,
  weight: Float32Array,
  bias: Float32Array,
  eps: number,
  out: Float32Array,
): void {
  const width = weight.length;
  for (let row = 0; row < x.length; row += width) {
    let sum = 0;
    for (let i = row; i < row + width; i++) sum += x[i]!;
    const mean = sum / width;
    let squares = 0;
    for (let i = row; i < row + width; i++) squares += (x[i]! - mean) ** 2;
    const scale = 1 / Math.sqrt(squares / width + eps);
    for (let i = 0; i < width; i++)
      out[row + i] = (x[row + i]! - mean) * scale * weight[i]! + bias[i]!;
  }
}

/** Sum of the squares of x[at .. at + width), in double. */
export function sumOfSquares(x: Float32Array, at: number, width: number): number {
  let sum = 0;
  for (let i = at; i < at + width; i++) sum += x[i]! * x[i]!;
  return sum;
}

/** x[at .. at + weight.length) = x * scale * weight. */
export function scaleByNorm(
  x: Float32Array,
  at: number,
  weight: Float32Array,
  scale: number,
): void {
  for (let i = 0; i < weight.length; i++) x[at + i] = x[at + i]! * scale * weight[i]!;
}

/** The exact GELU, x / 2 * erfc(-x / sqrt(2)), to double precision. */
export function gelu(x: number): number {
  return (x / 2) * erfc(-x * Math.SQRT1_2);
}

/** Series of Abramowitz & Stegun 7.1.6 near 0, continued fraction 7.1.14 beyond. */
function erfc(x: number): number {
  const z = Math.abs(x);
  if (Number.isNaN(x)) return x;
  if (z > 27) return x < 0 ? 2 : 0;
  const gaussian = Math.exp(-z * z);
  if (z < 2.5) {
    let term = z;
    let sum = z;
    for (let n = 1; term > 1e-17 * sum; n++) {
      term *= (2 * z * z) / (2 * n + 1);
      sum += term;
    }
    const erf = (2 / Math.sqrt(Math.PI)) * gaussian * sum;
    return x < 0 ? 1 + erf : 1 - erf;
  }
  let fraction = z;
  for (let n = 60; n > 0; n--) fraction = z + n / 2 / fraction;
  const tail = gaussian / (fraction * Math.sqrt(Math.PI));
  return x < 0 ? 2 - tail : tail;
}

/** silu(x) = x / (1 + exp(-x)). */
export function silu(x: number): number {
  return x / (1 + Math.exp(-x));
}

/**
 * Rotates `heads` heads of `headSize` that start at x[at], half-split order: the pair (i, i + D/2) turns by
 * position * inverseFrequencies[i]. The angle is rounded to fp32, as transformers computes it.
 */
export function rotate(
  x: Float32Array,
  at: number,
  heads: number,
  headSize: number,
  position: number,
  rope: RopeSpec,
): void {
  const half = headSize / 2;
  for (let i = 0; i < half; i++) {
    const angle = Math.fround(position * rope.inverseFrequencies[i]!);
    const cosine = Math.fround(Math.cos(angle) * rope.magnitude);
    const sine = Math.fround(Math.sin(angle) * rope.magnitude);
    for (let head = at; head < at + heads * headSize; head += headSize) {
      const first = x[head + i]!;
      const second = x[head + half + i]!;
      x[head + i] = first * cosine - second * sine;
      x[head + half + i] = second * cosine + first * sine;
    }
  }
}
