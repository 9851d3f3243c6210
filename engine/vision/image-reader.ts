/** Pictures of requests to text and embeddings: what the server needs of a model that sees. */
import { createHash } from 'node:crypto';
import type { VisionModel } from '#engine/model/vision.ts';
import { NvlmError } from '#engine/protocol/errors.ts';
import type { ImagePart } from '#engine/protocol/messages.ts';
import type { ImageLimits } from './decode.ts';
import type { ImageEncoder } from './encoder.ts';
import { ImageError } from './errors.ts';
import type { ImageWorkers } from './image-workers.ts';
import { type ImageFetching, readSource } from './sources.ts';
import { imageText } from './tiling.ts';

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

export interface ImageReaderParts {
  readonly model: VisionModel;
  readonly contextTokenId: number;
  readonly encoder: ImageEncoder;
  readonly workers: ImageWorkers;
  readonly limits: ImageLimits;
  /** In one request. */
  readonly maxImages: number;
  readonly fetching: ImageFetching | undefined;
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
    const { maxImages } = this.#parts;
    if (images.length > maxImages) {
      const path = images[maxImages]!.path;
      throw refusal(path, `${images.length} pictures are more than ${maxImages} in one request`);
    }
    return Promise.all(
      images.map(async (image, index) => {
        try {
          return await this.#readOne(image);
        } catch (cause) {
          if (!(cause instanceof ImageError)) throw cause;
          const which = `picture ${index + 1} of ${images.length}`;
          throw refusal(image.path, `${which}: ${cause.message}`);
        }
      }),
    );
  }

  async #readOne({ url, detail }: ImagePart): Promise<ReadImage> {
    const { model, encoder, workers, limits, fetching } = this.#parts;
    const bytes = await readSource(url, limits.maxBytes, fetching);
    const cut = model.tiling.isDynamic && detail !== 'low' ? 'dynamic' : 'low';
    const digest = createHash('sha256').update(cut).update(bytes).digest('hex');
    const known = encoder.find(digest);
    if (known !== undefined) return this.#image(digest, known.length, async () => known);
    const tiling = { tileSize: model.tileSize, ...model.tiling };
    const { tiles } = await workers.prepare({
      bytes,
      limits,
      tiling,
      detail: cut === 'low' ? 'low' : 'auto',
    });
    const length = tiles.length * model.tokensPerTile * model.featureSize;
    return this.#image(digest, length, () => encoder.encode(digest, tiles));
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

const refusal = (path: string, message: string): NvlmError =>
  new NvlmError('invalid_request', `${path}: ${message}`, { param: path });
