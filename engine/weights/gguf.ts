/**
 * The GGUF container, versions 2 and 3, little-endian: metadata and tensor table, read through a small window.
 * Layout as the format's specification gives it (ggml, docs/gguf.md). What the keys mean is in gguf-model.ts.
 */
import type { StorageType, WeightSource } from '#kernels/program.ts';
import { CheckpointError, shorten } from './errors.ts';
import { type FileReader, withFile } from './file-reader.ts';
import { tensorByteLength } from './storage.ts';
import { decodeUtf8 } from './strict-json.ts';

/** Numbers of 64 bits that fit a double exactly are numbers, others bigint. Arrays of numbers stay typed arrays. */
export type GgufValue =
  | number
  | bigint
  | boolean
  | string
  | readonly string[]
  | ArrayLike<number>
  | BigUint64Array
  | BigInt64Array
  | readonly GgufValue[];

export interface GgufFile {
  readonly path: string;
  readonly version: number;
  readonly metadata: ReadonlyMap<string, GgufValue>;
  /** By name as stored; shapes outermost first. */
  readonly tensors: ReadonlyMap<string, WeightSource>;
}

const WINDOW_BYTES = 1 << 20;
const MAX_METADATA_BYTES = 512 * 2 ** 20;
const MAX_NAME_BYTES = 65_535;
const MAX_DIMENSIONS = 4;
/** Arrays of arrays: no known key nests at all. */
const MAX_ARRAY_DEPTH = 3;

const STORAGE_TYPES: ReadonlyMap<number, StorageType> = new Map([
  [0, 'f32'],
  [1, 'f16'],
  [2, 'q4_0'],
  [3, 'q4_1'],
  [6, 'q5_0'],
  [7, 'q5_1'],
  [8, 'q8_0'],
  [12, 'q4_k'],
  [13, 'q5_k'],
  [14, 'q6_k'],
  [30, 'bf16'],
]);
/** Names for the refusal of types that exist and are not read. */
const OTHER_TYPES: ReadonlyMap<number, string> = new Map([
  [9, 'q8_1'],
  [10, 'q2_k'],
  [11, 'q3_k'],
  [15, 'q8_k'],
  [16, 'iq2_xxs'],
  [17, 'iq2_xs'],
  [18, 'iq3_xxs'],
  [19, 'iq1_s'],
  [20, 'iq4_nl'],
  [21, 'iq3_s'],
  [22, 'iq2_s'],
  [23, 'iq4_xs'],
  [24, 'i8'],
  [25, 'i16'],
  [26, 'i32'],
  [27, 'i64'],
  [28, 'f64'],
  [29, 'iq1_m'],
  [34, 'tq1_0'],
  [35, 'tq2_0'],
  [39, 'mxfp4'],
]);

/**
 * Reads metadata and tensor table. Refuses (CheckpointError) other versions and byte orders, repeated keys and names,
 * unknown value types, text that is not UTF-8, counts that the rest of the file cannot hold, and tensors that
 * overlap, are misaligned, leave the file or do not match their shape.
 */
export function readGguf(path: string): GgufFile {
  return withFile(path, (reader) => {
    const cursor = createCursor(reader);
    const version = readVersion(cursor);
    const tensorCount = cursor.count('the tensor count', 8 + 4 + 8 + 4 + 8);
    const metadataCount = cursor.count('the metadata count', 8 + 4 + 1);
    const metadata = new Map<string, GgufValue>();
    for (let index = 0; index < metadataCount; index++) {
      const key = cursor.string(`the name of metadata key ${index}`, MAX_NAME_BYTES);
      if (metadata.has(key)) cursor.refuse(`metadata key '${shorten(key)}' stands twice`);
      metadata.set(key, readValue(cursor, cursor.u32(`the type of '${key}'`), key, 0));
    }
    const infos = readTensorInfos(cursor, tensorCount);
    const alignment = readAlignment(cursor, metadata);
    const dataStart = Math.ceil(cursor.position / alignment) * alignment;
    return { path, version, metadata, tensors: placeTensors(reader, infos, dataStart, alignment) };
  });
}

interface Cursor {
  readonly path: string;
  readonly position: number;
  u32(what: string): number;
  u64(what: string): bigint;
  /** A count of items of at least `itemBytes` bytes each, all of which must still fit the file. */
  count(what: string, itemBytes: number): number;
  string(what: string, maxBytes: number): string;
  bytes(length: number, what: string): Uint8Array;
  refuse(summary: string, expected?: string, received?: string): never;
}

function createCursor(reader: FileReader): Cursor {
  const file = reader.path;
  let position = 0;
  let window: Uint8Array = new Uint8Array(0);
  let windowStart = 0;
  const take = (length: number, what: string): Uint8Array => {
    if (position + length > MAX_METADATA_BYTES) {
      throw new CheckpointError(
        'CHECKPOINT_LIMIT_EXCEEDED',
        `${what} lies beyond the metadata limit`,
        {
          file,
          expected: `at most ${MAX_METADATA_BYTES} bytes of metadata`,
        },
      );
    }
    if (position < windowStart || position + length > windowStart + window.length) {
      const left = reader.byteLength - position;
      window = reader.read(position, Math.max(length, Math.min(WINDOW_BYTES, left)), what);
      windowStart = position;
    }
    const from = position - windowStart;
    position += length;
    return window.subarray(from, from + length);
  };
  const view = (length: number, what: string): DataView => {
    const bytes = take(length, what);
    return new DataView(bytes.buffer, bytes.byteOffset, length);
  };
  const cursor: Cursor = {
    path: file,
    get position() {
      return position;
    },
    u32: (what) => view(4, what).getUint32(0, true),
    u64: (what) => view(8, what).getBigUint64(0, true),
    count(what, itemBytes) {
      const value = cursor.u64(what);
      const room = Math.floor((reader.byteLength - position) / itemBytes);
      if (value > BigInt(room)) {
        throw new CheckpointError(
          'CHECKPOINT_LIMIT_EXCEEDED',
          `${what} is more than the rest of the file can hold`,
          { file, expected: `at most ${room}`, received: `${value}` },
        );
      }
      return Number(value);
    },
    string(what, maxBytes) {
      const length = cursor.u64(`the length of ${what}`);
      if (length > BigInt(maxBytes)) {
        throw new CheckpointError('CHECKPOINT_LIMIT_EXCEEDED', `${what} is too long`, {
          file,
          expected: `at most ${maxBytes} bytes`,
          received: `${length}`,
        });
      }
      return decodeUtf8(take(Number(length), what), file, what);
    },
    // A copy: the window moves on.
    bytes: (length, what) => take(length, what).slice(),
    refuse(summary, expected, received) {
      throw new CheckpointError('CHECKPOINT_HEADER_INVALID', summary, {
        file,
        ...(expected === undefined ? {} : { expected }),
        ...(received === undefined ? {} : { received }),
      });
    },
  };
  return cursor;
}

function readVersion(cursor: Cursor): number {
  const magic = String.fromCharCode(...cursor.bytes(4, 'the magic'));
  if (magic !== 'GGUF') cursor.refuse('not a GGUF file', "'GGUF' first", JSON.stringify(magic));
  const version = cursor.u32('the version');
  // A big-endian file shows its version in the upper bytes.
  if (version !== 0 && (version & 0xffff) === 0) {
    cursor.refuse('the file is big-endian', 'a little-endian file');
  }
  if (version !== 2 && version !== 3) {
    cursor.refuse('unsupported GGUF version', '2 or 3', `${version}`);
  }
  return version;
}

type NumberReader = (bytes: Uint8Array, count: number) => GgufValue & ArrayLike<number | bigint>;

/** Value type -> bytes of an element and the typed array that holds it. Little-endian hosts only, as the kernels. */
const NUMBER_TYPES: ReadonlyMap<number, { bytes: number; read: NumberReader }> = new Map([
  [0, { bytes: 1, read: (data) => data }],
  [1, { bytes: 1, read: (data) => new Int8Array(data.buffer) }],
  [2, { bytes: 2, read: (data) => new Uint16Array(data.buffer) }],
  [3, { bytes: 2, read: (data) => new Int16Array(data.buffer) }],
  [4, { bytes: 4, read: (data) => new Uint32Array(data.buffer) }],
  [5, { bytes: 4, read: (data) => new Int32Array(data.buffer) }],
  [6, { bytes: 4, read: (data) => new Float32Array(data.buffer) }],
  [10, { bytes: 8, read: (data) => new BigUint64Array(data.buffer) }],
  [11, { bytes: 8, read: (data) => new BigInt64Array(data.buffer) }],
  [12, { bytes: 8, read: (data) => new Float64Array(data.buffer) }],
]);
const BOOL = 7;
const STRING = 8;
const ARRAY = 9;

function readValue(cursor: Cursor, type: number, key: string, depth: number): GgufValue {
  const what = `the value of '${key}'`;
  if (type === STRING) return cursor.string(what, MAX_METADATA_BYTES);
  if (type === ARRAY) return readArray(cursor, key, depth + 1);
  if (type === BOOL) return readBool(cursor, what);
  const numberType = NUMBER_TYPES.get(type);
  if (numberType === undefined) {
    return cursor.refuse(`${what} has an unknown type`, '0 to 12', `${type}`);
  }
  const value = numberType.read(cursor.bytes(numberType.bytes, what), 1)[0] as number | bigint;
  return typeof value === 'bigint' && value === BigInt.asIntN(54, value) ? Number(value) : value;
}

function readBool(cursor: Cursor, what: string): boolean {
  const [byte] = cursor.bytes(1, what);
  if (byte !== 0 && byte !== 1) cursor.refuse(`${what} is no boolean`, '0 or 1', `${byte}`);
  return byte === 1;
}

function readArray(cursor: Cursor, key: string, depth: number): GgufValue {
  const what = `the elements of '${key}'`;
  if (depth > MAX_ARRAY_DEPTH) {
    throw new CheckpointError(
      'CHECKPOINT_LIMIT_EXCEEDED',
      `arrays nest too deep in '${shorten(key)}'`,
      {
        file: cursor.path,
        expected: `at most ${MAX_ARRAY_DEPTH} levels`,
      },
    );
  }
  const type = cursor.u32(`the element type of '${key}'`);
  const numberType = NUMBER_TYPES.get(type);
  if (numberType !== undefined) {
    const count = cursor.count(`the length of '${key}'`, numberType.bytes);
    return numberType.read(cursor.bytes(count * numberType.bytes, what), count);
  }
  if (type === BOOL) return cursor.bytes(cursor.count(`the length of '${key}'`, 1), what);
  if (type !== STRING && type !== ARRAY) {
    return cursor.refuse(`${what} have an unknown type`, '0 to 12', `${type}`);
  }
  const count = cursor.count(`the length of '${key}'`, type === STRING ? 8 : 12);
  const items: GgufValue[] = [];
  for (let index = 0; index < count; index++) items.push(readValue(cursor, type, key, depth));
  return items;
}

function readAlignment(cursor: Cursor, metadata: ReadonlyMap<string, GgufValue>): number {
  const value = metadata.get('general.alignment') ?? 32;
  if (typeof value !== 'number' || value < 8 || value > 2 ** 20 || Math.log2(value) % 1 !== 0) {
    return cursor.refuse(
      'general.alignment is unusable',
      'a power of two from 8 to 1048576',
      String(value),
    );
  }
  return value;
}

interface TensorInfo {
  readonly name: string;
  readonly type: StorageType;
  readonly shape: readonly number[];
  /** From the start of the data section. */
  readonly offset: number;
}

function readTensorInfos(cursor: Cursor, count: number): TensorInfo[] {
  const infos: TensorInfo[] = [];
  const names = new Set<string>();
  for (let index = 0; index < count; index++) {
    const name = cursor.string(`the name of tensor ${index}`, MAX_NAME_BYTES);
    const refuse = (summary: string, expected: string, received: string): never => {
      throw new CheckpointError('CHECKPOINT_TENSOR_INVALID', summary, {
        file: cursor.path,
        tensor: name,
        expected,
        received,
      });
    };
    if (names.has(name))
      refuse('stands twice in the tensor table', 'each name once', 'a repetition');
    names.add(name);
    const dimensions = cursor.u32(`the dimension count of '${name}'`);
    if (dimensions < 1 || dimensions > MAX_DIMENSIONS) {
      refuse('impossible dimension count', `1 to ${MAX_DIMENSIONS}`, `${dimensions}`);
    }
    // Stored innermost first.
    const shape = Array.from({ length: dimensions }, () =>
      Number(cursor.u64(`a dimension of '${name}'`)),
    ).reverse();
    const typeId = cursor.u32(`the type of '${name}'`);
    const type = STORAGE_TYPES.get(typeId);
    if (type === undefined) {
      throw new CheckpointError('CHECKPOINT_TYPE_UNSUPPORTED', 'stored in an unsupported type', {
        file: cursor.path,
        tensor: name,
        expected: [...STORAGE_TYPES.values()].join(', '),
        received: OTHER_TYPES.get(typeId) ?? `type number ${typeId}`,
      });
    }
    infos.push({ name, type, shape, offset: Number(cursor.u64(`the offset of '${name}'`)) });
  }
  return infos;
}

function placeTensors(
  reader: FileReader,
  infos: readonly TensorInfo[],
  dataStart: number,
  alignment: number,
): Map<string, WeightSource> {
  const file = reader.path;
  const tensors = new Map<string, WeightSource>();
  let end = 0;
  for (const { name, type, shape, offset } of [...infos].sort((a, b) => a.offset - b.offset)) {
    const byteLength = tensorByteLength(type, shape, file, name);
    if (offset % alignment !== 0 || !Number.isSafeInteger(offset)) {
      throw new CheckpointError('CHECKPOINT_TENSOR_INVALID', 'misaligned', {
        file,
        tensor: name,
        expected: `an offset that is a multiple of ${alignment}`,
        received: `${offset}`,
      });
    }
    if (offset < end) {
      throw new CheckpointError('CHECKPOINT_TENSOR_INVALID', 'overlaps the tensor before it', {
        file,
        tensor: name,
        expected: `an offset of at least ${end}`,
        received: `${offset}`,
      });
    }
    end = offset + byteLength;
    if (!(dataStart + end <= reader.byteLength)) {
      throw new CheckpointError('CHECKPOINT_TRUNCATED', 'the data leaves the file', {
        file,
        tensor: name,
        expected: `${byteLength} bytes at offset ${dataStart + offset}`,
        received: `a file of ${reader.byteLength} bytes`,
      });
    }
    const bytes = { path: file, offset: dataStart + offset, byteLength };
    tensors.set(name, { name, type, shape, bytes });
  }
  return tensors;
}
