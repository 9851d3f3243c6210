/** A file to what the encoder reads. Takes tens of milliseconds of a core: runs in a worker thread. */
import { decodeImage, type ImageLimits } from './decode.ts';
import { IMAGENET_STATISTICS, normalizeToFloat32 } from './normalize.ts';
import { cutTiles } from './tiles.ts';
import { chooseGrid, type ImageDetail, type TileGrid, type TilingOptions } from './tiling.ts';

export interface PrepareRequest {
  readonly bytes: Uint8Array;
  readonly limits: ImageLimits;
  readonly tiling: TilingOptions;
  readonly detail: ImageDetail;
}

export interface PreparedImage {
  readonly width: number;
  readonly height: number;
  readonly grid: TileGrid;
  /** fp32 [3, tileSize, tileSize] each, the thumbnail last. */
  readonly tiles: readonly Float32Array<ArrayBuffer>[];
}

/** Throws ImageError. */
export async function prepareImage(request: PrepareRequest): Promise<PreparedImage> {
  const { bytes, limits, tiling, detail } = request;
  const image = await decodeImage(bytes, limits);
  const { width, height } = image;
  const grid = chooseGrid(width, height, tiling, detail);
  const tiles = cutTiles(image, grid, tiling).map(
    (tile) => normalizeToFloat32(tile, IMAGENET_STATISTICS) as Float32Array<ArrayBuffer>,
  );
  return { width, height, grid, tiles };
}
