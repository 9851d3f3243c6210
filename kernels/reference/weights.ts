/** Reads and decodes one checkpoint tensor, rows put into logical order. */
import { closeSync, openSync, readSync } from 'node:fs';
import { KernelError } from '../backend.ts';
import type { RowParts, WeightBytes, WeightSource } from '../program.ts';
import { dequantise } from './dequantise.ts';

/** The bytes of a weight as stored; a file shorter than the range says is refused with 'KERNEL_WEIGHT_INVALID'. */
export function readBytes(name: string, source: WeightBytes): Uint8Array {
  if ('data' in source) return source.data;
  if ('rows' in source) return cutRows(readBytes(name, source.rows), source);
  const bytes = new Uint8Array(source.byteLength);
  let file: number | undefined;
  try {
    file = openSync(source.path, 'r');
    let done = 0;
    while (done < bytes.length) {
      // One read call moves at most 2^31 - 1 bytes.
      const length = Math.min(bytes.length - done, 2 ** 30);
      const read = readSync(file, bytes, done, length, source.offset + done);
      if (read === 0) break;
      done += read;
    }
    if (done < bytes.length)
      throw new KernelError(
        'KERNEL_WEIGHT_INVALID',
        `weight ${name}: expected ${bytes.length} bytes at offset ${source.offset} of ${source.path}, received ${done}; the file is truncated`,
      );
    return bytes;
  } catch (error) {
    if (error instanceof KernelError) throw error;
    throw new KernelError(
      'KERNEL_WEIGHT_INVALID',
      `weight ${name}: ${source.path} cannot be read: ${(error as Error).message}`,
      { cause: error },
    );
  } finally {
    if (file !== undefined) closeSync(file);
  }
}

function cutRows(stored: Uint8Array, { rowBytes, begin, end }: RowParts): Uint8Array {
  const width = end - begin;
  const out = new Uint8Array((stored.length / rowBytes) * width);
  for (let row = 0, at = 0; row < stored.length; row += rowBytes, at += width)
    out.set(stored.subarray(row + begin, row + end), at);
  return out;
}

/** fp32 values of a weight, row-major in its logical row order (see `WeightSource.rowOrder`). */
export function readWeight(weight: WeightSource): Float32Array {
  const stored = dequantise(weight.type, readBytes(weight.name, weight.bytes));
  if (!weight.rowOrder) return stored;
  const { headSize } = weight.rowOrder;
  const rows = weight.shape[0]!;
  const width = stored.length / rows;
  const out = new Float32Array(stored.length);
  for (let row = 0; row < rows; row++) {
    const i = row % headSize;
    const head = row - i;
    const storedRow = head + (i < headSize / 2 ? 2 * i : 2 * (i - headSize / 2) + 1);
    out.set(stored.subarray(storedRow * width, (storedRow + 1) * width), row * width);
  }
  return out;
}
