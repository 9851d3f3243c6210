import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ModelError } from '#engine/model/errors.ts';
import { buildProgram, buildVision } from '#engine/model/registry.ts';
import type { WeightSource } from '#kernels/program.ts';
import { validateProgram } from '#kernels/validate.ts';
import { checkpointOf, publishedShapes, VALID_IDS } from '../../support/nvlm-d-72b.ts';

const parameters = (weights: readonly WeightSource[]): number =>
  weights.reduce((sum, { shape }) => sum + shape.reduce((product, size) => product * size, 1), 0);

test('NVLM-D-72B: every published tensor has its place, and the programs are those of the paper', () => {
  const shapes = publishedShapes();
  assert.equal(shapes.size, 1556);
  const checkpoint = checkpointOf(shapes);
  const { program, takesImages, maxPositions, shape } = buildProgram(checkpoint, {
    validTokenCount: VALID_IDS,
  });
  validateProgram(program);
  assert.equal(takesImages, true);
  assert.deepEqual(program.cache, { layers: 80, kvHeads: 8, headSize: 128 });
  assert.equal(program.heads, 64);
  assert.equal(maxPositions, 32_768);
  assert.equal(shape.vocabularyRows, 152_064);
  assert.equal(program.weights.length, 3 + 80 * 12);
  assert.equal(program.ops.length, 3 + 80 * 8 + 2 + 3);
  // 72.7 billion, embeddings and head among them.
  assert.equal(parameters(program.weights), 72_706_203_648);

  const vision = buildVision(checkpoint);
  assert.ok(vision);
  validateProgram(vision.program);
  assert.equal(vision.program.heads, 25);
  assert.equal(vision.tokensPerTile, 256);
  assert.equal(vision.positionsPerTile, 1025);
  assert.equal(vision.featureSize, 8192);
  assert.deepEqual(vision.program.tensors.map(({ name, width }) => [name, width]).slice(0, 5), [
    ['hidden', 3200],
    ['normed', 3200],
    ['qkv', 9600],
    ['attended', 3200],
    ['activated', 12_800],
  ]);
  assert.equal(vision.program.ops.length, 4 + 45 * 9 + 4);
  assert.equal(vision.contextToken, '<|vision_pad|>');
});

test('NVLM-D-72B: 25 stored heads give the same program as 32 with zero dummies', () => {
  const [padded, bare] = [32, 25].map((heads) => buildVision(checkpointOf(publishedShapes(heads))));
  const shapesOf = (model: typeof padded) => model?.program.weights.map(({ shape }) => shape);
  assert.deepEqual(shapesOf(padded), shapesOf(bare));
  assert.deepEqual(padded?.program.ops, bare?.program.ops);
});

test('NVLM-D-72B: a tensor that is missing, one too many and one of another shape are named', () => {
  const shapes = publishedShapes();
  shapes.delete('language_model.model.layers.79.mlp.down_proj.weight');
  shapes.set('language_model.model.layers.80.mlp.down_proj.weight', [8192, 29568]);
  shapes.set('vision_model.encoder.layers.44.ls2', [3201]);
  shapes.set('mlp1.2.weight', [1]);
  const checkpoint = checkpointOf(shapes);
  const told = (work: () => unknown): string => {
    try {
      work();
    } catch (error) {
      assert.ok(error instanceof ModelError);
      assert.equal(error.code, 'MODEL_TENSORS_MISMATCH');
      return error.message;
    }
    return assert.fail('nothing was refused');
  };
  const language = told(() => buildProgram(checkpoint, { validTokenCount: VALID_IDS }));
  assert.match(language, /layers\.79\.mlp\.down_proj\.weight/);
  assert.match(language, /layers\.80\.mlp\.down_proj\.weight/);
  const vision = told(() => buildVision(checkpoint));
  assert.match(vision, /layers\.44\.ls2 \[3201\], expected \[3200\]/);
  assert.match(vision, /mlp1\.2\.weight/);
});
