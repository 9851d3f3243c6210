/** Image files to pixels. */
import sharp, { type Metadata, type Sharp } from 'sharp';
import { asStillAvif, readAvifTransforms, undoTransforms } from './avif.ts';
import { ImageError } from './errors.ts';
import { decodeGif, isGif, readGifHeader } from './gif.ts';
import type { RgbImage } from './pixels.ts';
import { isPlainYcbcr } from './tiff.ts';

export interface ImageLimits {
  /** Of the file. */
  readonly maxBytes: number;
  /** Width times height, read from the header before anything is decoded. */
  readonly maxPixels: number;
}

export const DEFAULT_IMAGE_LIMITS: ImageLimits = { maxBytes: 32 << 20, maxPixels: 64 << 20 };

const FORMATS = new Set(['png', 'jpeg', 'webp', 'heif', 'tiff']);
const FORMAT_NAMES = 'PNG, JPEG, WebP, GIF, AVIF or TIFF';

/** Byte of the colour type in a PNG's header, and its value for grey with alpha. */
const PNG_COLOUR_TYPE = 25;
const GREY_ALPHA = 4;

/** A file whose header was read and is within the limits. Width and height are those of the decoded picture. */
interface OpenedImage {
  readonly width: number;
  readonly height: number;
  decode(): Promise<RgbImage>;
}

/**
 * Decodes the first frame. As the reference does with `Image.open(file).convert('RGB')`: an orientation is applied to TIFF and to
 * no other format, an embedded colour profile is not, and alpha is dropped, not composited. Throws ImageError.
 */
export function decodeImage(bytes: Uint8Array, limits: ImageLimits): Promise<RgbImage> {
  return reading(async () => (await open(bytes, limits)).decode());
}

/** Width and height in pixels, from the header alone. Throws ImageError, also for what is over the limits. */
export function measureImage(
  bytes: Uint8Array,
  limits: ImageLimits,
): Promise<{ readonly width: number; readonly height: number }> {
  return reading(() => open(bytes, limits));
}

async function open(bytes: Uint8Array, limits: ImageLimits): Promise<OpenedImage> {
  if (bytes.byteLength === 0) throw new ImageError('the file is empty');
  if (bytes.byteLength > limits.maxBytes) {
    throw new ImageError(
      `the file has ${bytes.byteLength} bytes, at most ${limits.maxBytes} are read`,
    );
  }
  const opened = isGif(bytes) ? openGif(bytes) : await openWithSharp(bytes);
  const { width, height } = opened;
  if (width * height > limits.maxPixels) {
    throw new ImageError(
      `it has ${width} x ${height} pixels, at most ${limits.maxPixels} are decoded`,
    );
  }
  return opened;
}

function openGif(bytes: Uint8Array): OpenedImage {
  const header = readGifHeader(bytes);
  const { width, height } = header;
  return { width, height, decode: async () => decodeGif(bytes, header) };
}

async function openWithSharp(bytes: Uint8Array): Promise<OpenedImage> {
  const file = sharp(asStillAvif(bytes), {
    failOn: 'warning',
    // Ours tells the numbers.
    limitInputPixels: false,
    ignoreIcc: true,
    autoOrient: false,
  });
  const metadata = await file.metadata();
  const { format, width, height, autoOrient } = metadata;
  if (!FORMATS.has(format ?? '')) {
    throw new ImageError(`the format is ${format ?? 'not known'}, expected ${FORMAT_NAMES}`);
  }
  const kept = keptSpace(metadata, bytes);
  if (format === 'tiff') {
    if (isPlainYcbcr(bytes)) {
      throw new ImageError('it is a TIFF of luma and chroma without JPEG; save it as RGB');
    }
    return { ...autoOrient, decode: () => decodePixels(file.autoOrient(), kept) };
  }
  if (format !== 'heif') return { width, height, decode: () => decodePixels(file, kept) };
  const transforms = readAvifTransforms(bytes);
  const turns = transforms.reduce((sum, one) => sum + ('turns' in one ? one.turns : 0), 0);
  return {
    width: turns % 2 === 0 ? width : height,
    height: turns % 2 === 0 ? height : width,
    decode: async () => undoTransforms(await decodePixels(file, kept), transforms),
  };
}

async function decodePixels(file: Sharp, kept: KeptSpace): Promise<RgbImage> {
  const { space, depth } = kept;
  const { data, info } = await (space === 'srgb' ? file : file.pipelineColourspace(space))
    .toColourspace(space)
    .removeAlpha()
    .raw({ depth })
    .toBuffer({ resolveWithObject: true });
  const { width, height, channels } = info;
  const samples =
    depth === 'uchar' ? data : new Uint16Array(data.buffer, data.byteOffset, data.byteLength / 2);
  if (space === 'cmyk' && channels === 4) return { width, height, data: cmykToRgb(samples) };
  if (channels === 1) return { width, height, data: greyToRgb(samples) };
  if (channels !== 3) throw new ImageError(`${channels} channels cannot be shown as RGB`);
  return { width, height, data };
}

/** What is decoded to, where the decoder's own way from there to RGB is not the reference's. */
interface KeptSpace {
  readonly space: 'srgb' | 'cmyk' | 'grey16';
  readonly depth: 'uchar' | 'ushort';
}

function keptSpace({ format, space, depth }: Metadata, bytes: Uint8Array): KeptSpace {
  if (space === 'cmyk') return { space, depth: depth === 'ushort' ? depth : 'uchar' };
  // The reference makes 8 bits of grey with alpha, but not of grey alone; transparency by a colour is not alpha.
  const isPngWithAlpha = format === 'png' && bytes[PNG_COLOUR_TYPE] === GREY_ALPHA;
  const isGrey16 = space === 'grey16' && depth === 'ushort' && !isPngWithAlpha;
  return isGrey16 ? { space: 'grey16', depth: 'ushort' } : { space: 'srgb', depth: 'uchar' };
}

async function reading<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (cause instanceof ImageError) throw cause;
    throw new ImageError(`the file cannot be decoded as ${FORMAT_NAMES}: ${reasonOf(cause)}`);
  }
}

/** What is over 255 is white: the reference does not scale 16-bit grey down. */
function greyToRgb(grey: Uint8Array | Uint16Array): Uint8Array {
  const rgb = new Uint8Array(grey.length * 3);
  for (let i = 0; i < grey.length; i++) rgb.fill(Math.min(255, grey[i]!), i * 3, i * 3 + 3);
  return rgb;
}

/** Ink over ink without a profile: what a colour leaves of the light that black leaves, rounded as Pillow's `cmyk2rgb` does. */
function cmykToRgb(cmyk: Uint8Array | Uint16Array): Uint8Array {
  const shift = cmyk instanceof Uint16Array ? 8 : 0;
  const rgb = new Uint8Array((cmyk.length / 4) * 3);
  for (let from = 0, to = 0; from < cmyk.length; from += 4) {
    const light = 255 - (cmyk[from + 3]! >> shift);
    for (let channel = 0; channel < 3; channel++) {
      const product = (cmyk[from + channel]! >> shift) * light + 128;
      rgb[to++] = Math.max(0, light - (((product >> 8) + product) >> 8));
    }
  }
  return rgb;
}

/** One line, without what a library says of its own files. */
const reasonOf = (cause: unknown): string =>
  (cause instanceof Error ? cause.message : String(cause)).split('\n')[0]!.slice(0, 200);
