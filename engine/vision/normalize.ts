/** Tiles to what the vision encoder reads: planes of (value / 255 - mean) / std. */
import type { RgbImage } from './pixels.ts';

/** Mean and standard deviation of each channel, red first. */
export interface ChannelStatistics {
  readonly mean: readonly [number, number, number];
  readonly std: readonly [number, number, number];
}

export const IMAGENET_STATISTICS: ChannelStatistics = {
  mean: [0.485, 0.456, 0.406],
  std: [0.229, 0.224, 0.225],
};

/** float32 [3, height, width]. Each step is rounded to float32, as torchvision's ToTensor and Normalize do. */
export function normalizeToFloat32(image: RgbImage, statistics: ChannelStatistics): Float32Array {
  const planes = new Float32Array(image.data.length);
  fillPlanes(image.data, planes, valueTables(statistics));
  return planes;
}

/** bfloat16 bits [3, height, width]: the float32 values rounded to nearest, ties to even. */
export function normalizeToBfloat16(image: RgbImage, statistics: ChannelStatistics): Uint16Array {
  const planes = new Uint16Array(image.data.length);
  fillPlanes(image.data, planes, valueTables(statistics).map(toBfloat16));
  return planes;
}

/** A channel has only 256 values: they are computed once. */
function valueTables({ mean, std }: ChannelStatistics): Float32Array[] {
  return mean.map((channelMean, channel) =>
    Float32Array.from({ length: 256 }, (_, value) => {
      const scaled = Math.fround(Math.fround(value) / 255);
      const centred = Math.fround(scaled - Math.fround(channelMean));
      return centred / Math.fround(std[channel]!);
    }),
  );
}

function toBfloat16(values: Float32Array): Uint16Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  return Uint16Array.from(words, (word) => (word + 0x7fff + ((word >>> 16) & 1)) >>> 16);
}

function fillPlanes(
  data: Uint8Array,
  planes: Float32Array | Uint16Array,
  tables: readonly (Float32Array | Uint16Array)[],
): void {
  const pixels = data.length / 3;
  for (let channel = 0; channel < 3; channel++) {
    const table = tables[channel]!;
    const plane = planes.subarray(channel * pixels, (channel + 1) * pixels);
    for (let pixel = 0, at = channel; pixel < pixels; pixel++, at += 3) {
      plane[pixel] = table[data[at]!]!;
    }
  }
}
