/** Sizes of the storage types and the compute type each runs in; shared by every backend and by checkpoint readers. */
import type {
  CacheType,
  ComputeType,
  Program,
  StorageType,
  WeightBytes,
  WeightSource,
} from './program.ts';

export interface StorageFormat {
  /** Values per block along the last axis; a row must be a whole number of blocks. */
  readonly blockLength: number;
  readonly blockBytes: number;
}

/** Byte sizes as GGUF defines them; plain types are blocks of one. */
export const STORAGE_FORMATS: Readonly<Record<StorageType, StorageFormat>> = {
  f32: { blockLength: 1, blockBytes: 4 },
  f16: { blockLength: 1, blockBytes: 2 },
  bf16: { blockLength: 1, blockBytes: 2 },
  q4_0: { blockLength: 32, blockBytes: 18 },
  q4_1: { blockLength: 32, blockBytes: 20 },
  q5_0: { blockLength: 32, blockBytes: 22 },
  q5_1: { blockLength: 32, blockBytes: 24 },
  q8_0: { blockLength: 32, blockBytes: 34 },
  q4_k: { blockLength: 256, blockBytes: 144 },
  q5_k: { blockLength: 256, blockBytes: 176 },
  q6_k: { blockLength: 256, blockBytes: 210 },
};

/** Number of values of a shape; 1 for a scalar. */
export function elementCount(shape: readonly number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** Bytes of a tensor as stored. The last axis must be a multiple of the type's block length. */
export function storageBytes(type: StorageType, shape: readonly number[]): number {
  const { blockLength, blockBytes } = STORAGE_FORMATS[type];
  return (elementCount(shape) / blockLength) * blockBytes;
}

/** Bytes there are of a weight; for part of each row, those parts together. */
export function byteCount(bytes: WeightBytes): number {
  if ('data' in bytes) return bytes.data.byteLength;
  if ('path' in bytes) return bytes.byteLength;
  return (byteCount(bytes.rows) / bytes.rowBytes) * (bytes.end - bytes.begin);
}

/** Arithmetic in which a linear over weights stored as `type` runs, see `LoadOptions.computeType`. */
export function computeTypeOf(type: StorageType, requested: ComputeType | 'auto'): ComputeType {
  if (requested !== 'auto') return requested;
  switch (type) {
    case 'f32':
    case 'f16':
      return 'float32';
    case 'bf16':
      return 'bfloat16';
    case 'q4_0':
    case 'q4_1':
    case 'q4_k':
      return 'int4';
    default:
      return 'int8';
  }
}

/**
 * What keys and values are kept in: 'auto' is as exact as the arithmetic around it, fp32 for float32, bf16 for bfloat16 and int8
 * for int8 and int4, whose linears round activations to int8 too.
 */
export function cacheTypeOf(
  computeType: ComputeType,
  requested: CacheType | 'auto' = 'auto',
): CacheType {
  if (requested !== 'auto') return requested;
  return computeType === 'int4' ? 'int8' : computeType;
}

/** The compute type of the program's largest linear weight: what `LoadedProgram.computeType` reports. */
export function largestComputeType(program: Program, requested: ComputeType | 'auto'): ComputeType {
  let largest: WeightSource | undefined;
  for (const op of program.ops) {
    if (op.op !== 'linear') continue;
    for (const id of op.weights) {
      const weight = program.weights[id];
      if (weight && (!largest || elementCount(weight.shape) > elementCount(largest.shape)))
        largest = weight;
    }
  }
  return computeTypeOf(largest?.type ?? 'f32', requested);
}
