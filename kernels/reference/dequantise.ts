/** Stored bytes to fp32 values, one function per storage type. Layouts: ggml's block definitions, GGUF's IEEE halves, bfloat16. */
import type { StorageType } from '../program.ts';
import { STORAGE_FORMATS } from '../storage.ts';

/** IEEE half (as 16 bits) to its exact value. */
export function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

const conversionBits = new Uint32Array(1);
const conversionValue = new Float32Array(conversionBits.buffer);

/** bfloat16 (as 16 bits) to its exact value. */
export function bfloat16ToNumber(bits: number): number {
  conversionBits[0] = bits << 16;
  return conversionValue[0]!;
}

/** Nearest bfloat16 value of an fp32 value, ties to even. Infinities stay, NaN stays NaN. */
export function roundToBfloat16(value: number): number {
  conversionValue[0] = value;
  const bits = conversionBits[0]!;
  if ((bits & 0x7f800000) === 0x7f800000) return value;
  conversionBits[0] = bits + 0x7fff + ((bits >>> 16) & 1);
  conversionBits[0] &= 0xffff0000;
  return conversionValue[0]!;
}

/** Writes the values of the block at byte `at` of `view` to out[to ..]. */
type DecodeBlock = (view: DataView, at: number, out: Float32Array, to: number) => void;

const half = (view: DataView, at: number): number => halfToNumber(view.getUint16(at, true));

/** 16 bytes of nibbles: value i < 16 is the low nibble of byte i, value 16 + i its high nibble. */
function nibble(view: DataView, at: number, i: number): number {
  const byte = view.getUint8(at + (i & 15));
  return i < 16 ? byte & 15 : byte >> 4;
}

/** 32 fifth bits in a little-endian word, in value order. */
function fifthBit(view: DataView, at: number, i: number): number {
  return (view.getUint32(at, true) >>> i) & 1;
}

/**
 * Scale and minimum of sub-block j (0..7) of a q4_k or q5_k super-block, six bits each in 12 bytes: the first four pairs lie in
 * the low bits of bytes j and j + 4; of the last four, low nibbles lie in bytes j + 4, and the top bits above the first pairs.
 */
function scaleAndMinimum(view: DataView, at: number, j: number): [number, number] {
  const byte = (i: number): number => view.getUint8(at + i);
  if (j < 4) return [byte(j) & 63, byte(j + 4) & 63];
  return [
    (byte(j + 4) & 15) | ((byte(j - 4) >> 6) << 4),
    (byte(j + 4) >> 4) | ((byte(j) >> 6) << 4),
  ];
}

const decodeBlock: Record<StorageType, DecodeBlock> = {
  f32: (view, at, out, to) => {
    out[to] = view.getFloat32(at, true);
  },
  f16: (view, at, out, to) => {
    out[to] = half(view, at);
  },
  bf16: (view, at, out, to) => {
    out[to] = bfloat16ToNumber(view.getUint16(at, true));
  },
  q4_0: (view, at, out, to) => {
    const scale = half(view, at);
    for (let i = 0; i < 32; i++) out[to + i] = scale * (nibble(view, at + 2, i) - 8);
  },
  q4_1: (view, at, out, to) => {
    const scale = half(view, at);
    const minimum = half(view, at + 2);
    for (let i = 0; i < 32; i++) out[to + i] = scale * nibble(view, at + 4, i) + minimum;
  },
  q5_0: (view, at, out, to) => {
    const scale = half(view, at);
    for (let i = 0; i < 32; i++) {
      const level = nibble(view, at + 6, i) | (fifthBit(view, at + 2, i) << 4);
      out[to + i] = scale * (level - 16);
    }
  },
  q5_1: (view, at, out, to) => {
    const scale = half(view, at);
    const minimum = half(view, at + 2);
    for (let i = 0; i < 32; i++) {
      const level = nibble(view, at + 8, i) | (fifthBit(view, at + 4, i) << 4);
      out[to + i] = scale * level + minimum;
    }
  },
  q8_0: (view, at, out, to) => {
    const scale = half(view, at);
    for (let i = 0; i < 32; i++) out[to + i] = scale * view.getInt8(at + 2 + i);
  },
  q4_k: (view, at, out, to) => {
    const scale = half(view, at);
    const minimum = half(view, at + 2);
    for (let j = 0; j < 8; j++) {
      const [subScale, subMinimum] = scaleAndMinimum(view, at + 4, j);
      for (let i = 0; i < 32; i++) {
        // Sub-blocks 2m and 2m + 1 share 32 bytes: low nibbles, then high nibbles.
        const byte = view.getUint8(at + 16 + 32 * (j >> 1) + i);
        const level = j & 1 ? byte >> 4 : byte & 15;
        out[to + 32 * j + i] = scale * subScale * level - minimum * subMinimum;
      }
    }
  },
  q5_k: (view, at, out, to) => {
    const scale = half(view, at);
    const minimum = half(view, at + 2);
    for (let j = 0; j < 8; j++) {
      const [subScale, subMinimum] = scaleAndMinimum(view, at + 4, j);
      for (let i = 0; i < 32; i++) {
        const byte = view.getUint8(at + 48 + 32 * (j >> 1) + i);
        const fifth = (view.getUint8(at + 16 + i) >> j) & 1;
        const level = (j & 1 ? byte >> 4 : byte & 15) | (fifth << 4);
        out[to + 32 * j + i] = scale * subScale * level - minimum * subMinimum;
      }
    }
  },
  q6_k: (view, at, out, to) => {
    const scale = half(view, at + 208);
    for (let i = 0; i < 256; i++) {
      // Each half of 128 values has 64 low bytes and 32 high bytes; value 32 q + r of it takes the low or high nibble of low
      // byte 32 (q & 1) + r, and bits 2 q of high byte r. Sub-scales are one per 16 values.
      const part = i >> 7;
      const quarter = (i >> 5) & 3;
      const r = i & 31;
      const low = view.getUint8(at + 64 * part + 32 * (quarter & 1) + r);
      const high = view.getUint8(at + 128 + 32 * part + r);
      const level = (quarter < 2 ? low & 15 : low >> 4) | (((high >> (2 * quarter)) & 3) << 4);
      out[to + i] = scale * view.getInt8(at + 192 + (i >> 4)) * (level - 32);
    }
  },
};

/**
 * Decodes whole blocks. `bytes` must hold a whole number of blocks of `type`; returns their values in order.
 * Arithmetic is in double, rounded to fp32 once per value.
 */
export function dequantise(type: StorageType, bytes: Uint8Array): Float32Array {
  const { blockLength, blockBytes } = STORAGE_FORMATS[type];
  const blocks = bytes.byteLength / blockBytes;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const out = new Float32Array(blocks * blockLength);
  const decode = decodeBlock[type];
  for (let b = 0; b < blocks; b++) decode(view, b * blockBytes, out, b * blockLength);
  return out;
}
