/** The safetensors container: u64 header length, JSON header, then the tensors without holes. */
import type { StorageType, WeightSource } from '#kernels/program.ts';
import { CheckpointError, showValue } from './errors.ts';
import { type FileReader, withFile } from './file-reader.ts';
import { tensorByteLength } from './storage.ts';
import { isObject, parseJsonObject } from './strict-json.ts';

/** The format's own limit. */
const MAX_HEADER_BYTES = 100_000_000;

const STORAGE_TYPES: ReadonlyMap<unknown, StorageType> = new Map([
  ['F32', 'f32'],
  ['F16', 'f16'],
  ['BF16', 'bf16'],
]);

/**
 * Tensors of one file by name, from its header alone. Refuses (CheckpointError) headers longer than the file or than
 * 100 MB, repeated keys, types no kernel reads, ranges that do not match the shape, overlap, leave holes or leave the file.
 */
export function readSafetensors(path: string): Map<string, WeightSource> {
  return withFile(path, (reader) => {
    const { header, dataStart } = readHeader(reader);
    const tensors = Object.entries(header)
      .filter(([name]) => name !== '__metadata__')
      .map(([name, entry]) => readEntry(reader, dataStart, name, entry));
    checkLayout(reader, dataStart, tensors);
    return new Map(tensors.map((tensor) => [tensor.name, tensor]));
  });
}

type FileTensor = WeightSource & {
  readonly bytes: { readonly offset: number; readonly byteLength: number };
};

function readHeader(reader: FileReader): { header: Record<string, unknown>; dataStart: number } {
  const prefix = reader.read(0, 8, 'the header length');
  const length = new DataView(prefix.buffer).getBigUint64(0, true);
  const file = reader.path;
  if (length > BigInt(MAX_HEADER_BYTES)) {
    throw new CheckpointError('CHECKPOINT_LIMIT_EXCEEDED', 'the header is too long', {
      file,
      expected: `at most ${MAX_HEADER_BYTES} bytes`,
      received: `${length}`,
    });
  }
  const bytes = reader.read(8, Number(length), 'the header');
  return { header: parseJsonObject(bytes, file), dataStart: 8 + bytes.length };
}

function readEntry(
  reader: FileReader,
  dataStart: number,
  name: string,
  entry: unknown,
): FileTensor {
  const file = reader.path;
  const refuse = (summary: string, expected: string, received: unknown): never => {
    throw new CheckpointError('CHECKPOINT_TENSOR_INVALID', summary, {
      file,
      tensor: name,
      expected,
      received: showValue(received),
    });
  };
  if (!isObject(entry)) return refuse('the entry is of the wrong kind', 'an object', entry);
  const { dtype, shape, data_offsets: range } = entry;
  const type = STORAGE_TYPES.get(dtype);
  if (type === undefined) {
    throw new CheckpointError('CHECKPOINT_TYPE_UNSUPPORTED', 'stored in an unsupported type', {
      file,
      tensor: name,
      expected: [...STORAGE_TYPES.keys()].join(', '),
      received: showValue(dtype),
    });
  }
  if (!isNumberArray(shape)) return refuse('no shape', 'an array of numbers', shape);
  if (!isNumberArray(range) || range.length !== 2) {
    return refuse('no byte range', 'data_offsets of two numbers', range);
  }
  const [begin = Number.NaN, end = Number.NaN] = range;
  const available = reader.byteLength - dataStart;
  if (!(Number.isSafeInteger(begin) && Number.isSafeInteger(end) && begin >= 0 && begin <= end)) {
    refuse('the byte range is not a range', '0 <= begin <= end', range);
  }
  if (end > available) {
    throw new CheckpointError('CHECKPOINT_TRUNCATED', 'the byte range leaves the file', {
      file,
      tensor: name,
      expected: `at most ${available} bytes of data`,
      received: `[${begin}, ${end}]`,
    });
  }
  const byteLength = tensorByteLength(type, shape, file, name);
  if (byteLength !== end - begin) {
    refuse(
      'the byte range does not match the shape',
      `${byteLength} bytes for ${dtype} [${shape.join(', ')}]`,
      end - begin,
    );
  }
  return { name, type, shape, bytes: { path: file, offset: dataStart + begin, byteLength } };
}

/** The format allows no overlap and no hole: whoever reads the ranges in order has read the file. */
function checkLayout(reader: FileReader, dataStart: number, tensors: readonly FileTensor[]): void {
  let end = dataStart;
  const inOrder = [...tensors].sort(
    (a, b) => a.bytes.offset - b.bytes.offset || a.bytes.byteLength - b.bytes.byteLength,
  );
  for (const { name, bytes } of inOrder) {
    if (bytes.offset !== end) {
      throw new CheckpointError(
        'CHECKPOINT_TENSOR_INVALID',
        bytes.offset < end ? 'overlaps the tensor before it' : 'leaves a hole before it',
        {
          file: reader.path,
          tensor: name,
          expected: `data at file offset ${end}`,
          received: `${bytes.offset}`,
        },
      );
    }
    end = bytes.offset + bytes.byteLength;
  }
  if (end !== reader.byteLength) {
    throw new CheckpointError('CHECKPOINT_HEADER_INVALID', 'bytes stand after the last tensor', {
      file: reader.path,
      expected: `a file of ${end} bytes`,
      received: `${reader.byteLength}`,
    });
  }
}

function isNumberArray(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((item) => typeof item === 'number');
}
