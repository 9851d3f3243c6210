/** The pictures of test/fixtures/nvlm-tiny and what the reference makes of them. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { DEFAULT_IMAGE_LIMITS, decodeImage } from '#engine/vision/decode.ts';
import { IMAGENET_STATISTICS, normalizeToFloat32 } from '#engine/vision/normalize.ts';
import type { RgbImage } from '#engine/vision/pixels.ts';
import { cutTiles } from '#engine/vision/tiles.ts';
import { chooseGrid, NVLM_TILING } from '#engine/vision/tiling.ts';
import { FIXTURES, type Preset } from './golden.ts';

const folder = join(FIXTURES, 'nvlm-tiny');

/** In test/fixtures/pillow/files. */
export const ONE_FILE_OF_EACH_FORMAT = [
  'rgb-8.png',
  '420.jpg',
  'lossy.webp',
  'compressed.gif',
  '444.avif',
  'lzw.tif',
] as const;

export interface ImageFile {
  readonly file: string;
  readonly width: number;
  readonly height: number;
  readonly rgb_sha256: string;
  readonly grid: readonly [number, number];
  readonly tiles: number;
  readonly tile: readonly { readonly u8_sha256: string; readonly f32_sha256: string }[];
}

export const goldenImages = (): Readonly<Record<string, ImageFile>> =>
  JSON.parse(readFileSync(join(folder, 'preprocess.json'), 'utf8'));

export const readImage = (name: string): Promise<RgbImage> =>
  decodeImage(readFileSync(join(folder, goldenImages()[name]!.file)), DEFAULT_IMAGE_LIMITS);

/** fp32 [3, 448, 448] each, the thumbnail last. */
export async function readTiles(name: string): Promise<Float32Array[]> {
  const image = await readImage(name);
  const grid = chooseGrid(image.width, image.height, NVLM_TILING);
  return cutTiles(image, grid, NVLM_TILING).map((tile) =>
    normalizeToFloat32(tile, IMAGENET_STATISTICS),
  );
}

/** Of a difference, over all of a picture's values. */
export interface Spread {
  readonly max: number;
  readonly rms: number;
}

interface Statistics {
  readonly shape: readonly number[];
  readonly mean: number;
  readonly rms: number;
  readonly min: number;
  readonly max: number;
}

/** What vision.json tells of one picture; strings name tensors. */
export interface GoldenVision {
  readonly tiles: number;
  readonly vit: Statistics;
  readonly features: Statistics;
  readonly vit_first_tile_head: string;
  readonly vit_last_tile_tail: string;
  readonly features_head: string;
  readonly features_tail: string;
  readonly vit_bf16_error: Spread;
  readonly features_bf16_error: Spread;
  readonly full?: { readonly vit: string; readonly features: string };
}

export interface GoldenImageCase {
  readonly id: string;
  readonly template: 'qwen2' | 'chatml_hf';
  readonly messages: readonly { readonly role: string; readonly content: string }[];
  readonly images: readonly string[];
  readonly promptIds: readonly number[];
  readonly logits: Float32Array;
  readonly greedyIds: readonly number[];
  readonly safeSteps: number;
  readonly top5Ids: readonly (readonly number[])[];
  /** Difference of the reference's own logits in bf16, over the steps of the golden tokens. */
  readonly bf16Error: Spread;
}

export function readGoldenVision(preset: Preset) {
  const golden = join(folder, preset, 'golden');
  const read = (name: string) => JSON.parse(readFileSync(join(golden, name), 'utf8'));
  const table = read('tensors.json');
  const bytes = readFileSync(join(golden, 'tensors.bin'));
  const slice = (name: string): ArrayBuffer => {
    const { offset, nbytes } = table[name];
    return Uint8Array.from(bytes.subarray(offset, offset + nbytes)).buffer;
  };
  const floats = (name: string) => new Float32Array(slice(name));
  const { cases, overlay, valid_ids, vision_pad_id } = read('cases.json');
  const imageCases = cases
    .filter(({ images }: { images: readonly string[] }) => images.length > 0)
    .map(
      // biome-ignore lint/suspicious/noExplicitAny: a JSON file.
      (entry: any): GoldenImageCase => ({
        id: entry.id,
        template: entry.template,
        messages: entry.messages,
        images: entry.images,
        promptIds: [...new Int32Array(slice(entry.input_ids))],
        logits: floats(entry.logits),
        greedyIds: entry.greedy.ids,
        safeSteps: entry.greedy.safe_steps,
        top5Ids: entry.greedy.top5_ids,
        bf16Error: entry.bf16_forced,
      }),
    ) as GoldenImageCase[];
  return {
    path: join(folder, preset),
    images: read('vision.json') as Readonly<Record<string, GoldenVision>>,
    imageCases,
    contextId: vision_pad_id as number,
    validIds: valid_ids as number,
    overlay: overlay as
      | {
          readonly case: string;
          readonly tensors: string;
          readonly vit_first_tile_head: string;
          readonly features_head: string;
          readonly logits: string;
          readonly greedy_ids: readonly number[];
        }
      | undefined,
    floats,
  };
}
