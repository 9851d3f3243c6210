/** Writes ZIP archives byte by byte, so that tests can break any one of them. */
import { crc32, deflateRawSync } from 'node:zlib';

export interface ZipMember {
  readonly name: string;
  readonly content: Buffer;
  /** 0 stored (default), 8 deflated. */
  readonly method?: number;
  /** Sizes and offset in ZIP64 extra fields, as archives beyond 4 GiB have them. */
  readonly isZip64?: boolean;
  /** Written in place of the true values. */
  readonly crc?: number;
  readonly size?: number;
  readonly flags?: number;
}

const MAX_32 = 0xffff_ffff;
const fields = (...parts: readonly (readonly [number, 2 | 4 | 8])[]): Buffer =>
  Buffer.concat(
    parts.map(([value, width]) => {
      const bytes = Buffer.alloc(8);
      bytes.writeBigUInt64LE(BigInt(value));
      return bytes.subarray(0, width);
    }),
  );

export function zipBytes(members: readonly ZipMember[]): Buffer {
  const data: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const member of members) {
    const { name, content, method = 0, isZip64 = false, flags = 0 } = member;
    const stored = method === 8 ? deflateRawSync(content) : content;
    const crc = member.crc ?? crc32(content);
    const size = member.size ?? content.length;
    const narrow = (value: number) => (isZip64 ? MAX_32 : value);
    const extra = isZip64
      ? fields([1, 2], [24, 2], [size, 8], [stored.length, 8], [offset, 8])
      : Buffer.alloc(0);
    const common = fields(
      [flags, 2],
      [method, 2],
      [0, 4],
      [crc, 4],
      [narrow(stored.length), 4],
      [narrow(size), 4],
      [Buffer.byteLength(name), 2],
    );
    directory.push(
      fields([0x02014b50, 4], [45, 2], [45, 2]),
      common,
      fields([extra.length, 2], [0, 2], [0, 2], [0, 2], [0, 4], [narrow(offset), 4]),
      Buffer.from(name),
      extra,
    );
    const local = [
      fields([0x04034b50, 4], [45, 2]),
      common,
      fields([0, 2]),
      Buffer.from(name),
      stored,
    ];
    data.push(...local);
    offset += local.reduce((sum, part) => sum + part.length, 0);
  }
  const directoryBytes = Buffer.concat(directory);
  const isZip64 = members.some((member) => member.isZip64);
  const wide = isZip64
    ? [
        fields([0x06064b50, 4], [44, 8], [45, 2], [45, 2], [0, 4], [0, 4]),
        fields([members.length, 8], [members.length, 8], [directoryBytes.length, 8], [offset, 8]),
        fields([0x07064b50, 4], [0, 4], [offset + directoryBytes.length, 8], [1, 4]),
      ]
    : [];
  const end = fields(
    [0x06054b50, 4],
    [0, 4],
    [members.length, 2],
    [members.length, 2],
    [isZip64 ? MAX_32 : directoryBytes.length, 4],
    [isZip64 ? MAX_32 : offset, 4],
    [0, 2],
  );
  return Buffer.concat([...data, directoryBytes, ...wide, end]);
}
