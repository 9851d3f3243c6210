/**
 * Dynamic tiling: the grid of tiles whose shape is nearest to the image's, an optional thumbnail after them, and the text
 * that stands for each tile in the prompt. Source of the rule: the preprocessing of InternVL and NVLM-D (`dynamic_preprocess`).
 */

/** Columns and rows of tiles, thumbnail not counted. */
export interface TileGrid {
  readonly columns: number;
  readonly rows: number;
}

export interface TilingOptions {
  /** Pixels along the edge of a tile: `image_size` of the vision config, 448 for NVLM-D. */
  readonly tileSize: number;
  /** Fewest and most tiles of a grid, thumbnail not counted: 1 and 6 for NVLM-D, 1 and 12 for InternVL2. */
  readonly minTiles: number;
  readonly maxTiles: number;
  /** A view of the whole image after the tiles, unless there is one tile only. */
  readonly useThumbnail: boolean;
}

export const NVLM_TILING: TilingOptions = {
  tileSize: 448,
  minTiles: 1,
  maxTiles: 6,
  useThumbnail: true,
};

/** What a client may ask for: `low` is one tile; `high` and `auto` are dynamic tiles. */
export type ImageDetail = 'low' | 'high' | 'auto';

/**
 * The grid for an image of `width` x `height` pixels. Of two grids equally near in shape the later, larger one wins when the
 * image has more than half its pixels. The order inside an equal number of tiles is by columns; neighbours in that order
 * never tie for the same image with 6 or 12 tiles, so Python's order of a set does not show.
 */
export function chooseGrid(
  width: number,
  height: number,
  options: TilingOptions,
  detail: ImageDetail = 'auto',
): TileGrid {
  if (detail === 'low') return { columns: 1, rows: 1 };
  const shape = width / height;
  const area = width * height;
  let best: TileGrid = { columns: 1, rows: 1 };
  let leastDistance = Number.POSITIVE_INFINITY;
  for (const grid of candidateGrids(options.minTiles, options.maxTiles)) {
    const distance = Math.abs(shape - grid.columns / grid.rows);
    const fills = area > 0.5 * options.tileSize ** 2 * grid.columns * grid.rows;
    if (distance < leastDistance || (distance === leastDistance && fills)) {
      leastDistance = distance;
      best = grid;
    }
  }
  return best;
}

/** Every grid of `minTiles` to `maxTiles` tiles, fewest tiles first. */
function candidateGrids(minTiles: number, maxTiles: number): TileGrid[] {
  const grids: TileGrid[] = [];
  for (let tiles = minTiles; tiles <= maxTiles; tiles++) {
    for (let columns = 1; columns <= tiles; columns++) {
      if (tiles % columns === 0) grids.push({ columns, rows: tiles / columns });
    }
  }
  return grids;
}

/** Tiles the vision encoder sees, thumbnail counted. */
export function tileCount(grid: TileGrid, options: TilingOptions): number {
  const tiles = grid.columns * grid.rows;
  return tiles > 1 && options.useThumbnail ? tiles + 1 : tiles;
}

/** The tag before each tile's context tokens, in the order of the tiles: the thumbnail last. */
export function tileTags(tiles: number, useThumbnail: boolean): string[] {
  const numbered = useThumbnail ? tiles - 1 : tiles;
  const tags = Array.from({ length: numbered }, (_, index) => `<tile_${index + 1}>`);
  // One tile is its own thumbnail, as the reference tags it.
  return useThumbnail ? [...tags, '<tile_global_thumbnail>'] : tags;
}

/**
 * The text that stands for one picture in a prompt. It must be tokenised together with what surrounds it: `>` and `<` merge
 * into one token.
 */
export function imageText(
  tiles: number,
  options: {
    readonly useThumbnail: boolean;
    readonly contextToken: string;
    readonly tokensPerTile: number;
    /** Before and after all tiles. */
    readonly enclosure: readonly [string, string];
    readonly tagsTiles: boolean;
  },
): string {
  const [opening, closing] = options.enclosure;
  const context = options.contextToken.repeat(options.tokensPerTile);
  const body = options.tagsTiles
    ? tileTags(tiles, options.useThumbnail).map((tag) => tag + context)
    : [context.repeat(tiles)];
  return opening + body.join('') + closing;
}
