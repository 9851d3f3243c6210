import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { CheckpointError, type CheckpointErrorCode } from '#engine/weights/errors.ts';
import { readGguf } from '#engine/weights/gguf.ts';
import { openCheckpoint } from '#engine/weights/open.ts';
import { refusesWith } from '../../support/checkpoint-error.ts';
import {
  type GgufBytes,
  ggufArray,
  ggufBool,
  ggufBytes,
  ggufFloat,
  ggufString,
  ggufStrings,
  ggufUint32,
  TINY_GGUF_SHAPES,
  temporaryDirectory,
  text,
  tinyGgufBytes,
  tinyGgufMetadata,
  u32,
  u64,
  writeBytes,
} from '../../support/checkpoint-files.ts';

const write = (context: TestContext, bytes: Uint8Array) =>
  writeBytes(temporaryDirectory(context), 'model.gguf', bytes);
const tensor = (changes: object = {}) => ({
  name: 'w',
  shape: [4, 32],
  type: 0,
  offset: 0,
  ...changes,
});
const withTensors = (dataBytes: number, ...tensors: ReturnType<typeof tensor>[]) =>
  ggufBytes({ tensors, dataBytes });
const withKeys = (...metadata: [string | Buffer, GgufBytes][]) => ggufBytes({ metadata });
const nested = (levels: number): GgufBytes => {
  if (levels === 0) return ggufUint32(1);
  const { type, bytes } = nested(levels - 1);
  return ggufArray(type, [bytes]);
};

for (const version of [2, 3]) {
  test(`GGUF version ${version} gives typed metadata and tensors with file offsets`, (t) => {
    const path = write(
      t,
      ggufBytes({
        version,
        metadata: [
          ['text', ggufString('grüße')],
          ['whole', ggufUint32(7)],
          ['wide', { type: 10, bytes: u64(2n ** 60n) }],
          ['real', ggufFloat(0.5)],
          ['yes', ggufBool(true)],
          ['list', ggufArray(5, [u32(1), u32(0xffffffff)])],
          ['words', ggufStrings(['a', ''])],
          ['nested', ggufArray(9, [ggufArray(4, [u32(9)]).bytes])],
        ],
        tensors: [
          tensor({ name: 'late', shape: [2, 64], type: 3, offset: 512 }),
          tensor({ name: 'early' }),
        ],
        dataBytes: 512 + 80,
      }),
    );
    const file = readGguf(path);
    assert.equal(file.version, version);
    assert.deepEqual(Object.fromEntries(file.metadata), {
      text: 'grüße',
      whole: 7,
      wide: 2n ** 60n,
      real: 0.5,
      yes: true,
      list: new Int32Array([1, -1]),
      words: ['a', ''],
      nested: [new Uint32Array([9])],
    });
    const early = file.tensors.get('early')!;
    const late = file.tensors.get('late')!;
    assert.deepEqual([early.type, early.shape], ['f32', [4, 32]]);
    assert.deepEqual([late.type, late.shape], ['q4_1', [2, 64]]);
    assert.ok('offset' in early.bytes && 'offset' in late.bytes);
    assert.equal(early.bytes.offset % 32, 0);
    assert.equal(late.bytes.offset - early.bytes.offset, 512);
    assert.deepEqual([early.bytes.byteLength, late.bytes.byteLength], [512, 80]);
  });
}

const hostile: readonly [string, CheckpointErrorCode, readonly string[], Buffer][] = [
  ['no bytes at all', 'CHECKPOINT_TRUNCATED', ['magic'], Buffer.alloc(0)],
  ['another magic', 'CHECKPOINT_HEADER_INVALID', ['GGML'], Buffer.from('GGML\u0003\0\0\0')],
  ['version 1', 'CHECKPOINT_HEADER_INVALID', ['version', '1'], ggufBytes({ version: 1 })],
  [
    'big-endian order',
    'CHECKPOINT_HEADER_INVALID',
    ['big-endian'],
    ggufBytes({ version: 3 << 24 }),
  ],
  [
    '2^60 metadata keys',
    'CHECKPOINT_LIMIT_EXCEEDED',
    ['1152921504606846976'],
    ggufBytes({ metadataCount: 2n ** 60n }),
  ],
  [
    '2^60 tensors',
    'CHECKPOINT_LIMIT_EXCEEDED',
    ['1152921504606846976'],
    ggufBytes({ tensorCount: 2n ** 60n }),
  ],
  [
    'an array of 2^40 strings',
    'CHECKPOINT_LIMIT_EXCEEDED',
    ["'k'", '1099511627776'],
    withKeys(['k', ggufArray(8, [], 2 ** 40)]),
  ],
  [
    'an array of 2^63 numbers',
    'CHECKPOINT_LIMIT_EXCEEDED',
    ["'k'"],
    withKeys(['k', { type: 9, bytes: Buffer.concat([u32(4), u64(2n ** 63n)]) }]),
  ],
  [
    'a string of 2^62 bytes',
    'CHECKPOINT_LIMIT_EXCEEDED',
    ["'k'", '4611686018427387904'],
    withKeys(['k', { type: 8, bytes: u64(2n ** 62n) }]),
  ],
  [
    'a string that leaves the file',
    'CHECKPOINT_TRUNCATED',
    ["'k'"],
    withKeys(['k', { type: 8, bytes: u64(4000) }]),
  ],
  [
    'arrays in arrays without end',
    'CHECKPOINT_LIMIT_EXCEEDED',
    ["'k'", 'nest'],
    withKeys(['k', nested(40)]),
  ],
  [
    'a key twice',
    'CHECKPOINT_HEADER_INVALID',
    ["'k'", 'twice'],
    withKeys(['k', ggufUint32(1)], ['k', ggufUint32(2)]),
  ],
  [
    'a key that is not UTF-8',
    'CHECKPOINT_HEADER_INVALID',
    ['UTF-8'],
    withKeys([Buffer.from([0xc3, 0x28]), ggufUint32(1)]),
  ],
  [
    'an unknown value type',
    'CHECKPOINT_HEADER_INVALID',
    ["'k'", '77'],
    withKeys(['k', { type: 77, bytes: u32(0) }]),
  ],
  [
    'a boolean of 2',
    'CHECKPOINT_HEADER_INVALID',
    ["'k'"],
    withKeys(['k', { type: 7, bytes: Buffer.from([2]) }]),
  ],
  [
    'an alignment of 3',
    'CHECKPOINT_HEADER_INVALID',
    ['general.alignment', '3'],
    withKeys(['general.alignment', ggufUint32(3)]),
  ],
  [
    'an alignment of NaN',
    'CHECKPOINT_HEADER_INVALID',
    ['general.alignment', 'NaN'],
    withKeys(['general.alignment', ggufFloat(Number.NaN)]),
  ],
  [
    'a tensor twice',
    'CHECKPOINT_TENSOR_INVALID',
    ["'w'", 'twice'],
    withTensors(1024, tensor(), tensor({ offset: 512 })),
  ],
  [
    'a tensor name that is not UTF-8',
    'CHECKPOINT_HEADER_INVALID',
    ['UTF-8'],
    withTensors(512, tensor({ name: Buffer.from([0xff]) })),
  ],
  [
    'a tensor type that no kernel reads',
    'CHECKPOINT_TYPE_UNSUPPORTED',
    ["'w'", 'q2_k', 'q4_1'],
    withTensors(512, tensor({ type: 10 })),
  ],
  [
    'a tensor type from the future',
    'CHECKPOINT_TYPE_UNSUPPORTED',
    ["'w'", '4000'],
    withTensors(512, tensor({ type: 4000 })),
  ],
  [
    'five dimensions',
    'CHECKPOINT_TENSOR_INVALID',
    ["'w'", '5'],
    withTensors(512, tensor({ shape: [1, 1, 1, 1, 32] })),
  ],
  [
    'dimensions whose product overflows',
    'CHECKPOINT_TENSOR_INVALID',
    ["'w'", '2^53'],
    withTensors(512, tensor({ shape: [2n ** 40n, 2n ** 40n] })),
  ],
  [
    'a dimension of 2^64 - 1',
    'CHECKPOINT_TENSOR_INVALID',
    ["'w'"],
    withTensors(512, tensor({ shape: [2n ** 64n - 1n] })),
  ],
  [
    'rows that are no whole number of blocks',
    'CHECKPOINT_TENSOR_INVALID',
    ["'w'", 'multiple of 32', 'q4_1'],
    withTensors(512, tensor({ shape: [4, 33], type: 3 })),
  ],
  [
    'overlapping tensors',
    'CHECKPOINT_TENSOR_INVALID',
    ["'x'", 'overlaps'],
    withTensors(1024, tensor(), tensor({ name: 'x', offset: 32 })),
  ],
  [
    'an offset between the alignments',
    'CHECKPOINT_TENSOR_INVALID',
    ["'w'", 'misaligned'],
    withTensors(1024, tensor({ offset: 8 })),
  ],
  [
    'an offset of 2^63',
    'CHECKPOINT_TENSOR_INVALID',
    ["'w'"],
    withTensors(512, tensor({ offset: 2n ** 63n })),
  ],
  [
    'data cut off by one byte',
    'CHECKPOINT_TRUNCATED',
    ["'w'", '512 bytes'],
    withTensors(511, tensor()),
  ],
];

for (const [what, code, mentions, bytes] of hostile) {
  test(`a GGUF file with ${what} is refused as ${code}`, async (t) => {
    const path = write(t, bytes);
    await refusesWith(code, ['model.gguf', ...mentions], () => readGguf(path));
  });
}

test('a GGUF llama reads as a Hugging Face checkpoint: names, config, row order, tokenizer', async (t) => {
  const checkpoint = await openCheckpoint(write(t, tinyGgufBytes()));
  assert.equal(checkpoint.format, 'gguf');
  assert.deepEqual(checkpoint.config, {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    hidden_size: 8,
    intermediate_size: 16,
    num_hidden_layers: 1,
    num_attention_heads: 2,
    num_key_value_heads: 1,
    head_dim: 4,
    hidden_act: 'silu',
    max_position_embeddings: 64,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    rope_scaling: null,
    vocab_size: 6,
    tie_word_embeddings: true,
    attention_bias: false,
  });
  const rowOrders = [...checkpoint.tensors].map(([name, { rowOrder }]) => [
    name,
    rowOrder?.headSize,
  ]);
  assert.deepEqual(rowOrders, [
    ['model.embed_tokens.weight', undefined],
    ['model.layers.0.input_layernorm.weight', undefined],
    ['model.layers.0.self_attn.q_proj.weight', 4],
    ['model.layers.0.self_attn.k_proj.weight', 4],
    ['model.layers.0.self_attn.v_proj.weight', undefined],
    ['model.layers.0.self_attn.o_proj.weight', undefined],
    ['model.layers.0.post_attention_layernorm.weight', undefined],
    ['model.layers.0.mlp.gate_proj.weight', undefined],
    ['model.layers.0.mlp.up_proj.weight', undefined],
    ['model.layers.0.mlp.down_proj.weight', undefined],
    ['model.norm.weight', undefined],
  ]);
  const { added_tokens: added, model } = checkpoint.tokenizer.tokenizerJson as {
    added_tokens: { id: number; content: string; special: boolean }[];
    model: { vocab: Record<string, number>; merges: unknown };
  };
  // The unused id at the end is padding, not a token.
  assert.deepEqual({ ...model.vocab }, { '<|end|>': 0, a: 1, b: 2, ab: 3, '<|pad|>': 4 });
  assert.deepEqual(model.merges, [['a', 'b']]);
  assert.deepEqual(
    added.map(({ id, content, special }) => [id, content, special]),
    [
      [0, '<|end|>', true],
      [4, '<|pad|>', false],
    ],
  );
  assert.deepEqual(checkpoint.eosTokenIds, [0]);
  assert.equal(checkpoint.eosToken, '<|end|>');
  assert.equal(checkpoint.chatTemplate, undefined);
});

test('a GGUF qwen2 keeps its rows in place, and its own output matrix unties the embedding', async (t) => {
  const shapes = { ...TINY_GGUF_SHAPES, 'output.weight': [6, 8], 'blk.0.attn_q.bias': [8] };
  const checkpoint = await openCheckpoint(
    write(t, tinyGgufBytes(tinyGgufMetadata('qwen2'), shapes)),
  );
  assert.equal(checkpoint.config.model_type, 'qwen2');
  assert.equal(checkpoint.config.tie_word_embeddings, false);
  assert.ok(checkpoint.tensors.has('lm_head.weight'));
  assert.ok(checkpoint.tensors.has('model.layers.0.self_attn.q_proj.bias'));
  assert.ok([...checkpoint.tensors.values()].every(({ rowOrder }) => rowOrder === undefined));
});

test('the rotary factors of a GGUF llama 3 become part of its config', async (t) => {
  const shapes = { ...TINY_GGUF_SHAPES, 'rope_freqs.weight': [2] };
  const bytes = tinyGgufBytes(tinyGgufMetadata(), shapes);
  // The last tensor: its data are the first bytes of the last aligned slot.
  bytes.writeFloatLE(1, bytes.length - 32);
  bytes.writeFloatLE(8, bytes.length - 28);
  const { config, tensors } = await openCheckpoint(write(t, bytes));
  assert.deepEqual(config.rope_scaling, { rope_type: 'frequency_factors', factors: [1, 8] });
  assert.ok(!tensors.has('rope_freqs.weight'));
});

const refused: readonly [
  string,
  CheckpointErrorCode,
  readonly string[],
  Record<string, GgufBytes | undefined>,
][] = [
  [
    'architecture mamba',
    'CHECKPOINT_ARCHITECTURE_UNSUPPORTED',
    ["'mamba'", 'llama, qwen2'],
    { 'general.architecture': ggufString('mamba') },
  ],
  [
    'a mixture of experts',
    'CHECKPOINT_ARCHITECTURE_UNSUPPORTED',
    ['llama.expert_count'],
    { 'llama.expert_count': ggufUint32(8) },
  ],
  [
    'one part of a split model',
    'CHECKPOINT_ARCHITECTURE_UNSUPPORTED',
    ['split.count'],
    { 'split.count': ggufUint32(2) },
  ],
  [
    'a sliding window',
    'CHECKPOINT_ARCHITECTURE_UNSUPPORTED',
    ['sliding_window'],
    { 'llama.attention.sliding_window': ggufUint32(4096) },
  ],
  [
    'partly rotated heads',
    'CHECKPOINT_ARCHITECTURE_UNSUPPORTED',
    ['2 rotary dimensions'],
    { 'llama.rope.dimension_count': ggufUint32(2) },
  ],
  [
    'no layer count',
    'CHECKPOINT_CONFIG_INVALID',
    ["'llama.block_count' is missing"],
    { 'llama.block_count': undefined },
  ],
  [
    'a layer count that is text',
    'CHECKPOINT_CONFIG_INVALID',
    ["'llama.block_count'", 'a finite number'],
    { 'llama.block_count': ggufString('one') },
  ],
  [
    'an epsilon of NaN',
    'CHECKPOINT_CONFIG_INVALID',
    ['rms_epsilon', 'NaN'],
    { 'llama.attention.layer_norm_rms_epsilon': ggufFloat(Number.NaN) },
  ],
  [
    'a SentencePiece tokenizer',
    'CHECKPOINT_TOKENIZER_UNSUPPORTED',
    ['tokenizer.ggml.model', 'received llama'],
    { 'tokenizer.ggml.model': ggufString('llama') },
  ],
  [
    'an unknown way of splitting text',
    'CHECKPOINT_TOKENIZER_UNSUPPORTED',
    ['tokenizer.ggml.pre', 'tekken', 'smollm'],
    { 'tokenizer.ggml.pre': ggufString('tekken') },
  ],
  [
    'no tokens',
    'CHECKPOINT_CONFIG_INVALID',
    ['tokenizer.ggml.tokens'],
    { 'tokenizer.ggml.tokens': undefined },
  ],
  [
    'a token with two ids',
    'CHECKPOINT_CONFIG_INVALID',
    ["'a'", '1 and 2'],
    { 'tokenizer.ggml.tokens': ggufStrings(['<|end|>', 'a', 'a', 'ab', '<|pad|>', '[PAD5]']) },
  ],
  [
    'fewer token types than tokens',
    'CHECKPOINT_CONFIG_INVALID',
    ['token_type', '1 numbers for 6 tokens'],
    { 'tokenizer.ggml.token_type': ggufArray(5, [u32(1)]) },
  ],
  [
    'a merge of three parts',
    'CHECKPOINT_CONFIG_INVALID',
    ["'a b c'"],
    { 'tokenizer.ggml.merges': ggufStrings(['a b c']) },
  ],
  [
    'an end token beyond the vocabulary',
    'CHECKPOINT_CONFIG_INVALID',
    ['eos_token_id', '99 of 6'],
    { 'tokenizer.ggml.eos_token_id': ggufUint32(99) },
  ],
];

for (const [what, code, mentions, changes] of refused) {
  test(`a GGUF model with ${what} is refused by name`, async (t) => {
    const metadata = tinyGgufMetadata();
    for (const [key, value] of Object.entries(changes)) {
      if (value === undefined) metadata.delete(key);
      else metadata.set(key, value);
    }
    const path = write(t, tinyGgufBytes(metadata));
    await refusesWith(code, ['model.gguf', ...mentions], () => openCheckpoint(path));
  });
}

test('no damage to a GGUF file does anything but load within the file or be refused', async (t) => {
  const path = write(t, Buffer.alloc(0));
  const sound = tinyGgufBytes();
  const headerBytes = sound.indexOf(text('output_norm.weight')) + 60;
  const damaged = fc
    .tuple(
      fc.array(fc.tuple(fc.nat(headerBytes), fc.constantFrom(0, 1, 9, 127, 128, 255)), {
        minLength: 1,
        maxLength: 4,
      }),
      fc.nat(4 * sound.length),
    )
    .map(([changes, length]) => {
      const bytes = Buffer.from(sound);
      for (const [at, value] of changes) bytes[at] = value;
      return bytes.subarray(0, length);
    });
  const random = fc
    .uint8Array({ maxLength: 300 })
    .map((bytes) => Buffer.concat([sound.subarray(0, 8), bytes]));
  await fc.assert(
    fc.asyncProperty(fc.oneof(damaged, random), async (bytes) => {
      writeFileSync(path, bytes);
      try {
        const { tensors } = await openCheckpoint(path);
        for (const { bytes: range } of tensors.values()) {
          assert.ok('offset' in range && range.offset + range.byteLength <= bytes.length);
        }
      } catch (error) {
        if (!(error instanceof CheckpointError)) throw error;
      }
    }),
    { numRuns: 2000 },
  );
});
