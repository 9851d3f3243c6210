import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { ModelError } from '#engine/model/errors.ts';
import { buildProgram, buildVision } from '#engine/model/registry.ts';
import { contextRows, type VisionModel } from '#engine/model/vision.ts';
import type { Checkpoint } from '#engine/weights/checkpoint.ts';
import { openCheckpoint } from '#engine/weights/open.ts';
import { readSafetensors } from '#engine/weights/safetensors.ts';
import type { Program } from '#kernels/program.ts';
import { createReferenceBackend } from '#kernels/reference/backend.ts';
import { storageBytes } from '#kernels/storage.ts';
import { planMemory, splitProblem } from '#sizing/memory.ts';
import { readModelShape } from '#sizing/model-shape.ts';
import { encodeTiles, worst } from '../../support/encode-tiles.ts';
import { type Preset, readGolden } from '../../support/golden.ts';
import { readGoldenVision, readTiles } from '../../support/golden-images.ts';
import { runGreedy } from '../../support/greedy.ts';
import { createRandom } from '../../support/random.ts';
import {
  type DecoderSizes,
  randomDecoder,
  randomInternVl,
  type VisionSizes,
} from '../../support/random-checkpoint.ts';

/** Of logits of a few units against the fixtures, whose README gives it; and of embeddings. */
const GOLDEN_LOGITS = 2e-4;
const GOLDEN_FEATURES = 1e-4;
/**
 * Between numbers of ranks, relative to the largest value: sums of other parts are rounded to fp32 in other places, and so is every
 * activation after them.
 */
const BETWEEN_RANKS = 5e-6;

const ranksOf = (count: number) => Array.from({ length: count }, (_, index) => ({ index, count }));

function languageRanks(
  checkpoint: Checkpoint,
  count: number,
  validTokenCount: number,
  part: 'whole' | 'language_model' = 'whole',
): Program[] {
  return ranksOf(count).map(
    (rank) => buildProgram(checkpoint, { validTokenCount, part, rank }).program,
  );
}

const visionRanks = (checkpoint: Checkpoint, count: number): VisionModel[] =>
  ranksOf(count).map((rank) => buildVision(checkpoint, rank)!);

const encode = (models: readonly VisionModel[], tiles: readonly Float32Array[]) =>
  encodeTiles(createReferenceBackend(), models, tiles);

function largestDifference(actual: Float32Array, expected: Float32Array): number {
  assert.equal(actual.length, expected.length);
  return worst(actual, expected);
}

const largest = (values: Float32Array): number =>
  values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

function assertSame(actual: Float32Array, expected: Float32Array, context: string): void {
  const difference = largestDifference(actual, expected);
  const limit = BETWEEN_RANKS * largest(expected);
  assert.ok(difference <= limit, `${context}: differs by ${difference}, at most ${limit}`);
}

const TEXT_CASES = ['text-short', 'text-unicode'];

for (const [preset, counts] of [
  ['a', [2, 4, 8]],
  ['b', [2, 4, 16]],
  ['c', [2, 6]],
] as [Preset, number[]][])
  for (const count of counts)
    test(`preset ${preset} on ${count} ranks computes the golden logits and greedy ids of text`, async () => {
      const golden = readGolden(preset);
      const checkpoint = await openCheckpoint(golden.checkpointPath);
      const programs = languageRanks(checkpoint, count, golden.validIds, 'language_model');
      for (const { id, promptIds, logits, safeSteps, greedyIds } of golden.textCases) {
        if (!TEXT_CASES.includes(id)) continue;
        const run = await runGreedy(createReferenceBackend(), programs, {
          promptIds,
          steps: safeSteps,
          computeType: 'float32',
        });
        const difference = largestDifference(run.logits[0]!, logits);
        assert.ok(difference <= GOLDEN_LOGITS, `${id}: logits differ by ${difference}`);
        assert.deepEqual(run.ids, greedyIds.slice(0, safeSteps), id);
      }
    });

/** Image to tokens: the encoder's embeddings, then the language model over them, all on `count` ranks. */
async function answer(
  checkpoint: Checkpoint,
  count: number,
  prompt: {
    readonly validIds: number;
    readonly contextId: number;
    readonly promptIds: readonly number[];
    readonly tiles: readonly Float32Array[];
    readonly steps: number;
  },
) {
  const { features, vit } = await encode(visionRanks(checkpoint, count), prompt.tiles);
  const run = await runGreedy(
    createReferenceBackend(),
    languageRanks(checkpoint, count, prompt.validIds),
    {
      promptIds: prompt.promptIds,
      steps: prompt.steps,
      computeType: 'float32',
      images: {
        inputRows: features,
        inputTargets: contextRows(prompt.promptIds, prompt.contextId),
      },
    },
  );
  return { features, vit, run };
}

for (const [preset, count] of [
  ['a', 2],
  ['b', 4],
  ['c', 2],
] as [Preset, number][])
  test(`preset ${preset} on ${count} ranks sees: golden embeddings, logits and greedy ids of a picture`, async () => {
    const golden = readGoldenVision(preset);
    const found = golden.imageCases.find(({ id }) => id === 'image-i633')!;
    const { features, run } = await answer(await openCheckpoint(golden.path), count, {
      validIds: golden.validIds,
      contextId: golden.contextId,
      promptIds: found.promptIds,
      tiles: await readTiles('i633'),
      steps: found.safeSteps,
    });
    const expected = golden.images.i633!;
    const head = golden.floats(expected.features_head);
    assert.ok(largestDifference(features.subarray(0, head.length), head) <= GOLDEN_FEATURES);
    assert.ok(
      largestDifference(features, golden.floats(expected.full!.features)) <= GOLDEN_FEATURES,
    );
    const difference = largestDifference(run.logits[0]!, found.logits);
    assert.ok(difference <= GOLDEN_LOGITS, `logits differ by ${difference}`);
    assert.deepEqual(run.ids, found.greedyIds.slice(0, found.safeSteps));
  });

test('dummy heads that are not zero count on the rank that has them, and not in the norm of the others', async () => {
  const golden = readGoldenVision('a');
  const overlay = golden.overlay!;
  const stored = await openCheckpoint(golden.path);
  const replaced = await readSafetensors(join(golden.path, overlay.tensors));
  const checkpoint = { ...stored, tensors: new Map([...stored.tensors, ...replaced]) };
  const models = visionRanks(checkpoint, 4);
  // Three real heads and one dummy: the last rank knows nothing of the norm.
  const widths = models.map(({ program }) =>
    program.ops.flatMap((op) => (op.op === 'queryKeySquares' ? [op.width] : [])),
  );
  assert.deepEqual(
    widths.map((of) => of[0]),
    [16, 16, 16, 0],
  );
  const found = golden.imageCases.find(({ id }) => id === overlay.case)!;
  const { features, vit, run } = await answer(checkpoint, 4, {
    validIds: golden.validIds,
    contextId: golden.contextId,
    promptIds: found.promptIds,
    tiles: await readTiles(found.images[0]!),
    steps: 4,
  });
  const head = (values: Float32Array, name: string) => {
    const expected = golden.floats(name);
    return largestDifference(values.subarray(0, expected.length), expected);
  };
  assert.ok(head(vit, overlay.vit_first_tile_head) <= GOLDEN_FEATURES);
  assert.ok(head(features, overlay.features_head) <= GOLDEN_FEATURES);
  assert.ok(largestDifference(run.logits[0]!, golden.floats(overlay.logits)) <= GOLDEN_LOGITS);
  assert.deepEqual(run.ids, overlay.greedy_ids.slice(0, 4));
});

const count = (min: number, max: number) => fc.integer({ min, max });

/** Head counts that `ranks` divide, the rest as it comes. */
const dividedDecoder = fc
  .record({
    ranks: count(2, 6),
    headsPerRank: count(1, 3),
    kvPerRank: count(1, 2),
    replicas: fc.boolean(),
  })
  .chain(({ ranks, headsPerRank, kvPerRank, replicas }) => {
    // Either whole key heads on every rank, or one on several.
    const divisors = Array.from({ length: ranks - 1 }, (_, i) => i + 1).filter(
      (n) => ranks % n === 0,
    );
    const kvHeads = replicas ? fc.constantFrom(...divisors) : fc.constant(ranks * kvPerRank);
    const group = replicas ? headsPerRank : headsPerRank * kvPerRank;
    return fc.record({
      ranks: fc.constant(ranks),
      seed: count(1, 1000),
      sizes: fc.record({
        modelType: fc.constantFrom('llama' as const, 'qwen2' as const),
        layers: count(1, 2),
        hidden: fc.constantFrom(16, 24, 40),
        heads: fc.constant(ranks * group),
        kvHeads,
        headSize: fc.constantFrom(8, 16),
        intermediate: count(ranks, 40),
        vocabulary: count(Math.max(ranks, 12), 50),
        isTied: fc.boolean(),
        hasBiases: fc.boolean(),
        storage: fc.constantFrom('f32' as const, 'bf16' as const, 'f16' as const),
        isInterleaved: fc.boolean(),
      }),
    });
  });

async function logitsOf(checkpoint: Checkpoint, ranks: number, vocabulary: number) {
  const random = createRandom(vocabulary);
  const promptIds = Array.from({ length: 9 }, () => Math.floor(random.uniform() * vocabulary));
  const forced = [3, 1, 4];
  return runGreedy(createReferenceBackend(), languageRanks(checkpoint, ranks, vocabulary), {
    promptIds,
    steps: 4,
    computeType: 'float32',
    forced,
  });
}

test('any decoder gives the same logits and greedy ids on any ranks that divide it, whatever does not come out even', async () => {
  await fc.assert(
    fc.asyncProperty(dividedDecoder, async ({ ranks, seed, sizes }) => {
      const checkpoint = randomDecoder(sizes, seed);
      const whole = await logitsOf(checkpoint, 1, sizes.vocabulary);
      const split = await logitsOf(checkpoint, ranks, sizes.vocabulary);
      for (const [step, logits] of split.logits.entries()) {
        const expected = whole.logits[step]!;
        assertSame(logits, expected, `step ${step}`);
        // The same id, or one that is as good within the tolerance.
        const short = Math.max(...expected) - expected[split.ids[step]!]!;
        assert.ok(short <= 2 * BETWEEN_RANKS * largest(expected), `step ${step}`);
      }
    }),
    { numRuns: 60 },
  );
});

test('quantised columns are parted between blocks: 96 are 64 and 32, and heads that would cut a block are refused', async () => {
  const sizes: DecoderSizes = {
    modelType: 'llama',
    layers: 2,
    hidden: 64,
    heads: 4,
    kvHeads: 2,
    headSize: 16,
    intermediate: 96,
    vocabulary: 33,
    storage: 'q4_1',
    isInterleaved: true,
  };
  const checkpoint = randomDecoder(sizes);
  const widths = languageRanks(checkpoint, 2, 33).map(
    ({ tensors }) => tensors.find(({ name }) => name === 'gated')!.width,
  );
  assert.deepEqual(widths, [64, 32]);
  const whole = await logitsOf(checkpoint, 1, 33);
  const split = await logitsOf(checkpoint, 2, 33);
  for (const [step, logits] of split.logits.entries())
    assertSame(logits, whole.logits[step]!, `step ${step}`);
  const wide = randomDecoder({ ...sizes, intermediate: 128 });
  refuses(/o_proj\.weight is stored as q4_1 in blocks of 32, .* 64 columns .* at 0 and 16/, () =>
    languageRanks(wide, 4, 33),
  );
  const narrow = randomDecoder({ ...sizes, headSize: 32, intermediate: 64 });
  refuses(/intermediate size: 64 in blocks of 32, 2 of them; set it to at most 2/, () =>
    languageRanks(narrow, 4, 33),
  );
});

const visionSizes = (
  heads: fc.Arbitrary<number>,
  intermediate: fc.Arbitrary<number>,
): fc.Arbitrary<VisionSizes> =>
  heads.chain((heads) =>
    fc.record({
      layers: count(1, 2),
      hidden: fc.constant(8 * heads),
      heads: fc.constant(heads),
      intermediate,
      grid: fc.constantFrom(2, 4),
      norm: fc.constantFrom('rms_norm' as const, 'layer_norm' as const),
      hasQkvBias: fc.boolean(),
      hasQkNorm: fc.boolean(),
    }),
  );

const dividedVision = fc.record({
  ranks: count(2, 5),
  seed: count(1, 1000),
  vision: visionSizes(count(5, 7), count(5, 30)),
});

const smallDecoder: DecoderSizes = {
  modelType: 'qwen2',
  layers: 1,
  hidden: 23,
  heads: 4,
  kvHeads: 2,
  headSize: 8,
  intermediate: 10,
  vocabulary: 20,
};

test('any vision encoder gives the same embeddings on any ranks, heads that do not come out even among them', async () => {
  await fc.assert(
    fc.asyncProperty(dividedVision, async ({ ranks, seed, vision }) => {
      const checkpoint = randomInternVl({ vision, language: smallDecoder }, seed);
      const random = createRandom(seed);
      const values = 3 * (2 * vision.grid) ** 2;
      const tiles = [0, 1].map(() => Float32Array.from({ length: values }, () => random.normal()));
      const whole = await encode(visionRanks(checkpoint, 1), tiles);
      const split = await encode(visionRanks(checkpoint, ranks), tiles);
      assertSame(split.vit, whole.vit, 'encoder');
      assertSame(split.features, whole.features, 'embeddings');
    }),
    { numRuns: 60 },
  );
});

function refuses(pattern: RegExp, work: () => unknown): void {
  assert.throws(work, (error: unknown) => {
    assert.ok(error instanceof ModelError, String(error));
    assert.equal(error.code, 'MODEL_SPLIT_UNSUPPORTED');
    assert.match(error.message, pattern);
    return true;
  });
}

test('what cannot be divided is refused with its name and numbers', () => {
  const divide = (ranks: number, changes: Partial<DecoderSizes>) => () =>
    languageRanks(randomDecoder({ ...smallDecoder, ...changes }), ranks, 3);
  refuses(/tensor 3 .*does not divide the 4 attention heads/, divide(3, {}));
  refuses(
    /tensor 4 .*neither divides the 6 key-value heads nor is a multiple/,
    divide(4, { heads: 12, kvHeads: 6 }),
  );
  refuses(/intermediate size: 3; set it to at most 3/, divide(4, { intermediate: 3 }));
  refuses(/vocabulary: 3; set it to at most 3/, divide(4, { vocabulary: 3 }));
});

test('npm run plan and the engine refuse the same numbers of ranks, and count the same bytes on the others', () => {
  const anyVision = visionSizes(count(1, 6), count(1, 8));
  const anyDecoder = fc.record({
    modelType: fc.constantFrom('llama' as const, 'qwen2' as const),
    layers: count(1, 2),
    kvHeads: count(1, 6),
    group: count(1, 4),
    intermediate: count(1, 8),
    vocabulary: count(4, 9),
    hidden: count(1, 9),
    isTied: fc.boolean(),
    hasBiases: fc.boolean(),
  });
  fc.assert(
    fc.property(anyDecoder, anyVision, count(1, 8), ({ group, ...sizes }, vision, ranks) => {
      const language = { ...smallDecoder, ...sizes, heads: group * sizes.kvHeads };
      const checkpoint = randomInternVl({ vision, language });
      const shape = readModelShape(checkpoint.config);
      const planned = splitProblem(shape, ranks, 1);
      let programs: (readonly [Program, Program])[];
      try {
        const seeing = visionRanks(checkpoint, ranks);
        programs = languageRanks(checkpoint, ranks, 4).map((one, r) => [one, seeing[r]!.program]);
      } catch (error) {
        if (!(error instanceof ModelError)) throw error;
        assert.equal(error.code, 'MODEL_SPLIT_UNSUPPORTED', error.message);
        assert.ok(planned, error.message);
        return;
      }
      assert.equal(planned, undefined);
      const bytes = programs.map((both) =>
        both
          .flatMap(({ weights }) => weights)
          .reduce((sum, weight) => sum + storageBytes(weight.type, weight.shape), 0),
      );
      const plan = planMemory(shape, {
        tensor: ranks,
        pipeline: 1,
        gpuMemoryBytes: 2 ** 30,
        dtype: 'auto',
        maxSequences: 1,
        maxBatchedTokens: 1,
      });
      assert.deepEqual([bytes[0], Math.max(...bytes)], [plan.weights, plan.weights]);
    }),
    { numRuns: 300 },
  );
});
