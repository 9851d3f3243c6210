/** How the engine will cut a picture: the same rule as engine/vision/tiling.ts, for the preview. Pure. */

/** What /v1/models tells of a model that sees. */
export interface Vision {
  /** Pixels along the edge of a tile. */
  readonly tile_size: number;
  readonly min_tiles: number;
  readonly max_tiles: number;
  readonly use_thumbnail: boolean;
  readonly tokens_per_tile: number;
}

export interface TileCut {
  readonly columns: number;
  readonly rows: number;
  /** With the thumbnail. */
  readonly tiles: number;
  /** Without the few of the tags. */
  readonly tokens: number;
}

export function cutOf(width: number, height: number, vision: Vision): TileCut {
  let columns = 1;
  let rows = 1;
  let least = Number.POSITIVE_INFINITY;
  for (let tiles = vision.min_tiles; tiles <= vision.max_tiles; tiles++) {
    for (let across = 1; across <= tiles; across++) {
      if (tiles % across !== 0) continue;
      const distance = Math.abs(width / height - across / (tiles / across));
      const fills = width * height > 0.5 * vision.tile_size ** 2 * tiles;
      if (distance < least || (distance === least && fills)) {
        least = distance;
        columns = across;
        rows = tiles / across;
      }
    }
  }
  const inGrid = columns * rows;
  const tiles = inGrid > 1 && vision.use_thumbnail ? inGrid + 1 : inGrid;
  return { columns, rows, tiles, tokens: tiles * vision.tokens_per_tile };
}
