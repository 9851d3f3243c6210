/**
 * Reading of ZIP archives (wheels): the table of contents, and one member streamed out and checked. Stored and deflated
 * members, ZIP64; layout as in PKWARE's APPNOTE.TXT 4.3 and 4.5.3.
 */
import { createReadStream, createWriteStream } from 'node:fs';
import { Transform, type TransformCallback } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { crc32, createInflateRaw } from 'node:zlib';
import { CheckpointError } from './errors.ts';
import { type FileReader, withFile } from './file-reader.ts';
import { decodeUtf8 } from './strict-json.ts';

export interface ZipEntry {
  readonly name: string;
  readonly method: number;
  readonly crc: number;
  readonly compressedSize: number;
  readonly size: number;
  readonly localHeaderOffset: number;
}

const END_BYTES = 22;
const MAX_COMMENT_BYTES = 65_535;
const MAX_DIRECTORY_BYTES = 64 << 20;
const MAX_32 = 0xffff_ffff;

/** Members of the archive. Throws CHECKPOINT_HEADER_INVALID, CHECKPOINT_TRUNCATED or CHECKPOINT_LIMIT_EXCEEDED. */
export function readZipEntries(path: string): ZipEntry[] {
  return withFile(path, (reader) => {
    const { offset, byteLength } = findDirectory(reader);
    if (byteLength > MAX_DIRECTORY_BYTES) {
      throw new CheckpointError('CHECKPOINT_LIMIT_EXCEEDED', 'the ZIP directory is too long', {
        file: path,
        expected: `at most ${MAX_DIRECTORY_BYTES} bytes`,
        received: `${byteLength}`,
      });
    }
    const bytes = reader.read(offset, byteLength, 'the ZIP directory');
    return parseDirectory(bytes, path);
  });
}

function findDirectory(reader: FileReader): { offset: number; byteLength: number } {
  const tailLength = Math.min(reader.byteLength, END_BYTES + MAX_COMMENT_BYTES);
  const tailStart = reader.byteLength - tailLength;
  const tail = viewOf(reader.read(tailStart, tailLength, 'the end of the ZIP archive'));
  for (let at = tailLength - END_BYTES; at >= 0; at--) {
    if (tail.getUint32(at, true) !== 0x06054b50) continue;
    const byteLength = tail.getUint32(at + 12, true);
    const offset = tail.getUint32(at + 16, true);
    const isZip64 = offset === MAX_32 || byteLength === MAX_32;
    return isZip64 ? findZip64Directory(reader, tailStart + at) : { offset, byteLength };
  }
  throw malformed(reader.path, 'no end-of-directory record: not a ZIP archive, or cut off');
}

function findZip64Directory(
  reader: FileReader,
  endOffset: number,
): { offset: number; byteLength: number } {
  const locator = viewOf(reader.read(endOffset - 20, 20, 'the ZIP64 locator'));
  if (locator.getUint32(0, true) !== 0x07064b50) {
    throw malformed(reader.path, 'the ZIP64 locator is missing');
  }
  const recordOffset = Number(locator.getBigUint64(8, true));
  const record = viewOf(reader.read(recordOffset, 56, 'the ZIP64 record'));
  if (record.getUint32(0, true) !== 0x06064b50) {
    throw malformed(reader.path, 'the ZIP64 record is missing');
  }
  return {
    byteLength: Number(record.getBigUint64(40, true)),
    offset: Number(record.getBigUint64(48, true)),
  };
}

function parseDirectory(bytes: Uint8Array, file: string): ZipEntry[] {
  const view = viewOf(bytes);
  const entries: ZipEntry[] = [];
  for (let at = 0; at < bytes.length; ) {
    if (at + 46 > bytes.length || view.getUint32(at, true) !== 0x02014b50) {
      throw malformed(file, 'a directory entry is damaged');
    }
    const nameEnd = at + 46 + view.getUint16(at + 28, true);
    const extraEnd = nameEnd + view.getUint16(at + 30, true);
    const next = extraEnd + view.getUint16(at + 32, true);
    if (next > bytes.length) throw malformed(file, 'a directory entry is cut off');
    const flags = view.getUint16(at + 8, true);
    if ((flags & 1) !== 0) throw malformed(file, 'the archive is encrypted');
    const wide = zip64Fields(view, nameEnd, extraEnd);
    // The extra field holds only those values that did not fit, in this order.
    const size = orWide(view.getUint32(at + 24, true), wide);
    const compressedSize = orWide(view.getUint32(at + 20, true), wide);
    const localHeaderOffset = orWide(view.getUint32(at + 42, true), wide);
    entries.push({
      name: decodeUtf8(bytes.subarray(at + 46, nameEnd), file, 'a member name'),
      method: view.getUint16(at + 10, true),
      crc: view.getUint32(at + 16, true),
      compressedSize,
      size,
      localHeaderOffset,
    });
    at = next;
  }
  return entries;
}

function orWide(value: number, wide: number[]): number {
  return value === MAX_32 ? (wide.shift() ?? value) : value;
}

/** The 64-bit values of the ZIP64 extra field (id 1), in order. */
function zip64Fields(view: DataView, start: number, end: number): number[] {
  for (let at = start; at + 4 <= end; ) {
    const length = view.getUint16(at + 2, true);
    const last = Math.min(at + 4 + length, end);
    if (view.getUint16(at, true) === 1) {
      const values: number[] = [];
      for (let field = at + 4; field + 8 <= last; field += 8) {
        values.push(Number(view.getBigUint64(field, true)));
      }
      return values;
    }
    at += 4 + length;
  }
  return [];
}

/**
 * Writes one member to `target`; `onBytes` gets the bytes written so far. Never writes more than the directory announces.
 * Throws DOWNLOAD_CORRUPT when length or CRC-32 are wrong, CHECKPOINT_HEADER_INVALID for other compression methods.
 */
export async function extractZipEntry(
  path: string,
  entry: ZipEntry,
  target: string,
  options: { readonly signal?: AbortSignal | undefined; onBytes(written: number): void },
): Promise<void> {
  if (entry.method !== 0 && entry.method !== 8) {
    throw malformed(path, `'${entry.name}' uses compression method ${entry.method}, not 0 or 8`);
  }
  const start = withFile(path, (reader) => {
    const header = viewOf(reader.read(entry.localHeaderOffset, 30, 'a local header'));
    if (header.getUint32(0, true) !== 0x04034b50)
      throw malformed(path, 'a local header is damaged');
    const dataStart =
      entry.localHeaderOffset + 30 + header.getUint16(26, true) + header.getUint16(28, true);
    if (!(dataStart + entry.compressedSize <= reader.byteLength)) {
      throw malformed(path, `'${entry.name}' leaves the archive`);
    }
    return dataStart;
  });
  const check = createCheck(path, entry, options.onBytes);
  const source =
    entry.compressedSize === 0
      ? []
      : createReadStream(path, { start, end: start + entry.compressedSize - 1 });
  const sink = createWriteStream(target);
  const { signal } = options;
  const inflate = entry.method === 8 ? createInflateRaw() : new PassChunks();
  try {
    await pipeline(source, inflate, check, sink, signal ? { signal } : {});
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    if (!code.startsWith('Z_')) throw error;
    throw corrupt(path, entry, 'a deflate stream', code, error);
  }
}

class PassChunks extends Transform {
  override _transform(chunk: Buffer, _encoding: string, done: TransformCallback): void {
    done(null, chunk);
  }
}

function createCheck(path: string, entry: ZipEntry, onBytes: (written: number) => void): Transform {
  let crc = 0;
  let written = 0;
  return new Transform({
    transform(chunk: Buffer, _encoding, done) {
      written += chunk.length;
      if (written > entry.size) {
        done(corrupt(path, entry, `${entry.size} bytes`, 'more'));
        return;
      }
      crc = crc32(chunk, crc);
      onBytes(written);
      done(null, chunk);
    },
    flush(done) {
      if (written !== entry.size) {
        done(corrupt(path, entry, `${entry.size} bytes`, `${written}`));
      } else if (crc !== entry.crc) {
        done(corrupt(path, entry, `CRC-32 ${entry.crc}`, `${crc}`));
      } else {
        done();
      }
    },
  });
}

function corrupt(
  path: string,
  entry: ZipEntry,
  expected: string,
  received: string,
  cause?: unknown,
): CheckpointError {
  return new CheckpointError(
    'DOWNLOAD_CORRUPT',
    `'${entry.name}' in the archive is damaged`,
    { file: path, expected, received },
    { cause },
  );
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function malformed(file: string, summary: string): CheckpointError {
  return new CheckpointError('CHECKPOINT_HEADER_INVALID', summary, { file });
}
