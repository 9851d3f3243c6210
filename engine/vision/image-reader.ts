/** Pictures of requests to text and embeddings: what the server needs of a model that sees. */
import { createHash } from 'node:crypto';
import type { VisionModel } from '#engine/model/vision.ts';
import { NvlmError } from '#engine/protocol/errors.ts';
import type { ImagePart } from '#engine/protocol/messages.ts';
import { DEFAULT_IMAGE_LIMITS, type ImageLimits, measureImage } from './decode.ts';
import type { ImageEncoder } from './encoder.ts';
import { ImageError } from './errors.ts';
import type { ImageWorkers } from './image-workers.ts';
import { type ImageFetching, readSource } from './sources.ts';
import { chooseGrid, imageText, type TilingOptions, tileCount } from './tiling.ts';

export interface ReadImage {
  /** Of the file and of how it was cut. */
  readonly digest: string;
  /** What stands for it in the prompt. */
  readonly text: string;
  /** Context tokens in `text`. */
  readonly tokenCount: number;
  /** (tokenCount, hidden size) */
  embed(): Promise<Float32Array>;
}

/** Of one picture, and of all of one request. */
export interface RequestImageLimits extends ImageLimits {
  readonly maxImages: number;
  /** Thumbnails counted. */
  readonly maxTiles: number;
}

export const DEFAULT_REQUEST_IMAGE_LIMITS: RequestImageLimits = {
  ...DEFAULT_IMAGE_LIMITS,
  maxImages: 16,
  maxTiles: 256,
};

export interface ImageReaderParts {
  readonly model: VisionModel;
  readonly contextTokenId: number;
  readonly encoder: ImageEncoder;
  readonly workers: ImageWorkers;
  readonly limits: RequestImageLimits;
  readonly fetching: ImageFetching | undefined;
}

interface MeasuredImage {
  readonly bytes: Uint8Array;
  readonly digest: string;
  readonly cut: 'auto' | 'low';
  /** Embeddings that were made before. */
  readonly known: Float32Array | undefined;
  readonly tileCount: number;
}

export class ImageReader {
  readonly contextToken: string;
  readonly contextTokenId: number;
  readonly #parts: ImageReaderParts;

  constructor(parts: ImageReaderParts) {
    this.#parts = parts;
    this.contextToken = parts.model.contextToken;
    this.contextTokenId = parts.contextTokenId;
  }

  /** How pictures are cut and what they cost, for clients. */
  get card() {
    const { tileSize, tokensPerTile, tiling } = this.#parts.model;
    return {
      tile_size: tileSize,
      min_tiles: tiling.isDynamic ? tiling.minTiles : 1,
      max_tiles: tiling.isDynamic ? tiling.maxTiles : 1,
      use_thumbnail: tiling.useThumbnail,
      tokens_per_tile: tokensPerTile,
    };
  }

  /** Throws NvlmError 'invalid_request' that names the picture, counted from 1, and what is wrong with it. */
  async read(images: readonly ImagePart[]): Promise<readonly ReadImage[]> {
    const { maxImages, maxTiles } = this.#parts.limits;
    const each = <In, Out>(of: readonly In[], work: (one: In, index: number) => Promise<Out>) =>
      Promise.all(
        of.map(async (one, index) => {
          try {
            return await work(one, index);
          } catch (cause) {
            if (!(cause instanceof ImageError)) throw cause;
            throw refusal(images, index, cause.message);
          }
        }),
      );
    if (images.length > maxImages) {
      throw refusal(images, maxImages, `at most ${maxImages} pictures are read of one request`);
    }
    // Everything that a header tells is known of all of them before any is decoded.
    const measured = await each(images, (image) => this.#measure(image));
    let tiles = 0;
    for (const [index, { tileCount: own }] of measured.entries()) {
      tiles += own;
      if (tiles <= maxTiles) continue;
      const before = index === 0 ? '' : `, with those before it ${tiles}`;
      const told = `it has ${own} tiles${before}; at most ${maxTiles} are read of one request`;
      throw refusal(images, index, `${told}: send it smaller, or with detail low`);
    }
    return each(measured, (one) => this.#prepare(one));
  }

  async #measure({ url, detail }: ImagePart): Promise<MeasuredImage> {
    const { model, encoder, limits, fetching } = this.#parts;
    const bytes = await readSource(url, limits.maxBytes, fetching);
    const cut = model.tiling.isDynamic && detail !== 'low' ? 'auto' : 'low';
    const digest = createHash('sha256').update(cut).update(bytes).digest('hex');
    const known = encoder.find(digest);
    if (known !== undefined) {
      const perTile = model.tokensPerTile * model.featureSize;
      return { bytes, digest, cut, known, tileCount: known.length / perTile };
    }
    const { width, height } = await measureImage(bytes, limits);
    const grid = chooseGrid(width, height, this.#tiling, cut);
    return { bytes, digest, cut, known, tileCount: tileCount(grid, this.#tiling) };
  }

  async #prepare({ bytes, digest, cut, known }: MeasuredImage): Promise<ReadImage> {
    const { model, encoder, workers, limits } = this.#parts;
    if (known !== undefined) return this.#image(digest, known.length, async () => known);
    const { tiles } = await workers.prepare({ bytes, limits, tiling: this.#tiling, detail: cut });
    const length = tiles.length * model.tokensPerTile * model.featureSize;
    return this.#image(digest, length, () => encoder.encode(digest, tiles));
  }

  get #tiling(): TilingOptions {
    const { tileSize, tiling } = this.#parts.model;
    return { tileSize, ...tiling };
  }

  #image(digest: string, length: number, embed: () => Promise<Float32Array>): ReadImage {
    const { model } = this.#parts;
    const tokenCount = length / model.featureSize;
    const text = imageText(tokenCount / model.tokensPerTile, {
      useThumbnail: model.tiling.useThumbnail,
      contextToken: model.contextToken,
      tokensPerTile: model.tokensPerTile,
      enclosure: model.enclosure,
      tagsTiles: model.tagsTiles,
    });
    return { digest, text, tokenCount, embed };
  }
}

/** `index`: of the picture that is refused. */
function refusal(images: readonly ImagePart[], index: number, message: string): NvlmError {
  const { path } = images[index]!;
  const which = `picture ${index + 1} of ${images.length}`;
  return new NvlmError('invalid_request', `${path}: ${which}: ${message}`, { param: path });
}
