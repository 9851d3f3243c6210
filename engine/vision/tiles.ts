/** An image to the tiles that the vision encoder sees. */
import { cropImage, type RgbImage } from './pixels.ts';
import { resizeBicubic } from './resize.ts';
import type { TileGrid, TilingOptions } from './tiling.ts';

/** Tiles from left to right, then from top to bottom, the thumbnail last: `tileSize` x `tileSize` pixels each. */
export function cutTiles(image: RgbImage, grid: TileGrid, options: TilingOptions): RgbImage[] {
  const { tileSize, useThumbnail } = options;
  const { columns, rows } = grid;
  const sheet = resizeBicubic(image, columns * tileSize, rows * tileSize);
  if (columns * rows === 1) return [sheet];
  const tiles: RgbImage[] = [];
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      tiles.push(cropImage(sheet, column * tileSize, row * tileSize, tileSize, tileSize));
    }
  }
  // Made from the image itself, not from the sheet, whose shape is not the image's.
  if (useThumbnail) tiles.push(resizeBicubic(image, tileSize, tileSize));
  return tiles;
}
