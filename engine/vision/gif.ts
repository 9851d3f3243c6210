/**
 * The first frame of a GIF as Pillow shows it, which tells what lies under transparent pixels and around the frame; libraries
 * that compose animations have lost it by then. Format: GIF89a specification, CompuServe 1990.
 */
import { ImageError } from './errors.ts';
import type { RgbImage } from './pixels.ts';

/** What stands before the pixels of the first frame. */
export interface GifHeader {
  /** Of the screen, or of what the frame covers where that is more. */
  readonly width: number;
  readonly height: number;
  readonly frame: {
    readonly left: number;
    readonly top: number;
    readonly width: number;
    readonly height: number;
    readonly isInterlaced: boolean;
  };
  /** 256 RGB triples: shades of grey where there is no palette, black after the end of one. */
  readonly palette: Uint8Array;
  /** Index of the colour around the frame. */
  readonly fill: number;
  /** Where the pixels begin. */
  readonly dataAt: number;
}

const EXTENSION = 0x21;
const GRAPHIC_CONTROL = 0xf9;
const IMAGE = 0x2c;

export const isGif = (bytes: Uint8Array): boolean =>
  /^GIF8[79]a$/.test(String.fromCharCode(...bytes.subarray(0, 6)));

const shadesOfGrey = (): Uint8Array =>
  Uint8Array.from({ length: 768 }, (_, i) => Math.floor(i / 3));

/** Throws ImageError. */
export function readGifHeader(bytes: Uint8Array): GifHeader {
  let at = 6;
  const byte = (): number => {
    const value = bytes[at++];
    if (value === undefined) throw new ImageError('the GIF ends before its first frame');
    return value;
  };
  const word = (): number => byte() + 256 * byte();
  let palette = shadesOfGrey();
  const readPalette = (flags: number): void => {
    if (!(flags & 0x80)) return;
    const given = Uint8Array.from({ length: 3 << ((flags & 7) + 1) }, byte);
    palette = shadesOfGrey();
    if (given.every((value, i) => value === palette[i])) return;
    palette.fill(0);
    palette.set(given);
  };
  const [screenWidth, screenHeight, screenFlags] = [word(), word(), byte()];
  at += 2;
  readPalette(screenFlags);
  let transparent: number | undefined;
  for (;;) {
    const kind = byte();
    if (kind === IMAGE) break;
    if (kind !== EXTENSION) throw new ImageError('the GIF holds no frame');
    const isControl = byte() === GRAPHIC_CONTROL;
    for (let length = byte(), block = 0; length > 0; length = byte(), block++) {
      if (isControl && block === 0 && length >= 4 && bytes[at]! & 1) transparent = bytes[at + 3];
      at += length;
    }
  }
  const [left, top, width, height, flags] = [word(), word(), word(), word(), byte()];
  readPalette(flags);
  return {
    width: Math.max(screenWidth, left + width),
    height: Math.max(screenHeight, top + height),
    frame: { left, top, width, height, isInterlaced: (flags & 0x40) !== 0 },
    palette,
    fill: transparent ?? 0,
    dataAt: at,
  };
}

/** Throws ImageError when the data ends before the frame does. */
export function decodeGif(bytes: Uint8Array, header: GifHeader): RgbImage {
  const { width, height, frame, palette, fill } = header;
  const indices = decompress(bytes, header.dataAt, frame.width * frame.height);
  const image = new Uint8Array(width * height).fill(fill);
  for (const [i, row] of rowOrder(frame.height, frame.isInterlaced).entries()) {
    const from = i * frame.width;
    const to = (frame.top + row) * width + frame.left;
    image.set(indices.subarray(from, from + frame.width), to);
  }
  const data = new Uint8Array(image.length * 3);
  for (let i = 0; i < image.length; i++) {
    const colour = image[i]! * 3;
    data[i * 3] = palette[colour]!;
    data[i * 3 + 1] = palette[colour + 1]!;
    data[i * 3 + 2] = palette[colour + 2]!;
  }
  return { width, height, data };
}

/** The rows in the order in which they are stored. */
function rowOrder(height: number, isInterlaced: boolean): number[] {
  const passes = isInterlaced
    ? [
        [0, 8],
        [4, 8],
        [2, 4],
        [1, 2],
      ]
    : [[0, 1]];
  return passes.flatMap(([first, step]) => {
    const rows: number[] = [];
    for (let row = first!; row < height; row += step!) rows.push(row);
    return rows;
  });
}

/** `length` indices out of LZW codes of growing size, lowest bit first, in blocks of at most 255 bytes. */
function decompress(bytes: Uint8Array, start: number, length: number): Uint8Array {
  const minimum = bytes[start] ?? 0;
  if (minimum < 1 || minimum > 8) throw new ImageError('the GIF has no readable pixels');
  const clear = 1 << minimum;
  const end = clear + 1;
  const prefix = new Uint16Array(4096);
  const suffix = Uint8Array.from({ length: 4096 }, (_, code) => (code < clear ? code : 0));
  const stack = new Uint8Array(4097);
  const out = new Uint8Array(length);
  let at = start + 1;
  let blockEnd = at;
  let bits = 0;
  let bitCount = 0;
  let size = minimum + 1;
  let next = end + 1;
  let previous = -1;
  let first = 0;
  let done = 0;
  while (done < length) {
    while (bitCount < size) {
      if (at === blockEnd) {
        const blockLength = bytes[at++] ?? 0;
        blockEnd = at + blockLength;
        if (blockLength === 0 || blockEnd > bytes.length) throw truncated();
      }
      bits |= bytes[at++]! << bitCount;
      bitCount += 8;
    }
    const code = bits & ((1 << size) - 1);
    bits >>>= size;
    bitCount -= size;
    if (code === clear) {
      size = minimum + 1;
      next = end + 1;
      previous = -1;
      continue;
    }
    if (code === end) throw truncated();
    if (code > next || (code === next && previous < 0) || (previous < 0 && code > end)) {
      throw new ImageError('the GIF has a code that its table does not have');
    }
    let depth = 0;
    let rest = code;
    // The code that is being made: the one before, and its own first index again.
    if (code === next) {
      stack[depth++] = first;
      rest = previous;
    }
    while (rest > end) {
      stack[depth++] = suffix[rest]!;
      rest = prefix[rest]!;
    }
    first = rest;
    out[done++] = first;
    while (depth > 0 && done < length) out[done++] = stack[--depth]!;
    if (previous >= 0 && next < 4096) {
      prefix[next] = previous;
      suffix[next] = first;
      next++;
      if (next === 1 << size && size < 12) size++;
    }
    previous = code;
  }
  return out;
}

const truncated = (): ImageError => new ImageError('the GIF ends in the middle of its first frame');
