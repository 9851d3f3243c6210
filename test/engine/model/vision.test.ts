import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { buildProgram, buildVision } from '#engine/model/registry.ts';
import { contextRows } from '#engine/model/vision.ts';
import type { Checkpoint } from '#engine/weights/checkpoint.ts';
import { openCheckpoint } from '#engine/weights/open.ts';
import { readSafetensors } from '#engine/weights/safetensors.ts';
import { cpuBackends } from '../../support/backends.ts';
import { encodeTiles, imageRows, worst } from '../../support/encode-tiles.ts';
import { PRESETS } from '../../support/golden.ts';
import { type GoldenImageCase, readGoldenVision, readTiles } from '../../support/golden-images.ts';
import { assertCloseAtDivergence, runGreedy } from '../../support/greedy.ts';

/** The fixtures' README: of encoder and projector, and of logits where rotary angles are computed in fp32. */
const TOLERANCE = 1e-4;
const LOGIT_TOLERANCE = 2e-4;

const preparedTiles = new Map<string, Promise<Float32Array[]>>();

/** Decoded and cut once for all tests. */
function tilesOf(image: string): Promise<Float32Array[]> {
  const known = preparedTiles.get(image) ?? readTiles(image);
  preparedTiles.set(image, known);
  return known;
}

/** `actual` against the golden tensors of a picture: its first and last rows, and all of them where the golden file has them. */
function* compared(
  golden: ReturnType<typeof readGoldenVision>,
  image: string,
  { vit, features }: { readonly vit: Float32Array; readonly features: Float32Array },
): Generator<{
  what: 'vit' | 'features';
  tensor: string;
  actual: Float32Array;
  expected: Float32Array;
}> {
  const names = golden.images[image]!;
  const end = (values: Float32Array, expected: Float32Array) => values.subarray(-expected.length);
  for (const [what, values, head, tail] of [
    ['vit', vit, names.vit_first_tile_head, names.vit_last_tile_tail],
    ['features', features, names.features_head, names.features_tail],
  ] as const) {
    const [first, last] = [golden.floats(head), golden.floats(tail)];
    yield { what, tensor: head, actual: values, expected: first };
    yield { what, tensor: tail, actual: end(values, last), expected: last };
    const full = names.full?.[what];
    if (full !== undefined)
      yield { what, tensor: full, actual: values, expected: golden.floats(full) };
  }
}

/** The features of a case's pictures as rows of its prompt. */
const rowsOf = (
  golden: ReturnType<typeof readGoldenVision>,
  { images, promptIds }: GoldenImageCase,
  features: ReadonlyMap<string, Float32Array>,
) =>
  imageRows(
    images.map((image) => features.get(image)!),
    contextRows(promptIds, golden.contextId),
  );

function checkpointWith(checkpoint: Checkpoint, tensors: Checkpoint['tensors']): Checkpoint {
  return { ...checkpoint, tensors: new Map([...checkpoint.tensors, ...tensors]) };
}

const rootMeanSquare = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let sum = 0;
  for (let i = 0; i < b.length; i++) sum += (a[i]! - b[i]!) ** 2;
  return Math.sqrt(sum / b.length);
};

/**
 * The reference's own error in bf16 is what may be had: it rounds between operations, where ours does not. The margin is for the
 * paths that round activations too.
 */
function assertNearInBf16(
  what: string,
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  error: { readonly max: number; readonly rms: number },
): void {
  const most = worst(actual, expected);
  assert.ok(most <= 1.5 * error.max, `${what} differs by ${most}`);
  const rms = rootMeanSquare(actual, expected);
  assert.ok(rms <= 1.25 * error.rms, `${what} differs by ${rms} in the root mean square`);
}

for (const { name, create, skip } of cpuBackends())
  for (const preset of PRESETS) {
    test(`${name}: encoder, projector and logits of preset ${preset} are golden for every picture and case`, {
      skip,
    }, async () => {
      const golden = readGoldenVision(preset);
      const checkpoint = await openCheckpoint(golden.path);
      const model = buildVision(checkpoint);
      assert.ok(model);
      const featuresOf = new Map<string, Float32Array>();
      for (const [image, expected] of Object.entries(golden.images)) {
        const tiles = await tilesOf(image);
        assert.equal(tiles.length, expected.tiles);
        const encoded = await encodeTiles(create(), model, tiles);
        for (const { tensor, actual, expected: values } of compared(golden, image, encoded)) {
          const difference = worst(actual, values);
          assert.ok(difference <= TOLERANCE, `${image}: ${tensor} differs by ${difference}`);
        }
        const { features } = encoded;
        const mean = features.reduce((sum, value) => sum + value, 0) / features.length;
        assert.ok(Math.abs(mean - expected.features.mean) < 1e-5, `${image}: mean ${mean}`);
        featuresOf.set(image, features);
      }
      const { program } = buildProgram(checkpoint, { validTokenCount: golden.validIds });
      assert.ok(golden.imageCases.length >= 20);
      for (const one of golden.imageCases) {
        const run = await runGreedy(create(), program, {
          promptIds: one.promptIds,
          steps: 1,
          computeType: 'float32',
          images: rowsOf(golden, one, featuresOf),
        });
        const difference = worst(run.logits[0]!, one.logits);
        assert.ok(difference <= LOGIT_TOLERANCE, `${one.id}: logits differ by ${difference}`);
      }
    });

    test(`${name}: in bf16 preset ${preset} stays as near to fp32 as the reference in bf16, for every picture and case`, {
      skip,
    }, async () => {
      const golden = readGoldenVision(preset);
      const checkpoint = await openCheckpoint(golden.path);
      const model = buildVision(checkpoint);
      assert.ok(model);
      const featuresOf = new Map<string, Float32Array>();
      for (const image of Object.keys(golden.images)) {
        const encoded = await encodeTiles(create(), model, await tilesOf(image), 'bfloat16');
        for (const { what, tensor, actual, expected } of compared(golden, image, encoded)) {
          const error = golden.images[image]![`${what}_bf16_error`];
          assertNearInBf16(`${image}: ${tensor}`, actual, expected, error);
        }
        featuresOf.set(image, encoded.features);
      }
      const { program } = buildProgram(checkpoint, { validTokenCount: golden.validIds });
      for (const one of golden.imageCases) {
        const run = await runGreedy(create(), program, {
          promptIds: one.promptIds,
          steps: one.greedyIds.length,
          computeType: 'bfloat16',
          images: rowsOf(golden, one, featuresOf),
          stop: (id, step) => id !== one.greedyIds[step],
        });
        assertNearInBf16(`${one.id}: logits`, run.logits[0]!, one.logits, one.bf16Error);
        assertCloseAtDivergence(one, run);
      }
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
  const { vit, features } = await encodeTiles(
    cpuBackends()[0]!.create(),
    full,
    await readTiles('i633'),
  );
  assert.ok(worst(vit, golden.floats(golden.overlay.vit_first_tile_head)) <= TOLERANCE);
  assert.ok(worst(features, golden.floats(golden.overlay.features_head)) <= TOLERANCE);
});

test('a tile has the same bits alone and among others', async () => {
  const golden = readGoldenVision('b');
  const model = buildVision(await openCheckpoint(golden.path))!;
  const tiles = await readTiles('i1920x1080');
  const backend = cpuBackends()[0]!.create();
  const together = await encodeTiles(backend, model, tiles);
  const size = together.features.length / tiles.length;
  for (const [i, tile] of tiles.entries()) {
    const alone = await encodeTiles(backend, model, [tile]);
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
