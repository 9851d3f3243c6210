/** Bytes a tensor takes in each storage type, and the check of a shape against a byte range. */
import type { StorageType } from '#kernels/program.ts';
import { CheckpointError } from './errors.ts';

/** Elements and bytes of one block along the innermost axis (ggml's block formats; 1 element for plain types). */
export const STORAGE_BLOCKS: Readonly<
  Record<StorageType, { readonly elements: number; readonly bytes: number }>
> = {
  f32: { elements: 1, bytes: 4 },
  f16: { elements: 1, bytes: 2 },
  bf16: { elements: 1, bytes: 2 },
  q4_0: { elements: 32, bytes: 18 },
  q4_1: { elements: 32, bytes: 20 },
  q5_0: { elements: 32, bytes: 22 },
  q5_1: { elements: 32, bytes: 24 },
  q8_0: { elements: 32, bytes: 34 },
  q4_k: { elements: 256, bytes: 144 },
  q5_k: { elements: 256, bytes: 176 },
  q6_k: { elements: 256, bytes: 210 },
};

/** Most dimensions a tensor may have: both formats' models stay far below. */
const MAX_DIMENSIONS = 8;

/**
 * Bytes of a tensor of `shape` (outermost first). Throws CHECKPOINT_TENSOR_INVALID when a dimension is not a whole
 * number, the product leaves the exact range of a double, or the innermost axis is no multiple of the type's block.
 */
export function tensorByteLength(
  type: StorageType,
  shape: readonly number[],
  file: string,
  tensor: string,
): number {
  const refuse = (expected: string): never => {
    throw new CheckpointError('CHECKPOINT_TENSOR_INVALID', 'impossible shape', {
      file,
      tensor,
      expected,
      received: `[${shape.slice(0, MAX_DIMENSIONS + 1).join(', ')}]`,
    });
  };
  if (shape.length > MAX_DIMENSIONS) refuse(`at most ${MAX_DIMENSIONS} dimensions`);
  const block = STORAGE_BLOCKS[type];
  let elements = 1;
  for (const size of shape) {
    if (!Number.isSafeInteger(size) || size < 0) refuse('whole, non-negative dimensions');
    elements *= size;
    if (!Number.isSafeInteger(elements)) refuse('fewer than 2^53 elements');
  }
  if ((shape.at(-1) ?? 1) % block.elements !== 0) {
    refuse(`an innermost dimension that is a multiple of ${block.elements} for ${type}`);
  }
  const byteLength = (elements / block.elements) * block.bytes;
  if (!Number.isSafeInteger(byteLength)) refuse('fewer than 2^53 bytes');
  return byteLength;
}
