import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { ModelError, type ModelErrorCode } from '#engine/model/errors.ts';
import { type BuildOptions, buildProgram } from '#engine/model/registry.ts';
import type { Checkpoint } from '#engine/weights/checkpoint.ts';
import { openCheckpoint } from '#engine/weights/open.ts';
import { PRESETS, readGolden } from '../../support/golden.ts';
import { plainCheckpoint } from '../../support/plain-checkpoint.ts';

const CONFIG = {
  model_type: 'llama',
  hidden_size: 8,
  intermediate_size: 16,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  num_key_value_heads: 1,
  vocab_size: 6,
  rms_norm_eps: 1e-5,
  max_position_embeddings: 64,
  tie_word_embeddings: false,
};

/** Shapes of CONFIG's tensors, written out. */
function shapes(): Map<string, number[]> {
  const layer = (index: number): [string, number[]][] => [
    [`model.layers.${index}.input_layernorm.weight`, [8]],
    [`model.layers.${index}.self_attn.q_proj.weight`, [8, 8]],
    [`model.layers.${index}.self_attn.k_proj.weight`, [4, 8]],
    [`model.layers.${index}.self_attn.v_proj.weight`, [4, 8]],
    [`model.layers.${index}.self_attn.o_proj.weight`, [8, 8]],
    [`model.layers.${index}.post_attention_layernorm.weight`, [8]],
    [`model.layers.${index}.mlp.gate_proj.weight`, [16, 8]],
    [`model.layers.${index}.mlp.up_proj.weight`, [16, 8]],
    [`model.layers.${index}.mlp.down_proj.weight`, [8, 16]],
  ];
  return new Map([
    ['model.embed_tokens.weight', [6, 8]],
    ...layer(0),
    ...layer(1),
    ['model.norm.weight', [8]],
    ['lm_head.weight', [6, 8]],
  ]);
}

function checkpointOf(
  config: Record<string, unknown> = {},
  tensorShapes: ReadonlyMap<string, readonly number[]> = shapes(),
): Checkpoint {
  return plainCheckpoint({
    path: '/models/tiny',
    config: { ...CONFIG, ...config },
    tensors: new Map(
      [...tensorShapes].map(([name, shape]) => [
        name,
        { name, type: 'f32', shape, bytes: { data: new Uint8Array(0) } },
      ]),
    ),
  });
}

const build = (checkpoint: Checkpoint, options: Partial<BuildOptions> = {}) =>
  buildProgram(checkpoint, { validTokenCount: 6, ...options });

function refuses(code: ModelErrorCode, mentions: readonly string[], work: () => unknown): void {
  assert.throws(work, (error: unknown) => {
    assert.ok(error instanceof ModelError, `not a ModelError: ${error}`);
    assert.equal(error.code, code, error.message);
    for (const word of mentions) assert.ok(error.message.includes(word), error.message);
    return true;
  });
}

test('a llama program runs embedding, layers, and, on the wanted rows alone, what follows the last attention', () => {
  const { program, maxPositions, parameterCount } = build(checkpointOf());
  const attention = ['rmsNorm', 'linear', 'ropeAndCache', 'attention'];
  const rest = ['linear', 'rmsNorm', 'linear', 'linear'];
  const wanted = ['gatherRows', 'gatherRows', ...rest, 'rmsNorm', 'linear', 'sample'];
  assert.deepEqual(
    program.ops.map(({ op }) => op),
    ['embedding', ...attention, ...rest, ...attention, ...wanted],
  );
  const written = program.ops.slice(-wanted.length, -1).map((op) => ('out' in op ? op.out : -1));
  assert.deepEqual(
    new Set(written.map((out) => program.tensors[out]!.rows)),
    new Set(['logitRows']),
  );
  assert.deepEqual(program.cache, { layers: 2, kvHeads: 1, headSize: 4 });
  assert.equal(program.heads, 2);
  assert.equal(maxPositions, 64);
  assert.equal(
    parameterCount,
    [...shapes().values()].reduce((sum, shape) => sum + shape.reduce((a, b) => a * b), 0),
  );
});

test('tied embeddings are one weight that two ops use, with or without a stored copy', () => {
  const tied = { tie_word_embeddings: true };
  const withoutHead = shapes();
  withoutHead.delete('lm_head.weight');
  for (const tensors of [withoutHead, shapes()]) {
    const { program } = build(checkpointOf(tied, tensors));
    const embedding = program.ops[0]!;
    const head = program.ops.at(-2)!;
    assert.ok(embedding.op === 'embedding' && head.op === 'linear');
    assert.deepEqual(head.weights, [embedding.weight]);
    assert.ok(program.weights.every(({ name }) => name !== 'lm_head.weight'));
  }
});

test('head_dim of the config overrides hidden_size / heads', () => {
  const wide = shapes();
  for (const layer of [0, 1]) {
    wide.set(`model.layers.${layer}.self_attn.q_proj.weight`, [16, 8]);
    wide.set(`model.layers.${layer}.self_attn.k_proj.weight`, [8, 8]);
    wide.set(`model.layers.${layer}.self_attn.v_proj.weight`, [8, 8]);
    wide.set(`model.layers.${layer}.self_attn.o_proj.weight`, [8, 16]);
  }
  const { program } = build(checkpointOf({ head_dim: 8 }, wide));
  assert.equal(program.cache.headSize, 8);
});

test('biases are used where the config or the class says so, and nowhere else', () => {
  const biasesOf = (checkpoint: Checkpoint) =>
    build(checkpoint)
      .program.weights.map(({ name }) => name)
      .filter((name) => name.startsWith('model.layers.0') && name.endsWith('.bias'))
      .map((name) => name.split('.').at(-2))
      .sort();
  const withBiases = (...names: [string, number][]) => {
    const tensors = shapes();
    for (const layer of [0, 1]) {
      for (const [name, rows] of names) tensors.set(`model.layers.${layer}.${name}.bias`, [rows]);
    }
    return tensors;
  };
  const qkv: [string, number][] = [
    ['self_attn.q_proj', 8],
    ['self_attn.k_proj', 4],
    ['self_attn.v_proj', 4],
  ];
  const output: [string, number] = ['self_attn.o_proj', 8];
  const mlp: [string, number][] = [
    ['mlp.gate_proj', 16],
    ['mlp.up_proj', 16],
    ['mlp.down_proj', 8],
  ];
  assert.deepEqual(biasesOf(checkpointOf()), []);
  assert.deepEqual(biasesOf(checkpointOf({ attention_bias: true }, withBiases(...qkv, output))), [
    'k_proj',
    'o_proj',
    'q_proj',
    'v_proj',
  ]);
  assert.deepEqual(biasesOf(checkpointOf({ mlp_bias: true }, withBiases(...mlp))), [
    'down_proj',
    'gate_proj',
    'up_proj',
  ]);
  assert.deepEqual(biasesOf(checkpointOf({ model_type: 'qwen2' }, withBiases(...qkv))), [
    'k_proj',
    'q_proj',
    'v_proj',
  ]);
});

test('missing, unexpected and mis-shaped tensors stop the load together, with names and shapes', () => {
  const wrong = shapes();
  wrong.delete('model.norm.weight');
  wrong.set('model.layers.2.mlp.up_proj.weight', [16, 8]);
  wrong.set('model.layers.1.self_attn.k_proj.weight', [8, 8]);
  refuses(
    'MODEL_TENSORS_MISMATCH',
    [
      '/models/tiny',
      'missing: model.norm.weight [8]',
      'unexpected: model.layers.2.mlp.up_proj.weight [16, 8]',
      'misshaped: model.layers.1.self_attn.k_proj.weight [8, 8], expected [4, 8]',
    ],
    () => build(checkpointOf({}, wrong)),
  );
});

test('rotary tables that old checkpoints carry are not unexpected', () => {
  const old = shapes().set('model.layers.0.self_attn.rotary_emb.inv_freq', [2]);
  assert.doesNotThrow(() => build(checkpointOf({}, old)));
});

test('any one tensor gone, or of another shape, is named', () => {
  fc.assert(
    fc.property(fc.constantFrom(...shapes().keys()), fc.boolean(), (name, isGone) => {
      const tensors = shapes();
      if (isGone) tensors.delete(name);
      else tensors.set(name, [3, ...tensors.get(name)!]);
      refuses('MODEL_TENSORS_MISMATCH', [name], () => build(checkpointOf({}, tensors)));
    }),
  );
});

const refused: readonly [string, Record<string, unknown>, ModelErrorCode, readonly string[]][] = [
  [
    'an unknown model_type',
    { model_type: 'mamba' },
    'MODEL_ARCHITECTURE_UNSUPPORTED',
    ["'mamba'", 'llama, qwen2'],
  ],
  ['no model_type', { model_type: undefined }, 'MODEL_CONFIG_INVALID', ["'model_type'"]],
  ['no hidden_size', { hidden_size: null }, 'MODEL_CONFIG_INVALID', ["'hidden_size'", 'nothing']],
  ['a hidden_size of text', { hidden_size: '8' }, 'MODEL_CONFIG_INVALID', ["'hidden_size'", '"8"']],
  ['a fractional hidden_size', { hidden_size: 8.5 }, 'MODEL_CONFIG_INVALID', ["'hidden_size'"]],
  [
    'heads that do not divide hidden_size',
    { num_attention_heads: 3 },
    'MODEL_CONFIG_INVALID',
    ["'head_dim'"],
  ],
  [
    'kv heads that do not divide heads',
    { num_attention_heads: 4, num_key_value_heads: 3 },
    'MODEL_CONFIG_INVALID',
    ['num_key_value_heads'],
  ],
  ['an odd head_dim', { head_dim: 5 }, 'MODEL_CONFIG_INVALID', ["'head_dim'", 'even']],
  ['2^40 layers', { num_hidden_layers: 2 ** 40 }, 'MODEL_CONFIG_INVALID', ["'num_hidden_layers'"]],
  ['a head_dim of 2^40', { head_dim: 2 ** 40 }, 'MODEL_CONFIG_INVALID', ["'head_dim'"]],
  ['an eps of 0', { rms_norm_eps: 0 }, 'MODEL_CONFIG_INVALID', ["'rms_norm_eps'"]],
  ['a gelu MLP', { hidden_act: 'gelu' }, 'MODEL_FEATURE_UNSUPPORTED', ['gelu', 'silu']],
  [
    'quantised linears',
    { quantization_config: { quant_method: 'gptq' } },
    'MODEL_FEATURE_UNSUPPORTED',
    ['gptq'],
  ],
  [
    'a llama sliding window',
    { sliding_window: 4096 },
    'MODEL_FEATURE_UNSUPPORTED',
    ['sliding_window', '4096'],
  ],
  [
    'a qwen2 sliding window',
    { model_type: 'qwen2', use_sliding_window: true, sliding_window: 64 },
    'MODEL_FEATURE_UNSUPPORTED',
    ['sliding_window'],
  ],
  [
    'sliding layers',
    { layer_types: ['full_attention', 'sliding_attention'] },
    'MODEL_FEATURE_UNSUPPORTED',
    ['sliding_attention'],
  ],
  [
    'three-axis rotation',
    { model_type: 'qwen2', use_mrope: true },
    'MODEL_FEATURE_UNSUPPORTED',
    ['use_mrope'],
  ],
];

for (const [what, config, code, mentions] of refused) {
  test(`a config with ${what} is refused by name`, () => {
    refuses(code, mentions, () => build(checkpointOf(config)));
  });
}

test('a qwen2 window that is switched off does not matter', () => {
  const tensors = shapes();
  for (const layer of [0, 1]) {
    tensors.set(`model.layers.${layer}.self_attn.q_proj.bias`, [8]);
    tensors.set(`model.layers.${layer}.self_attn.k_proj.bias`, [4]);
    tensors.set(`model.layers.${layer}.self_attn.v_proj.bias`, [4]);
  }
  const config = { model_type: 'qwen2', use_sliding_window: false, sliding_window: 131072 };
  assert.doesNotThrow(() => build(checkpointOf(config, tensors)));
});

test('a tokenizer with more ids than the embedding has rows is refused with both numbers', () => {
  refuses('MODEL_VOCABULARY_MISMATCH', ['7 ids', '6 rows'], () =>
    build(checkpointOf(), { validTokenCount: 7 }),
  );
});

test('a context longer than the positions is refused, a shorter one is taken', () => {
  assert.equal(build(checkpointOf(), { maxModelLength: 32 }).maxPositions, 32);
  for (const wanted of [65, 0, 1.5, Number.NaN]) {
    refuses('MODEL_LENGTH_UNSUPPORTED', [`${wanted}`, '64'], () =>
      build(checkpointOf(), { maxModelLength: wanted }),
    );
  }
});

test('a whole NVLM_D checkpoint takes images, its language model alone does not', async () => {
  for (const preset of PRESETS) {
    const { checkpointPath, validIds, vocabularyRows } = readGolden(preset);
    const checkpoint = await openCheckpoint(checkpointPath);
    assert.equal(build(checkpoint, { validTokenCount: validIds }).takesImages, true);
    const { program, takesImages } = build(checkpoint, {
      validTokenCount: validIds,
      part: 'language_model',
    });
    assert.equal(takesImages, false);
    assert.ok(program.ops.every(({ op }) => op !== 'input'));
    assert.equal(program.vocabularyRows, vocabularyRows);
    assert.ok(program.weights.every(({ name }) => name.startsWith('language_model.')));
  }
});
