import assert from 'node:assert/strict';
import { cpSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { buildProgram, buildVision } from '#engine/model/registry.ts';
import { describeModel } from '#engine/weights/describe.ts';
import { openCheckpoint } from '#engine/weights/open.ts';
import { resolveModel } from '#engine/weights/resolve.ts';
import type { WeightSource } from '#kernels/program.ts';
import { readWeight } from '#kernels/reference/weights.ts';
import { refusesWith } from '../../support/checkpoint-error.ts';
import { safetensorsBytes, temporaryDirectory } from '../../support/checkpoint-files.ts';
import { readGolden } from '../../support/golden.ts';

const PREFIX = 'language_model.';
const whole = readGolden('b').checkpointPath;

/** A safetensors file of the tensors, under the names that `rename` gives them; those it gives none are left out. */
function copyTensors(
  tensors: ReadonlyMap<string, WeightSource>,
  rename: (name: string) => string | undefined,
): Buffer {
  const header: Record<string, unknown> = {};
  const parts: Buffer[] = [];
  let end = 0;
  for (const tensor of tensors.values()) {
    const name = rename(tensor.name);
    if (name === undefined || !('path' in tensor.bytes)) continue;
    const { path, offset, byteLength } = tensor.bytes;
    parts.push(readFileSync(path).subarray(offset, offset + byteLength));
    const dtype = { f32: 'F32', f16: 'F16', bf16: 'BF16' }[tensor.type as string];
    header[name] = { dtype, shape: tensor.shape, data_offsets: [end, end + byteLength] };
    end += byteLength;
  }
  return safetensorsBytes(header, Buffer.concat(parts));
}

/** The tiny NVLM checkpoint in two directories: one with what sees, which names the other by reference. */
async function splitInTwo(t: TestContext): Promise<{ directory: string; language: string }> {
  const { tensors, config } = await openCheckpoint(whole);
  const directory = join(temporaryDirectory(t), 'sees');
  const language = join(temporaryDirectory(t), 'speaks');
  cpSync(whole, language, { recursive: true });
  for (const name of ['model.safetensors.index.json', 'golden'])
    rmSync(join(language, name), { recursive: true, force: true });
  cpSync(language, directory, { recursive: true });
  const { llm_config: inner, text_config: other, ...rest } = config;
  const write = (at: string, value: unknown, rename: (name: string) => string | undefined) => {
    writeFileSync(join(at, 'config.json'), JSON.stringify(value));
    writeFileSync(join(at, 'model.safetensors'), copyTensors(tensors, rename));
  };
  write(language, inner ?? other, (name) =>
    name.startsWith(PREFIX) ? name.slice(PREFIX.length) : undefined,
  );
  write(directory, { ...rest, language_model_reference: language }, (name) =>
    name.startsWith(PREFIX) ? undefined : name,
  );
  for (const name of ['tokenizer.json', 'tokenizer_config.json', 'generation_config.json'])
    rmSync(join(directory, name), { force: true });
  return { directory, language };
}

const open = async (reference: string) => {
  const { path, languageModelPath } = await resolveModel(reference, { cacheDirectory: '/nowhere' });
  return openCheckpoint(path, languageModelPath);
};

test('two parts are the checkpoint that they were cut from: config, tensors, tokenizer and programs', async (t) => {
  const { directory } = await splitInTwo(t);
  const composed = await open(directory);
  const original = await openCheckpoint(whole);
  assert.deepEqual([...composed.tensors.keys()].sort(), [...original.tensors.keys()].sort());
  for (const [name, tensor] of composed.tensors) {
    assert.equal(tensor.name, name);
    assert.deepEqual(readWeight(tensor), readWeight(original.tensors.get(name)!), name);
  }
  assert.deepEqual(composed.tokenizer, original.tokenizer);
  assert.equal(composed.chatTemplate, original.chatTemplate);
  assert.deepEqual(composed.eosTokenIds, original.eosTokenIds);
  const programs = [composed, original].map((checkpoint) => {
    const { program } = buildProgram(checkpoint, { validTokenCount: 1024 });
    return [program.ops, buildVision(checkpoint)!.program.ops];
  });
  assert.deepEqual(programs[0], programs[1]);
});

test('the description of two parts counts the bytes of both', async (t) => {
  const { directory } = await splitInTwo(t);
  const described = await describeModel(directory, { cacheDirectory: '/nowhere' });
  const original = await describeModel(whole, { cacheDirectory: '/nowhere' });
  assert.equal(described.weightBytes, original.weightBytes);
});

test('a config may name the token that stands for pictures', async (t) => {
  const { directory } = await splitInTwo(t);
  const file = join(directory, 'config.json');
  const config = JSON.parse(readFileSync(file, 'utf8'));
  assert.equal(buildVision(await open(directory))!.contextToken, '<|vision_pad|>');
  writeFileSync(file, JSON.stringify({ ...config, image_context_token: '<filename>' }));
  assert.equal(buildVision(await open(directory))!.contextToken, '<filename>');
});

test('a missing part, a damaged one and one of another width are refused by name', async (t) => {
  const { directory, language } = await splitInTwo(t);
  const weights = join(directory, 'model.safetensors');
  const config = join(directory, 'config.json');
  const bytes = readFileSync(weights);
  const text = readFileSync(config, 'utf8');

  await refusesWith('CHECKPOINT_NOT_FOUND', [directory, language], () => openCheckpoint(directory));
  truncateSync(weights, bytes.length - 2);
  await refusesWith('CHECKPOINT_TRUNCATED', [weights], () => open(directory));
  rmSync(weights);
  await refusesWith('CHECKPOINT_NOT_FOUND', [weights], () => open(directory));
  writeFileSync(weights, bytes);

  const { vision_config: vision, ...rest } = JSON.parse(text);
  const wider = { ...rest, vision_config: { ...vision, intermediate_size: 8 } };
  writeFileSync(config, JSON.stringify(wider));
  const misshaped = await open(directory);
  assert.throws(() => buildVision(misshaped), {
    code: 'MODEL_TENSORS_MISMATCH',
    message: /vision_model\.encoder\.layers\.0\.mlp\.fc1\.weight .* expected \[8, /,
  });

  const refer = (reference: unknown) =>
    writeFileSync(config, JSON.stringify({ ...rest, language_model_reference: reference }));
  refer(7);
  await refusesWith('CHECKPOINT_CONFIG_INVALID', ['language_model_reference', '7'], () =>
    open(directory),
  );
  refer(directory);
  const other = (await splitInTwo(t)).directory;
  refer(other);
  await refusesWith('CHECKPOINT_CONFIG_INVALID', ['names no other', other], () => open(directory));
});

test('weights of a language model beside those that see are refused: there are two of them then', async (t) => {
  const { directory } = await splitInTwo(t);
  const { tensors } = await openCheckpoint(whole);
  writeFileSync(
    join(directory, 'model.safetensors'),
    copyTensors(tensors, (name) => name),
  );
  await refusesWith('CHECKPOINT_TENSOR_INVALID', [PREFIX], () => open(directory));
});

test('a model of this repository that does not exist is refused with its directory', async () => {
  await refusesWith('CHECKPOINT_NOT_FOUND', ['models/nano/nobody'], () =>
    resolveModel('nano://nobody', { cacheDirectory: '/nowhere' }),
  );
});
