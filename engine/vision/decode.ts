/** Image files to pixels. */
import sharp from 'sharp';
import { ImageError } from './errors.ts';
import type { RgbImage } from './pixels.ts';

export interface ImageLimits {
  /** Of the file. */
  readonly maxBytes: number;
  /** Width times height, read from the header before anything is decoded. */
  readonly maxPixels: number;
}

export const DEFAULT_IMAGE_LIMITS: ImageLimits = { maxBytes: 32 << 20, maxPixels: 64 << 20 };

const FORMATS = new Set(['png', 'jpeg', 'webp', 'gif', 'heif', 'tiff']);
const FORMAT_NAMES = 'PNG, JPEG, WebP, GIF, AVIF or TIFF';

/**
 * Decodes the first frame. As the reference does with `Image.open(file).convert('RGB')`: the EXIF orientation is not applied, an
 * embedded colour profile is not either, and alpha is dropped, not composited. Throws ImageError.
 */
export async function decodeImage(bytes: Uint8Array, limits: ImageLimits): Promise<RgbImage> {
  return reading(async () => {
    const { file } = await open(bytes, limits);
    const { data, info } = await file
      .toColourspace('srgb')
      .removeAlpha()
      .raw({ depth: 'uchar' })
      .toBuffer({ resolveWithObject: true });
    return { width: info.width, height: info.height, data: toRgb(data, info.channels) };
  });
}

/** Width and height in pixels, from the header alone. Throws ImageError, also for what is over the limits. */
export function measureImage(
  bytes: Uint8Array,
  limits: ImageLimits,
): Promise<{ readonly width: number; readonly height: number }> {
  return reading(() => open(bytes, limits));
}

async function open(bytes: Uint8Array, limits: ImageLimits) {
  if (bytes.byteLength === 0) throw new ImageError('the file is empty');
  if (bytes.byteLength > limits.maxBytes) {
    throw new ImageError(
      `the file has ${bytes.byteLength} bytes, at most ${limits.maxBytes} are read`,
    );
  }
  const file = sharp(bytes, {
    failOn: 'warning',
    // Of our own, below, so that the message tells the numbers.
    limitInputPixels: false,
    ignoreIcc: true,
    autoOrient: false,
  });
  const { format, width, height } = await file.metadata();
  if (!FORMATS.has(format ?? '')) {
    throw new ImageError(`the format is ${format ?? 'not known'}, expected ${FORMAT_NAMES}`);
  }
  if (width * height > limits.maxPixels) {
    throw new ImageError(
      `it has ${width} x ${height} pixels, at most ${limits.maxPixels} are decoded`,
    );
  }
  return { file, width, height };
}

async function reading<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (cause) {
    if (cause instanceof ImageError) throw cause;
    throw new ImageError(`the file cannot be decoded as ${FORMAT_NAMES}: ${reasonOf(cause)}`);
  }
}

function toRgb(data: Uint8Array, channels: number): Uint8Array {
  if (channels === 3) return data;
  if (channels !== 1) throw new ImageError(`${channels} channels cannot be shown as RGB`);
  const rgb = new Uint8Array(data.length * 3);
  for (let i = 0; i < data.length; i++) rgb.fill(data[i]!, i * 3, i * 3 + 3);
  return rgb;
}

/** One line, without what a library says of its own files. */
const reasonOf = (cause: unknown): string =>
  (cause instanceof Error ? cause.message : String(cause)).split('\n')[0]!.slice(0, 200);
