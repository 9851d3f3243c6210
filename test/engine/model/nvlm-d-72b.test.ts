import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { ModelError } from '#engine/model/errors.ts';
import { buildProgram, buildVision } from '#engine/model/registry.ts';
import type { Checkpoint } from '#engine/weights/checkpoint.ts';
import type { WeightSource } from '#kernels/program.ts';
import { validateProgram } from '#kernels/validate.ts';

const config = JSON.parse(
  readFileSync(join(import.meta.dirname, '../../../examples/nvlm-d-72b/config.json'), 'utf8'),
);
const VALID_IDS = 151_667;

/** The tensors of the published checkpoint, written out: names and shapes. `heads`: stored in the vision encoder. */
function publishedShapes(heads = 32): Map<string, number[]> {
  const shapes = new Map<string, number[]>([
    ['vision_model.embeddings.class_embedding', [1, 1, 3200]],
    ['vision_model.embeddings.patch_embedding.weight', [3200, 3, 14, 14]],
    ['vision_model.embeddings.patch_embedding.bias', [3200]],
    ['vision_model.embeddings.position_embedding', [1, 1025, 3200]],
    ['mlp1.0.weight', [12800]],
    ['mlp1.0.bias', [12800]],
    ['mlp1.1.weight', [29568, 12800]],
    ['mlp1.3.weight', [8192, 29568]],
    ['language_model.model.embed_tokens.weight', [152064, 8192]],
    ['language_model.model.norm.weight', [8192]],
    ['language_model.lm_head.weight', [152064, 8192]],
  ]);
  for (let layer = 0; layer < 45; layer++) {
    const at = `vision_model.encoder.layers.${layer}`;
    for (const [name, shape] of [
      ['norm1.weight', [3200]],
      ['norm2.weight', [3200]],
      ['attn.qkv.weight', [3 * heads * 128, 3200]],
      ['attn.q_norm.weight', [heads * 128]],
      ['attn.k_norm.weight', [heads * 128]],
      ['attn.proj.weight', [3200, heads * 128]],
      ['attn.proj.bias', [3200]],
      ['mlp.fc1.weight', [12800, 3200]],
      ['mlp.fc1.bias', [12800]],
      ['mlp.fc2.weight', [3200, 12800]],
      ['mlp.fc2.bias', [3200]],
      ['ls1', [3200]],
      ['ls2', [3200]],
    ] as const)
      shapes.set(`${at}.${name}`, [...shape]);
  }
  for (let layer = 0; layer < 80; layer++) {
    const at = `language_model.model.layers.${layer}`;
    for (const [name, shape] of [
      ['input_layernorm.weight', [8192]],
      ['self_attn.q_proj.weight', [8192, 8192]],
      ['self_attn.q_proj.bias', [8192]],
      ['self_attn.k_proj.weight', [1024, 8192]],
      ['self_attn.k_proj.bias', [1024]],
      ['self_attn.v_proj.weight', [1024, 8192]],
      ['self_attn.v_proj.bias', [1024]],
      ['self_attn.o_proj.weight', [8192, 8192]],
      ['post_attention_layernorm.weight', [8192]],
      ['mlp.gate_proj.weight', [29568, 8192]],
      ['mlp.up_proj.weight', [29568, 8192]],
      ['mlp.down_proj.weight', [8192, 29568]],
    ] as const)
      shapes.set(`${at}.${name}`, [...shape]);
  }
  return shapes;
}

/** Zeros, in memory that all tensors which are read while a program is built share. */
const zeros = new Uint8Array(3 * 4096 * 3200 * 2);

function checkpointOf(shapes: ReadonlyMap<string, readonly number[]>): Checkpoint {
  const tensors = new Map(
    [...shapes].map(([name, shape]): [string, WeightSource] => {
      const length = 2 * shape.reduce((product, size) => product * size, 1);
      const bytes =
        length <= zeros.length
          ? { data: zeros.subarray(0, length) }
          : { path: '/models/NVLM-D-72B', offset: 0, byteLength: length };
      return [name, { name, type: 'bf16', shape, bytes }];
    }),
  );
  return {
    format: 'huggingface',
    path: '/models/NVLM-D-72B',
    config,
    tensors,
    tokenizer: { tokenizerJson: {}, tokenizerConfig: {} },
    chatTemplate: undefined,
    bosToken: undefined,
    eosToken: undefined,
    eosTokenIds: [],
    generationDefaults: {},
  };
}

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
  assert.equal(program.ops.length, 3 + 80 * 8 + 4);
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
