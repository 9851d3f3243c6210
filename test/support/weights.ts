/** Random checkpoint tensors of every storage type, and plain ones of given values. */
import type { StorageType, WeightSource } from '#kernels/program.ts';
import { elementCount, STORAGE_FORMATS, storageBytes } from '#kernels/storage.ts';
import type { Random } from './random.ts';

const value = new Float32Array(1);
const bits = new Uint32Array(value.buffer);

/** Upper 16 bits of the nearest bfloat16. */
export function bfloat16Bits(x: number): number {
  value[0] = x;
  return (bits[0]! + 0x7fff + ((bits[0]! >>> 16) & 1)) >>> 16;
}

/** Bits of a half near x: fraction cut off, subnormals rounded. Magnitudes from 65520 on are refused. */
export function halfBits(x: number): number {
  value[0] = x;
  const sign = (bits[0]! >>> 16) & 0x8000;
  const exponent = ((bits[0]! >>> 23) & 255) - 127 + 15;
  if (exponent > 30) throw new RangeError(`${x} is beyond the range of a half`);
  if (exponent < 1) return sign | Math.round(Math.abs(x) * 2 ** 24);
  return sign | (exponent << 10) | ((bits[0]! >>> 13) & 0x3ff);
}

/** An f32 weight of these values. */
export function plainWeight(
  name: string,
  shape: readonly number[],
  values: ArrayLike<number>,
): WeightSource {
  const data = new Uint8Array(Float32Array.from(values).buffer);
  return { name, type: 'f32', shape, bytes: { data } };
}

/** Where the halves of a block lie, and the largest magnitude of a level that the first of them scales. */
const quantised: Record<string, { scales: number[]; minimums: number[]; spread: number }> = {
  q4_0: { scales: [0], minimums: [], spread: 4.6 },
  q4_1: { scales: [0], minimums: [2], spread: 4.6 },
  q5_0: { scales: [0], minimums: [], spread: 9.2 },
  q5_1: { scales: [0], minimums: [2], spread: 9.2 },
  q8_0: { scales: [0], minimums: [], spread: 74 },
  q4_k: { scales: [0], minimums: [2], spread: 4.6 * 36 },
  q5_k: { scales: [0], minimums: [2], spread: 9.2 * 36 },
  q6_k: { scales: [208], minimums: [], spread: 18.5 * 74 },
};

/**
 * A weight whose values spread around zero by about `deviation`: normal draws for plain types, random blocks with scales of
 * matching size for quantised ones (every bit of levels and sub-scales is used).
 */
export function randomWeight(
  random: Random,
  name: string,
  type: StorageType,
  shape: readonly number[],
  deviation = 1,
): WeightSource {
  const data = new Uint8Array(storageBytes(type, shape));
  const view = new DataView(data.buffer);
  const layout = quantised[type];
  if (!layout) {
    for (let i = 0; i < elementCount(shape); i++) {
      const x = deviation * random.normal();
      if (type === 'f32') view.setFloat32(4 * i, x, true);
      else if (type === 'bf16') view.setUint16(2 * i, bfloat16Bits(x), true);
      else view.setUint16(2 * i, halfBits(x), true);
    }
    return { name, type, shape, bytes: { data } };
  }
  for (let i = 0; i < data.length; i++) data[i] = random.integer(0, 255);
  const { blockBytes } = STORAGE_FORMATS[type];
  const signed = type === 'q4_1' || type === 'q5_1';
  for (let at = 0; at < data.length; at += blockBytes) {
    const scale = (deviation / layout.spread) * (0.5 + random.uniform());
    for (const offset of layout.scales) view.setUint16(at + offset, halfBits(scale), true);
    // The minimum centres the block: levels run from 0, so it is minus half their range (k types subtract it themselves).
    const middle = type === 'q4_1' || type === 'q4_k' ? 7.5 : 15.5;
    for (const offset of layout.minimums)
      view.setUint16(at + offset, halfBits(signed ? -scale * middle : scale * middle), true);
  }
  return { name, type, shape, bytes: { data } };
}
