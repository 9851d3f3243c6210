import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { buildProgram, buildVision } from '#engine/model/registry.ts';
import {
  type VisionModel,
  visionFeatures,
  visionLoadOptions,
  visionStep,
} from '#engine/model/vision.ts';
import type { Checkpoint } from '#engine/weights/checkpoint.ts';
import { openCheckpoint } from '#engine/weights/open.ts';
import { readSafetensors } from '#engine/weights/safetensors.ts';
import type { Backend } from '#kernels/backend.ts';
import { cpuBackends } from '../../support/backends.ts';
import { PRESETS } from '../../support/golden.ts';
import { readGoldenVision, readTiles } from '../../support/golden-images.ts';

/** The fixtures' README. */
const TOLERANCE = 1e-4;

const worst = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let most = 0;
  for (let i = 0; i < b.length; i++) {
    const difference = Math.abs(a[i]! - b[i]!);
    if (!(difference <= most)) most = difference;
  }
  return most;
};

async function encode(
  backend: Backend,
  model: VisionModel,
  tiles: readonly Float32Array[],
  computeType: 'float32' | 'bfloat16' = 'float32',
) {
  const options = visionLoadOptions(model, tiles.length, computeType);
  const loaded = await backend.load(model.program, options);
  try {
    const outputs = await loaded
      .createRunner({ threads: 2 })
      .run(visionStep(model, tiles, { wantEncoded: true }));
    return { vit: outputs.tensors![0]!, features: visionFeatures(model, outputs) };
  } finally {
    await loaded.close();
  }
}

function checkpointWith(checkpoint: Checkpoint, tensors: Checkpoint['tensors']): Checkpoint {
  return { ...checkpoint, tensors: new Map([...checkpoint.tensors, ...tensors]) };
}

for (const { name, create, skip } of cpuBackends())
  for (const preset of PRESETS) {
    test(`${name}: encoder and projector of preset ${preset} agree with the reference on every picture`, {
      skip,
    }, async () => {
      const golden = readGoldenVision(preset);
      const model = buildVision(await openCheckpoint(golden.path));
      assert.ok(model);
      for (const [image, expected] of Object.entries(golden.images)) {
        const tiles = await readTiles(image);
        assert.equal(tiles.length, expected.tiles);
        const { vit, features } = await encode(create(), model, tiles);
        const at = `${image}: `;
        const near = (actual: ArrayLike<number>, tensor: string) => {
          const difference = worst(actual, golden.floats(tensor));
          assert.ok(difference <= TOLERANCE, `${at}${tensor} differs by ${difference}`);
        };
        near(vit, expected.vit_first_tile_head);
        near(
          vit.subarray(-golden.floats(expected.vit_last_tile_tail).length),
          expected.vit_last_tile_tail,
        );
        near(features, expected.features_head);
        near(
          features.subarray(-golden.floats(expected.features_tail).length),
          expected.features_tail,
        );
        const mean = features.reduce((sum, value) => sum + value, 0) / features.length;
        assert.ok(Math.abs(mean - expected.features.mean) < 1e-5, `${at}mean ${mean}`);
        if (expected.full) {
          near(vit, expected.full.vit);
          near(features, expected.full.features);
        }
      }
    });

    test(`${name}: bf16 features of preset ${preset} stay as near as those of the reference in bf16`, {
      skip,
    }, async () => {
      const golden = readGoldenVision(preset);
      const model = buildVision(await openCheckpoint(golden.path));
      assert.ok(model);
      const expected = golden.images.i633!;
      const { features } = await encode(create(), model, await readTiles('i633'), 'bfloat16');
      const difference = worst(features, golden.floats(expected.full!.features));
      assert.ok(difference <= 3 * expected.features_bf16_error.max, `differs by ${difference}`);
    });
  }

test('dummy heads that are zero are left out, those that are not are kept and count', async () => {
  const golden = readGoldenVision('a');
  const checkpoint = await openCheckpoint(golden.path);
  const lean = buildVision(checkpoint);
  assert.equal(lean?.program.heads, 3);
  assert.ok(golden.overlay);
  const overlay = await readSafetensors(join(golden.path, golden.overlay.tensors));
  const full = buildVision(checkpointWith(checkpoint, overlay));
  assert.equal(full?.program.heads, 4);
  const { vit, features } = await encode(cpuBackends()[0]!.create(), full, await readTiles('i633'));
  assert.ok(worst(vit, golden.floats(golden.overlay.vit_first_tile_head)) <= TOLERANCE);
  assert.ok(worst(features, golden.floats(golden.overlay.features_head)) <= TOLERANCE);
});

test('a tile has the same bits alone and among others', async () => {
  const golden = readGoldenVision('b');
  const model = buildVision(await openCheckpoint(golden.path))!;
  const tiles = await readTiles('i1920x1080');
  const backend = cpuBackends()[0]!.create();
  const together = await encode(backend, model, tiles);
  const size = together.features.length / tiles.length;
  for (const [i, tile] of tiles.entries()) {
    const alone = await encode(backend, model, [tile]);
    assert.deepEqual(alone.features, together.features.slice(i * size, (i + 1) * size));
  }
});

test('the program of the language half takes image rows, and says so', async () => {
  const golden = readGoldenVision('c');
  const { takesImages, program } = buildProgram(await openCheckpoint(golden.path), {
    validTokenCount: 1536,
  });
  assert.equal(takesImages, true);
  assert.deepEqual(
    program.ops.slice(0, 3).map(({ op }) => op),
    ['embedding', 'input', 'scatterRows'],
  );
});
