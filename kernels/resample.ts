/** Resampling of 8-bit RGB in native code, for callers that have a thread to spend on it. */
import { loadAddon } from './cpu/addon.ts';

/** For each output position the first input position that counts, how many count, and their weights in fixed point. */
export interface ResampleAxis {
  /** Weights stored for each output position. */
  readonly taps: number;
  /** [output] */
  readonly first: Int32Array;
  /** [output] */
  readonly count: Int32Array;
  /** [output, taps], times 2^22 */
  readonly weights: Int32Array;
}

export interface Resampler {
  /** Rows [top, top + rows) of a (height, width, 3) image, each to `axis`: (rows, outputs, 3). */
  rows(
    source: Uint8Array,
    width: number,
    top: number,
    rows: number,
    axis: ResampleAxis,
  ): Uint8Array;
  /** A (height, width, 3) image, its columns to `axis`: (outputs, width, 3). */
  columns(source: Uint8Array, width: number, axis: ResampleAxis): Uint8Array;
}

let known: Resampler | undefined | null = null;

/** Undefined where the addon is not built. Calls block their thread for the whole work. */
export function nativeResampler(): Resampler | undefined {
  if (known === null) known = load();
  return known;
}

function load(): Resampler | undefined {
  let native: ReturnType<typeof loadAddon>;
  try {
    native = loadAddon();
  } catch {
    return undefined;
  }
  return {
    rows(source, width, top, rows, axis) {
      check(source, axis, width, (top + rows) * width * 3);
      const part = source.subarray(top * width * 3, (top + rows) * width * 3);
      const out = new Uint8Array(rows * axis.first.length * 3);
      native.resampleRows(part, width, rows, axis.taps, axis.first, axis.count, axis.weights, out);
      return out;
    },
    columns(source, width, axis) {
      const height = Math.floor(source.length / (width * 3));
      check(source, axis, height, width * height * 3);
      const out = new Uint8Array(axis.first.length * width * 3);
      native.resampleColumns(source, width, axis.taps, axis.first, axis.count, axis.weights, out);
      return out;
    },
  };
}

/** Native code trusts every index: a wrong one is a bug of the caller, and must not read wild memory. */
function check(source: Uint8Array, axis: ResampleAxis, inputs: number, bytes: number): void {
  const { taps, first, count, weights } = axis;
  const fits =
    source.length >= bytes &&
    count.length === first.length &&
    weights.length === first.length * taps &&
    first.every((start, i) => start >= 0 && count[i]! <= taps && start + count[i]! <= inputs);
  if (!fits) throw new RangeError('the weights do not belong to an image of this size');
}
