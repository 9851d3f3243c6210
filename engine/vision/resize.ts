/**
 * Bicubic resampling bit-equal to Pillow's `Image.resize(size, BICUBIC)` of 8-bit images: antialiased, a = -0.5, weights in
 * fixed point with 22 bits, one axis into 8 bits, then the other. Source of the algorithm: Pillow, src/libImaging/Resample.c.
 */
import { nativeResampler, type ResampleAxis, type Resampler } from '#kernels/resample.ts';
import type { RgbImage } from './pixels.ts';

const PRECISION_BITS = 22;
const HALF = 1 << (PRECISION_BITS - 1);
const CUBIC_SUPPORT = 2;

/** Throws RangeError when a size is not a positive integer. Blocks its thread: tens of milliseconds for a large picture. */
export function resizeBicubic(
  image: RgbImage,
  width: number,
  height: number,
  { rows: resampleRows, columns: resampleColumns }: Resampler = nativeResampler() ??
    PLAIN_RESAMPLER,
): RgbImage {
  for (const edge of [image.width, image.height, width, height]) {
    if (!Number.isInteger(edge) || edge < 1)
      throw new RangeError(`an edge must be 1 pixel or more, not ${edge}`);
  }
  if (width === image.width && height === image.height) return image;
  let { data } = image;
  let rows = image.height;
  const vertical = bicubicWeights(image.height, height);
  if (isVerticalFirst(image, width, height)) {
    data = resampleColumns(data, image.width, vertical);
    data = resampleRows(data, image.width, 0, height, bicubicWeights(image.width, width));
    return { width, height, data };
  }
  if (width !== image.width) {
    // Rows that no output row reads are left out.
    const top = vertical.first[0]!;
    const last = height - 1;
    const bottom = vertical.first[last]! + vertical.count[last]!;
    rows = bottom - top;
    data = resampleRows(data, image.width, top, rows, bicubicWeights(image.width, width));
    for (let y = 0; y < height; y++) vertical.first[y]! -= top;
  }
  if (height !== image.height) data = resampleColumns(data, width, vertical);
  return { width, height, data };
}

/** Whether it loses more than twice as many rows as columns: what is left for the other axis is then less. */
function isVerticalFirst(image: RgbImage, width: number, height: number): boolean {
  const lostRows = image.height - height;
  return width !== image.width && lostRows > 0 && lostRows > 2 * (image.width - width);
}

/** The cubic kernel with a = -0.5, zero from 2 on. Terms in Pillow's order: the last bit of a double counts. */
function cubic(distance: number): number {
  const a = -0.5;
  const x = Math.abs(distance);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

export function bicubicWeights(inputSize: number, outputSize: number): ResampleAxis {
  const scale = inputSize / outputSize;
  const filterScale = Math.max(scale, 1);
  const support = CUBIC_SUPPORT * filterScale;
  const taps = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(outputSize);
  const count = new Int32Array(outputSize);
  const weights = new Int32Array(outputSize * taps);
  const exact = new Float64Array(taps);
  const inverse = 1 / filterScale;
  for (let output = 0; output < outputSize; output++) {
    const centre = (output + 0.5) * scale;
    const from = Math.max(Math.trunc(centre - support + 0.5), 0);
    const used = Math.min(Math.trunc(centre + support + 0.5), inputSize) - from;
    let sum = 0;
    for (let tap = 0; tap < used; tap++) {
      const weight = cubic((tap + from - centre + 0.5) * inverse);
      exact[tap] = weight;
      sum += weight;
    }
    for (let tap = 0; tap < used; tap++) {
      const weight = sum === 0 ? exact[tap]! : exact[tap]! / sum;
      const rounding = weight < 0 ? -0.5 : 0.5;
      weights[output * taps + tap] = Math.trunc(rounding + weight * (1 << PRECISION_BITS));
    }
    first[output] = from;
    count[output] = used;
  }
  return { taps, first, count, weights };
}

function clip8(sum: number): number {
  const value = sum >> PRECISION_BITS;
  return value < 0 ? 0 : Math.min(value, 255);
}

function resampleRows(
  source: Uint8Array,
  inputWidth: number,
  top: number,
  rows: number,
  { taps, first, count, weights }: ResampleAxis,
): Uint8Array {
  const width = first.length;
  const out = new Uint8Array(rows * width * 3);
  let at = 0;
  for (let row = 0; row < rows; row++) {
    const start = (top + row) * inputWidth * 3;
    for (let x = 0; x < width; x++) {
      let red = HALF;
      let green = HALF;
      let blue = HALF;
      let from = start + first[x]! * 3;
      const end = x * taps + count[x]!;
      for (let tap = x * taps; tap < end; tap++, from += 3) {
        const weight = weights[tap]!;
        red = (red + Math.imul(source[from]!, weight)) | 0;
        green = (green + Math.imul(source[from + 1]!, weight)) | 0;
        blue = (blue + Math.imul(source[from + 2]!, weight)) | 0;
      }
      out[at] = clip8(red);
      out[at + 1] = clip8(green);
      out[at + 2] = clip8(blue);
      at += 3;
    }
  }
  return out;
}

/** All columns at once, a row of sums at a time: memory is read in its order. */
function resampleColumns(
  source: Uint8Array,
  width: number,
  { taps, first, count, weights }: ResampleAxis,
): Uint8Array {
  const height = first.length;
  const stride = width * 3;
  const out = new Uint8Array(height * stride);
  const sums = new Int32Array(stride);
  for (let y = 0; y < height; y++) {
    sums.fill(HALF);
    let from = first[y]! * stride;
    for (let tap = 0; tap < count[y]!; tap++, from += stride) {
      const weight = weights[y * taps + tap]!;
      for (let x = 0; x < stride; x++) {
        sums[x] = (sums[x]! + Math.imul(source[from + x]!, weight)) | 0;
      }
    }
    const at = y * stride;
    for (let x = 0; x < stride; x++) out[at + x] = clip8(sums[x]!);
  }
  return out;
}

/** The same in TypeScript: where the addon is not built, and to check it. */
export const PLAIN_RESAMPLER: Resampler = { rows: resampleRows, columns: resampleColumns };
