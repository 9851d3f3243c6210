/** Parts of stored tensors as weights of their own, for layouts that hold several of them in one. */
import type { WeightBytes, WeightSource } from '#kernels/program.ts';
import { readBytes, readWeight } from '#kernels/reference/weights.ts';
import { storageBytes } from '#kernels/storage.ts';

/** The same bytes under another shape of as many values. */
export function reshaped(source: WeightSource, shape: readonly number[]): WeightSource {
  return { ...source, shape };
}

/** Rows [begin, begin + count) of the outermost axis, read from where they are: nothing is copied. */
export function sliceRows(source: WeightSource, begin: number, count: number): WeightSource {
  const shape = [count, ...source.shape.slice(1)];
  const rowBytes = storageBytes(source.type, source.shape) / source.shape[0]!;
  return {
    ...source,
    name: `${source.name}[${begin}:${begin + count}]`,
    shape,
    bytes: subrange(source.bytes, begin * rowBytes, count * rowBytes),
  };
}

function subrange(bytes: WeightBytes, offset: number, byteLength: number): WeightBytes {
  return 'data' in bytes
    ? { data: bytes.data.subarray(offset, offset + byteLength) }
    : { path: bytes.path, offset: bytes.offset + offset, byteLength };
}

/** Columns [0, count) of a matrix of plain numbers. They are cut out when a backend asks for them, and not kept here. */
export function firstColumns(source: WeightSource, count: number): WeightSource {
  const [rows, columns] = source.shape as [number, number];
  return {
    name: `${source.name}[:, :${count}]`,
    type: source.type,
    shape: [rows, count],
    get bytes() {
      const stored = readBytes(source.name, source.bytes);
      const valueBytes = stored.byteLength / (rows * columns);
      const data = new Uint8Array(rows * count * valueBytes);
      for (let row = 0; row < rows; row++) {
        const from = row * columns * valueBytes;
        data.set(stored.subarray(from, from + count * valueBytes), row * count * valueBytes);
      }
      return { data };
    },
  };
}

/** Whether the values of a weight are all 0; reads them. */
export function isZero(source: WeightSource): boolean {
  return readWeight(source).every((value) => value === 0);
}

/** `values` as an fp32 weight in memory. */
export function floatWeight(
  name: string,
  shape: readonly number[],
  values: Float32Array,
): WeightSource {
  const data = new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  return { name, type: 'f32', shape, bytes: { data } };
}
