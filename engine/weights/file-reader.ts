/** Reads headers at offsets through one descriptor; never more than was asked, never past the end. */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { CheckpointError } from './errors.ts';

export interface FileReader {
  readonly path: string;
  readonly byteLength: number;
  /** Exactly `length` bytes at `offset`; CHECKPOINT_TRUNCATED, naming `what`, when the file is shorter. */
  read(offset: number, length: number, what: string): Uint8Array;
}

/** Opens `path`, hands a reader to `use` and closes it whatever happens. Throws CHECKPOINT_NOT_FOUND without the file. */
export function withFile<T>(path: string, use: (reader: FileReader) => T): T {
  const descriptor = openForReading(path);
  try {
    const { size: byteLength } = fstatSync(descriptor);
    return use({
      path,
      byteLength,
      read(offset, length, what) {
        if (!(offset >= 0 && length >= 0 && length <= byteLength - offset)) {
          throw new CheckpointError('CHECKPOINT_TRUNCATED', `the file ends within ${what}`, {
            file: path,
            expected: `${length} bytes at offset ${offset}`,
            received: `a file of ${byteLength} bytes`,
          });
        }
        return readFully(descriptor, path, offset, length, what);
      },
    });
  } finally {
    closeSync(descriptor);
  }
}

function openForReading(path: string): number {
  try {
    const descriptor = openSync(path, 'r');
    if (fstatSync(descriptor).isFile()) return descriptor;
    closeSync(descriptor);
    throw new Error('it is not a regular file');
  } catch (cause) {
    throw new CheckpointError(
      'CHECKPOINT_NOT_FOUND',
      `cannot be opened (${cause instanceof Error ? cause.message : String(cause)})`,
      { file: path },
      { cause },
    );
  }
}

function readFully(
  descriptor: number,
  path: string,
  offset: number,
  length: number,
  what: string,
): Uint8Array {
  const bytes = new Uint8Array(length);
  let done = 0;
  while (done < length) {
    const count = readSync(descriptor, bytes, done, length - done, offset + done);
    if (count === 0) {
      throw new CheckpointError('CHECKPOINT_TRUNCATED', `the file shrank while reading ${what}`, {
        file: path,
      });
    }
    done += count;
  }
  return bytes;
}
