/** InternVLChatModel against transformers: test/fixtures/intern-vl-tiny/make.py. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { buildProgram, buildVision } from '#engine/model/registry.ts';
import { contextRows } from '#engine/model/vision.ts';
import type { RunningServer } from '#engine/server/app.ts';
import type { LoadedModel } from '#engine/start.ts';
import { IMAGENET_STATISTICS, normalizeToFloat32 } from '#engine/vision/normalize.ts';
import { cutTiles } from '#engine/vision/tiles.ts';
import { chooseGrid } from '#engine/vision/tiling.ts';
import { openCheckpoint } from '#engine/weights/open.ts';
import { cpuBackends } from '../../support/backends.ts';
import { encodeTiles, imageRows, worst } from '../../support/encode-tiles.ts';
import { FIXTURES } from '../../support/golden.ts';
import { readImage } from '../../support/golden-images.ts';
import { assertCloseAtDivergence, runGreedy } from '../../support/greedy.ts';
import { dataUrl, fileOf, loadTiny, serveTiny } from '../../support/vision-server.ts';

const path = join(FIXTURES, 'intern-vl-tiny');

/** Offset and count of fp32 values. */
type Place = readonly [number, number];

interface Golden {
  readonly valid_ids: number;
  readonly context_id: number;
  readonly images: Readonly<
    Record<string, { tiles: number; vit_first: Place; vit_last: Place; features: Place }>
  >;
  readonly cases: readonly {
    readonly id: string;
    readonly content: string;
    readonly images: readonly string[];
    readonly input_ids: readonly number[];
    readonly logits: Place;
    readonly greedy_ids: readonly number[];
    readonly top5_ids: readonly (readonly number[])[];
    readonly safe_steps: number;
  }[];
}

const golden: Golden = JSON.parse(readFileSync(join(path, 'golden.json'), 'utf8'));
const stored = new Float32Array(Uint8Array.from(readFileSync(join(path, 'golden.bin'))).buffer);
const valuesOf = ([offset, count]: Place): Float32Array => stored.subarray(offset, offset + count);

const TOLERANCE = 1e-4;
/** As that of the NVLM-D fixtures, which have the same rotary angles and a like width. */
const LOGIT_TOLERANCE = 2e-4;

for (const { name, create, skip } of cpuBackends()) {
  test(`${name}: tiles, encoder, projector, logits and greedy tokens of an InternVLChatModel are those of transformers`, {
    skip,
  }, async () => {
    const checkpoint = await openCheckpoint(path);
    const model = buildVision(checkpoint);
    assert.ok(model);
    const tiling = { tileSize: model.tileSize, ...model.tiling };
    const featuresOf = new Map<string, Float32Array>();
    for (const [image, expected] of Object.entries(golden.images)) {
      const pixels = await readImage(image);
      const grid = chooseGrid(pixels.width, pixels.height, tiling);
      const tiles = cutTiles(pixels, grid, tiling).map((tile) =>
        normalizeToFloat32(tile, IMAGENET_STATISTICS),
      );
      assert.equal(tiles.length, expected.tiles, image);
      const { vit, features } = await encodeTiles(create(), model, tiles);
      const last = valuesOf(expected.vit_last);
      for (const [what, actual, values] of [
        ['the first tile', vit, valuesOf(expected.vit_first)],
        ['the last tile', vit.subarray(-last.length), last],
        ['the projector', features, valuesOf(expected.features)],
      ] as const) {
        const difference = worst(actual, values);
        assert.ok(difference <= TOLERANCE, `${image}: ${what} differs by ${difference}`);
      }
      assert.equal(features.length, expected.features[1]);
      featuresOf.set(image, features);
    }
    const { program } = buildProgram(checkpoint, { validTokenCount: golden.valid_ids });
    for (const one of golden.cases) {
      const ask = (computeType: 'float32' | 'bfloat16') =>
        runGreedy(create(), program, {
          promptIds: one.input_ids,
          steps: one.greedy_ids.length,
          computeType,
          images: imageRows(
            one.images.map((image) => featuresOf.get(image)!),
            contextRows(one.input_ids, golden.context_id),
          ),
        });
      const run = await ask('float32');
      const difference = worst(run.logits[0]!, valuesOf(one.logits));
      assert.ok(difference <= LOGIT_TOLERANCE, `${one.id}: logits differ by ${difference}`);
      const safe = one.greedy_ids.slice(0, one.safe_steps);
      assert.deepEqual(run.ids.slice(0, one.safe_steps), safe, one.id);
      const { id, greedy_ids: greedyIds, top5_ids: top5Ids } = one;
      assertCloseAtDivergence({ id, greedyIds, top5Ids }, await ask('bfloat16'));
    }
  });
}

describe('an InternVLChatModel through the wire', { timeout: 120_000 }, () => {
  let model: LoadedModel;
  let server: RunningServer;
  let url: string;
  before(async () => {
    model = await loadTiny(path);
    ({ server, url } = await serveTiny(model));
  });
  after(async () => {
    await server?.close(1000);
    await model?.close();
  });

  test('prompt ids and greedy tokens of every case are golden', async () => {
    for (const { id, content, images, ...expected } of golden.cases) {
      const text = content.replaceAll('<image>\n', '');
      const parts = images.map((image) => ({
        type: 'image_url',
        image_url: { url: dataUrl(fileOf(image)) },
      }));
      const response = await fetch(`${url}/v1/chat/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({
          messages: [{ role: 'user', content: [...parts, { type: 'text', text }] }],
          max_tokens: expected.safe_steps,
          ignore_eos: true,
          return_token_ids: true,
        }),
      });
      const answer = (await response.json()) as {
        prompt_token_ids: number[];
        choices: [{ token_ids: number[] }];
      };
      assert.equal(response.status, 200, JSON.stringify(answer));
      assert.deepEqual(answer.prompt_token_ids, expected.input_ids, id);
      const safe = expected.greedy_ids.slice(0, expected.safe_steps);
      assert.deepEqual(answer.choices[0].token_ids, safe, id);
    }
  });
});
