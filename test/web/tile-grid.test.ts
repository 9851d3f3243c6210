import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chooseGrid, tileCount } from '#engine/vision/tiling.ts';
import { cutOf } from '#web/tile-grid.ts';
import { createRandom } from '../support/random.ts';

test('the preview cuts as the engine does, for pictures of any shape', () => {
  const random = createRandom(31);
  for (let round = 0; round < 3000; round++) {
    const width = random.integer(1, 3000);
    const height = random.integer(1, 3000);
    const options = {
      tileSize: 448,
      minTiles: 1,
      maxTiles: round % 2 === 0 ? 6 : 12,
      useThumbnail: round % 3 !== 0,
    };
    const grid = chooseGrid(width, height, options);
    const cut = cutOf(width, height, {
      tile_size: options.tileSize,
      min_tiles: options.minTiles,
      max_tiles: options.maxTiles,
      use_thumbnail: options.useThumbnail,
      tokens_per_tile: 256,
    });
    assert.deepEqual([cut.columns, cut.rows], [grid.columns, grid.rows], `${width} x ${height}`);
    assert.equal(cut.tiles, tileCount(grid, options));
  }
});
