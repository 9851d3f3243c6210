/** Pixels in memory. */

/** Interleaved 8-bit RGB, rows from the top without padding: `data.length === width * height * 3`. */
export interface RgbImage {
  readonly width: number;
  readonly height: number;
  readonly data: Uint8Array;
}

/** A copy of the rectangle whose top left corner is (`left`, `top`); it must lie inside the image. */
export function cropImage(
  image: RgbImage,
  left: number,
  top: number,
  width: number,
  height: number,
): RgbImage {
  const data = new Uint8Array(width * height * 3);
  for (let row = 0; row < height; row++) {
    const start = ((top + row) * image.width + left) * 3;
    data.set(image.data.subarray(start, start + width * 3), row * width * 3);
  }
  return { width, height, data };
}

/** By quarter turns against the clock. */
export function turnImage(image: RgbImage, turns: number): RgbImage {
  let turned = image;
  for (let turn = 0; turn < turns; turn++) {
    const { width, height } = turned;
    turned = rearrange(turned, height, width, (x, y) => x * width + (width - 1 - y));
  }
  return turned;
}

export function mirrorImage(image: RgbImage, mirrored: 'topToBottom' | 'leftToRight'): RgbImage {
  const { width, height } = image;
  return mirrored === 'topToBottom'
    ? rearrange(image, width, height, (x, y) => (height - 1 - y) * width + x)
    : rearrange(image, width, height, (x, y) => y * width + (width - 1 - x));
}

/** `from`: index of the pixel that comes to (x, y). */
function rearrange(
  { data }: RgbImage,
  width: number,
  height: number,
  from: (x: number, y: number) => number,
): RgbImage {
  const out = new Uint8Array(data.length);
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) {
      const source = from(x, y) * 3;
      const target = (y * width + x) * 3;
      out[target] = data[source]!;
      out[target + 1] = data[source + 1]!;
      out[target + 2] = data[source + 2]!;
    }
  return { width, height, data: out };
}
