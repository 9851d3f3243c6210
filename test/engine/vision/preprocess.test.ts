import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { IMAGENET_STATISTICS, normalizeToFloat32 } from '#engine/vision/normalize.ts';
import { PLAIN_RESAMPLER, resizeBicubic } from '#engine/vision/resize.ts';
import { cutTiles } from '#engine/vision/tiles.ts';
import { chooseGrid, NVLM_TILING } from '#engine/vision/tiling.ts';
import { nativeResampler } from '#kernels/resample.ts';
import { FIXTURES } from '../../support/golden.ts';
import { goldenImages, readImage } from '../../support/golden-images.ts';

const sha256 = (data: Uint8Array): string => createHash('sha256').update(data).digest('hex');
const bytesOf = (values: Float32Array): Uint8Array =>
  new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

for (const [name, golden] of Object.entries(goldenImages())) {
  test(`${name}: pixels, grid, tiles and normalised tiles are those of the reference, bit for bit`, async () => {
    const image = await readImage(name);
    assert.equal(sha256(image.data), golden.rgb_sha256, 'pixels');
    const grid = chooseGrid(image.width, image.height, NVLM_TILING);
    assert.deepEqual([grid.columns, grid.rows], golden.grid);
    const tiles = cutTiles(image, grid, NVLM_TILING);
    assert.equal(tiles.length, golden.tiles);
    for (const [i, tile] of tiles.entries()) {
      assert.equal(sha256(tile.data), golden.tile[i]!.u8_sha256, `tile ${i}`);
      const planes = normalizeToFloat32(tile, IMAGENET_STATISTICS);
      assert.equal(sha256(bytesOf(planes)), golden.tile[i]!.f32_sha256, `normalised tile ${i}`);
    }
  });
}

for (const [name, resampler] of [
  ['native code', nativeResampler()],
  ['TypeScript', PLAIN_RESAMPLER],
] as const)
  test(`resizing in ${name} gives the pixels of Pillow 13 in every order of the axes`, () => {
    assert.ok(resampler, 'the addon is not built');
    const { resized } = JSON.parse(readFileSync(join(FIXTURES, 'pillow-bicubic.json'), 'utf8')) as {
      resized: [number, number, number, number, number, string][];
    };
    assert.ok(resized.length >= 200);
    for (const [fromWidth, fromHeight, width, height, seed, expected] of resized) {
      const image = {
        width: fromWidth,
        height: fromHeight,
        data: noise(seed, fromWidth * fromHeight * 3),
      };
      const { data } = resizeBicubic(image, width, height, resampler);
      assert.equal(sha256(data), expected, `${fromWidth} x ${fromHeight} to ${width} x ${height}`);
    }
  });

/** As test/fixtures/pillow-bicubic.py makes it. */
function noise(seed: number, length: number): Uint8Array {
  let state = seed;
  return Uint8Array.from({ length }, () => {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    return (state >> 16) & 255;
  });
}
