/** What an AVIF file says of itself besides its pixels. Format: ISO/IEC 14496-12 boxes, ISO/IEC 23008-12 items and properties. */
import { mirrorImage, type RgbImage, turnImage } from './pixels.ts';

/** A box and what is in it. */
interface Box {
  readonly type: string;
  readonly content: Buffer;
}

const wordsOf = (bytes: Uint8Array): Buffer =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** Stops at what is not a whole box. */
function* boxesOf(bytes: Buffer): Generator<Box> {
  for (let at = 0; at + 8 <= bytes.length; ) {
    let size = bytes.readUInt32BE(at);
    let header = 8;
    if (size === 1 && at + 16 <= bytes.length) {
      size = Number(bytes.readBigUInt64BE(at + 8));
      header = 16;
    } else if (size === 0) size = bytes.length - at;
    if (size < header || at + size > bytes.length) return;
    yield {
      type: bytes.toString('latin1', at + 4, at + 8),
      content: bytes.subarray(at + header, at + size),
    };
    at += size;
  }
}

const find = (bytes: Buffer | undefined, type: string): Buffer | undefined => {
  for (const box of boxesOf(bytes ?? Buffer.alloc(0))) if (box.type === type) return box.content;
  return undefined;
};

/**
 * The file, its brand being that of a still picture: the decoder refuses animations (`avis`), although their first frame stands
 * beside them as one.
 */
export function asStillAvif(bytes: Uint8Array): Uint8Array {
  const header = wordsOf(bytes).toString('latin1', 4, 12);
  if (header !== 'ftypavis') return bytes;
  const still = Buffer.from(bytes);
  still.write('avif', 8, 'latin1');
  return still;
}

/** Turns and mirrorings of the primary picture that a decoder applies, in its order. */
export type AvifTransform =
  /** Quarter turns against the clock. */
  { readonly turns: number } | { readonly mirrored: 'topToBottom' | 'leftToRight' };

/** Reads the `irot` and `imir` properties of the primary item; none for a file without them, or that is broken. */
export function readAvifTransforms(bytes: Uint8Array): readonly AvifTransform[] {
  const meta = find(wordsOf(bytes), 'meta')?.subarray(4);
  const primary = find(meta, 'pitm');
  const properties = find(meta, 'iprp');
  const container = find(properties, 'ipco');
  const association = find(properties, 'ipma');
  if (primary === undefined || container === undefined || association === undefined) return [];
  try {
    const item = primary[0] === 0 ? primary.readUInt16BE(4) : primary.readUInt32BE(4);
    const all = [...boxesOf(container)];
    return propertiesOf(association, item).flatMap((index): AvifTransform[] => {
      const { type, content } = all[index - 1] ?? { type: '', content: Buffer.alloc(0) };
      if (type === 'irot') return [{ turns: content.readUInt8(0) & 3 }];
      if (type !== 'imir') return [];
      return [{ mirrored: content.readUInt8(0) & 1 ? 'leftToRight' : 'topToBottom' }];
    });
  } catch (error) {
    // Read past its end.
    if (error instanceof RangeError) return [];
    throw error;
  }
}

/** Indices, from 1, of an item's properties. */
function propertiesOf(association: Buffer, item: number): number[] {
  const isLong = (association[3]! & 1) !== 0;
  const idBytes = association[0] === 0 ? 2 : 4;
  let at = 4;
  const take = (bytes: number): number => {
    const value = association.readUIntBE(at, bytes);
    at += bytes;
    return value;
  };
  for (let entries = take(4); entries > 0; entries--) {
    const id = take(idBytes);
    const count = take(1);
    const indices = Array.from({ length: count }, () =>
      isLong ? take(2) & 0x7fff : take(1) & 0x7f,
    );
    if (id === item) return indices;
  }
  return [];
}

/** The picture before the decoder applied them. */
export function undoTransforms(image: RgbImage, transforms: readonly AvifTransform[]): RgbImage {
  let undone = image;
  for (const transform of [...transforms].reverse()) {
    undone =
      'turns' in transform
        ? turnImage(undone, (4 - transform.turns) % 4)
        : mirrorImage(undone, transform.mirrored);
  }
  return undone;
}
