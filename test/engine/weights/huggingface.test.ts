import assert from 'node:assert/strict';
import { cpSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import type { CheckpointErrorCode } from '#engine/weights/errors.ts';
import { openCheckpoint } from '#engine/weights/open.ts';
import { refusesWith } from '../../support/checkpoint-error.ts';
import { safetensorsOf, temporaryDirectory, writeBytes } from '../../support/checkpoint-files.ts';
import { readGolden } from '../../support/golden.ts';

/** A directory with the smallest files that open; entries of `changes` replace files, undefined removes them. */
function directoryOf(context: TestContext, changes: Record<string, unknown> = {}): string {
  const directory = temporaryDirectory(context);
  const files: Record<string, unknown> = {
    'config.json': { model_type: 'llama', eos_token_id: [5, 6] },
    'tokenizer.json': { added_tokens: [{ id: 7, content: '</s>' }], model: { vocab: { a: 0 } } },
    'tokenizer_config.json': {
      bos_token: '<s>',
      eos_token: { content: '</s>' },
      chat_template: 'T',
    },
    'generation_config.json': { eos_token_id: 6, temperature: 0.6, top_p: 0.9, top_k: 20 },
    'model.safetensors': safetensorsOf({ w: [2] }),
    ...changes,
  };
  for (const [name, content] of Object.entries(files)) {
    if (content === undefined) continue;
    const isRaw = typeof content === 'string' || Buffer.isBuffer(content);
    writeBytes(directory, name, isRaw ? content : JSON.stringify(content));
  }
  return directory;
}

/** A writable copy of a tiny NVLM checkpoint. */
function copyOfPreset(context: TestContext, preset: 'a' | 'b' | 'c'): string {
  const directory = temporaryDirectory(context);
  cpSync(readGolden(preset).checkpointPath, directory, { recursive: true });
  return directory;
}

test('a directory gives config, tensors, template, end tokens of all files and sampling defaults', async (t) => {
  const checkpoint = await openCheckpoint(directoryOf(t));
  assert.equal(checkpoint.format, 'huggingface');
  assert.equal(checkpoint.config.model_type, 'llama');
  assert.deepEqual([...checkpoint.tensors.keys()], ['w']);
  assert.equal(checkpoint.chatTemplate, 'T');
  assert.deepEqual([checkpoint.bosToken, checkpoint.eosToken], ['<s>', '</s>']);
  assert.deepEqual([...checkpoint.eosTokenIds].sort(), [5, 6, 7]);
  assert.deepEqual(checkpoint.generationDefaults, { temperature: 0.6, topP: 0.9, topK: 20 });
});

test('do_sample false means greedy, a top_p of 0 means off', async (t) => {
  const generation = { do_sample: false, temperature: 0.6, top_p: 0, repetition_penalty: 1.1 };
  const { generationDefaults } = await openCheckpoint(
    directoryOf(t, { 'generation_config.json': generation }),
  );
  assert.deepEqual(generationDefaults, { temperature: 0, repetitionPenalty: 1.1 });
});

test('the template file wins over the config, and of several named ones default is taken', async (t) => {
  const named = {
    chat_template: [
      { name: 'tool_use', template: 'tools' },
      { name: 'default', template: 'plain' },
    ],
  };
  const inConfig = directoryOf(t, { 'tokenizer_config.json': named });
  assert.equal((await openCheckpoint(inConfig)).chatTemplate, 'plain');
  const inFile = directoryOf(t, {
    'tokenizer_config.json': named,
    'chat_template.jinja': 'from the file',
  });
  assert.equal((await openCheckpoint(inFile)).chatTemplate, 'from the file');
  const none = await openCheckpoint(directoryOf(t, { 'tokenizer_config.json': undefined }));
  assert.equal(none.chatTemplate, undefined);
});

for (const preset of ['a', 'b', 'c'] as const) {
  test(`vocab.json and merges.txt of preset ${preset} become its own tokenizer.json`, async (t) => {
    const directory = copyOfPreset(t, preset);
    const expected = JSON.parse(readFileSync(join(directory, 'tokenizer.json'), 'utf8'));
    rmSync(join(directory, 'tokenizer.json'));
    const { tokenizer } = await openCheckpoint(directory);
    assert.deepEqual(tokenizer.tokenizerJson, expected);
  });
}

test('shards are found through the index, and every tensor of it is there', async (_t) => {
  const { checkpointPath } = readGolden('b');
  const { tensors } = await openCheckpoint(checkpointPath);
  const index = JSON.parse(
    readFileSync(join(checkpointPath, 'model.safetensors.index.json'), 'utf8'),
  );
  assert.deepEqual([...tensors.keys()].sort(), Object.keys(index.weight_map).sort());
  for (const [name, { bytes }] of tensors) {
    assert.ok('path' in bytes);
    assert.equal(bytes.path, join(checkpointPath, index.weight_map[name]));
  }
  const total = [...tensors.values()].reduce(
    (sum, { bytes }) => sum + ('byteLength' in bytes ? bytes.byteLength : 0),
    0,
  );
  assert.equal(total, index.metadata.total_size);
});

test('a missing shard is named', async (t) => {
  const directory = copyOfPreset(t, 'b');
  rmSync(join(directory, 'model-00002-of-00003.safetensors'));
  await refusesWith(
    'CHECKPOINT_SHARD_MISSING',
    ['index.json', 'model-00002-of-00003.safetensors'],
    () => openCheckpoint(directory),
  );
});

test('a shard cut off in the middle is named with its tensor', async (t) => {
  const directory = copyOfPreset(t, 'a');
  const path = join(directory, 'model-00001-of-00002.safetensors');
  writeFileSync(path, readFileSync(path).subarray(0, 500_000));
  await refusesWith('CHECKPOINT_TRUNCATED', ['model-00001-of-00002.safetensors', 'tensor'], () =>
    openCheckpoint(directory),
  );
});

const sharded = (weightMap: unknown) => ({
  'model.safetensors': undefined,
  'model.safetensors.index.json': { weight_map: weightMap },
  'one.safetensors': safetensorsOf({ w: [2] }),
  'two.safetensors': safetensorsOf({ v: [2] }),
});
const refused: readonly [
  string,
  Record<string, unknown>,
  CheckpointErrorCode,
  readonly string[],
][] = [
  [
    'a config that is not JSON',
    { 'config.json': '{' },
    'CHECKPOINT_HEADER_INVALID',
    ['config.json'],
  ],
  [
    'a config with a key twice',
    { 'config.json': '{"a":1,"a":2}' },
    'CHECKPOINT_HEADER_INVALID',
    ['config.json', "'a' again"],
  ],
  [
    'a config that is not UTF-8',
    { 'config.json': Buffer.from([0x7b, 0xff, 0x7d]) },
    'CHECKPOINT_HEADER_INVALID',
    ['UTF-8'],
  ],
  [
    'an end token of text',
    { 'config.json': { eos_token_id: '</s>' } },
    'CHECKPOINT_CONFIG_INVALID',
    ['config.json', 'eos_token_id'],
  ],
  [
    'a negative temperature',
    { 'generation_config.json': { temperature: -1 } },
    'CHECKPOINT_CONFIG_INVALID',
    ['generation_config.json', 'temperature'],
  ],
  ['no weights', { 'model.safetensors': undefined }, 'CHECKPOINT_NOT_FOUND', ['model.safetensors']],
  [
    'pickled weights alone',
    { 'model.safetensors': undefined, 'pytorch_model.bin': 'x' },
    'CHECKPOINT_NOT_FOUND',
    ['pytorch_model.bin'],
  ],
  [
    'no tokenizer',
    { 'tokenizer.json': undefined },
    'CHECKPOINT_TOKENIZER_UNSUPPORTED',
    ['tokenizer.json', 'neither'],
  ],
  [
    'a SentencePiece tokenizer alone',
    { 'tokenizer.json': undefined, 'tokenizer.model': 'x' },
    'CHECKPOINT_TOKENIZER_UNSUPPORTED',
    ['tokenizer.model'],
  ],
  [
    'vocab.json of an unknown tokenizer class',
    {
      'tokenizer.json': undefined,
      'vocab.json': { a: 0 },
      'merges.txt': '',
      'tokenizer_config.json': { tokenizer_class: 'FooTokenizer' },
    },
    'CHECKPOINT_TOKENIZER_UNSUPPORTED',
    ['FooTokenizer', 'Qwen2Tokenizer'],
  ],
  [
    'a merge of one part',
    {
      'tokenizer.json': undefined,
      'vocab.json': { a: 0 },
      'merges.txt': '#version: 0.2\nab\n',
      'tokenizer_config.json': { tokenizer_class: 'Qwen2Tokenizer' },
    },
    'CHECKPOINT_CONFIG_INVALID',
    ['merges.txt', "'ab'"],
  ],
  ['an index without weight_map', sharded(undefined), 'CHECKPOINT_CONFIG_INVALID', ['weight_map']],
  [
    'an index that leaves the directory',
    sharded({ w: '../one.safetensors' }),
    'CHECKPOINT_CONFIG_INVALID',
    ['../one.safetensors'],
  ],
  ['an index with a number for a shard', sharded({ w: 3 }), 'CHECKPOINT_CONFIG_INVALID', ['3']],
  [
    'an index that names the wrong shard',
    sharded({ w: 'two.safetensors', v: 'one.safetensors' }),
    'CHECKPOINT_SHARD_MISSING',
    ["'w'", 'another shard'],
  ],
  [
    'an index that names a tensor nobody has',
    sharded({ w: 'one.safetensors', u: 'two.safetensors' }),
    'CHECKPOINT_SHARD_MISSING',
    ["'u'", 'nowhere'],
  ],
  [
    'a tensor in two shards',
    {
      ...sharded({ w: 'one.safetensors', v: 'two.safetensors' }),
      'two.safetensors': safetensorsOf({ v: [2], w: [2] }),
    },
    'CHECKPOINT_TENSOR_INVALID',
    ["'w'", 'two shards'],
  ],
];

for (const [what, changes, code, mentions] of refused) {
  test(`a directory with ${what} is refused by name`, async (t) => {
    const directory = directoryOf(t, changes);
    await refusesWith(code, mentions, () => openCheckpoint(directory));
  });
}

test('a path that is no checkpoint is refused with what was looked for', async (t) => {
  await refusesWith('CHECKPOINT_NOT_FOUND', ['/nowhere'], () => openCheckpoint('/nowhere'));
  const empty = temporaryDirectory(t);
  await refusesWith('CHECKPOINT_FORMAT_UNKNOWN', [empty, 'config.json'], () =>
    openCheckpoint(empty),
  );
});
