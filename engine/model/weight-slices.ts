/** Parts of stored tensors as weights of their own: ranks hold shares, and some layouts hold several weights in one tensor. */
import type { StoredBytes, WeightSource } from '#kernels/program.ts';
import { readBytes, readWeight } from '#kernels/reference/weights.ts';
import { STORAGE_FORMATS, storageBytes } from '#kernels/storage.ts';

/** begin .. begin + count - 1. */
export interface Range {
  readonly begin: number;
  readonly count: number;
}

/** Rows (the outermost axis, values of a vector) and columns of a tensor; absent: all of them. */
export interface Part {
  readonly rows?: Range | undefined;
  readonly columns?: Range | undefined;
}

/** The same bytes under another shape of as many values. */
export function reshaped(source: WeightSource, shape: readonly number[]): WeightSource {
  return { ...source, shape };
}

/** `range` of units of `size`, as values. */
export function scaled(range: Range, size: number): Range {
  return { begin: range.begin * size, count: range.count * size };
}

/** What `slice` calls a part of a tensor: its name, `[begin:end]` of the rows and `, begin:end` of the columns. */
export function sliceName(name: string, { rows, columns }: Part): string {
  const shown = (range: Range | undefined): string =>
    range ? `${range.begin}:${range.begin + range.count}` : ':';
  if (!rows && !columns) return name;
  return `${name}[${shown(rows)}${columns ? `, ${shown(columns)}` : ''}]`;
}

/**
 * A part of a stored tensor; the tensor itself where the part is the whole. Nothing is read or copied here: rows are read from where
 * they are, and columns are cut out when a backend reads them. Columns must begin and end between blocks of a quantised type, and
 * rows of heads in rotary order between heads.
 */
export function slice(source: WeightSource, part: Part): WeightSource {
  const { blockLength } = STORAGE_FORMATS[source.type];
  const [height, width = 1] = source.shape as [number, number?];
  const rows = isAll(part.rows, height) ? undefined : part.rows;
  const columns = isAll(part.columns, width) ? undefined : part.columns;
  let { shape, bytes } = source;
  if (rows) {
    const rowBytes = storageBytes(source.type, source.shape) / height;
    shape = [rows.count, ...shape.slice(1)];
    bytes = subrange(stored(bytes), rows.begin * rowBytes, rows.count * rowBytes);
  }
  if (columns) {
    const columnBytes = storageBytes(source.type, [blockLength]) / blockLength;
    shape = [shape[0]!, columns.count];
    const begin = columns.begin * columnBytes;
    const end = begin + columns.count * columnBytes;
    bytes = { rows: stored(bytes), rowBytes: width * columnBytes, begin, end };
  }
  return { ...source, name: sliceName(source.name, { rows, columns }), shape, bytes };
}

function isAll(range: Range | undefined, size: number): boolean {
  return range === undefined || (range.begin === 0 && range.count === size);
}

function stored(bytes: WeightSource['bytes']): StoredBytes {
  if ('rows' in bytes) throw new TypeError('a part of a part of the columns');
  return bytes;
}

function subrange(bytes: StoredBytes, offset: number, byteLength: number): StoredBytes {
  return 'data' in bytes
    ? { data: bytes.data.subarray(offset, offset + byteLength) }
    : { path: bytes.path, offset: bytes.offset + offset, byteLength };
}

const zeros = new Uint8Array(1 << 16);

/** Whether the values of a weight are all 0; reads them. */
export function isZero(source: WeightSource): boolean {
  // Bytes of zeros are zeros in every type, and are compared fast; a minus zero is found by its value.
  const bytes = readBytes(source.name, source.bytes);
  for (let at = 0; at < bytes.length; at += zeros.length) {
    const piece = bytes.subarray(at, at + zeros.length);
    if (Buffer.compare(piece, zeros.subarray(0, piece.length)) !== 0)
      return readWeight(source).every((value) => value === 0);
  }
  return true;
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
