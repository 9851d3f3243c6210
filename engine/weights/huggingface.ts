/** A Hugging Face model directory: JSON files beside one or many safetensors shards. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { WeightSource } from '#kernels/program.ts';
import type { Checkpoint } from './checkpoint.ts';
import { CheckpointError, showValue } from './errors.ts';
import { withFile } from './file-reader.ts';
import { readHuggingFaceTokenizer } from './huggingface-tokenizer.ts';
import { readSafetensors } from './safetensors.ts';
import { isObject, parseJsonObject } from './strict-json.ts';

/** Larger than any tokenizer.json in use; a file beyond it is not one. */
const MAX_JSON_BYTES = 256 * 2 ** 20;

export function openHuggingFaceDirectory(path: string): Checkpoint {
  const readJson = (name: string) => readJsonFile(join(path, name));
  const config = readJson('config.json');
  if (config === undefined) {
    throw new CheckpointError('CHECKPOINT_NOT_FOUND', 'config.json is missing', { file: path });
  }
  const generation = readJson('generation_config.json') ?? {};
  const tokenizer = readHuggingFaceTokenizer(path, config, readJson);
  const eosTokenIds = new Set([
    ...tokenIds(generation, 'eos_token_id', join(path, 'generation_config.json')),
    ...tokenIds(config, 'eos_token_id', join(path, 'config.json')),
    ...(tokenizer.eosTokenId === undefined ? [] : [tokenizer.eosTokenId]),
  ]);
  return {
    format: 'huggingface',
    path,
    config,
    tensors: readShards(path),
    tokenizer: tokenizer.files,
    chatTemplate: readChatTemplate(path, tokenizer.files.tokenizerConfig, readJson),
    bosToken: tokenizer.bosToken,
    eosToken: tokenizer.eosToken,
    eosTokenIds: [...eosTokenIds],
    generationDefaults: readGenerationDefaults(generation, join(path, 'generation_config.json')),
  };
}

/** The object in a JSON file, undefined when there is no such file. */
export function readJsonFile(file: string): Record<string, unknown> | undefined {
  if (!existsSync(file)) return undefined;
  return withFile(file, (reader) => {
    if (reader.byteLength > MAX_JSON_BYTES) {
      throw new CheckpointError('CHECKPOINT_LIMIT_EXCEEDED', 'too long for a JSON file', {
        file,
        expected: `at most ${MAX_JSON_BYTES} bytes`,
        received: `${reader.byteLength}`,
      });
    }
    return parseJsonObject(reader.read(0, reader.byteLength, 'the file'), file);
  });
}

function readShards(path: string): Map<string, WeightSource> {
  const indexPath = join(path, 'model.safetensors.index.json');
  const index = readJsonFile(indexPath);
  if (index === undefined) return readSafetensors(join(path, findSingleFile(path)));
  const { weight_map: weightMap } = index;
  if (!isObject(weightMap)) {
    throw new CheckpointError('CHECKPOINT_CONFIG_INVALID', "no 'weight_map' object", {
      file: indexPath,
    });
  }
  const shards = new Map<string, Map<string, WeightSource>>();
  for (const shard of new Set(Object.values(weightMap))) {
    shards.set(shard as string, readSafetensors(join(path, shardName(shard, path, indexPath))));
  }
  const tensors = new Map<string, WeightSource>();
  for (const [shard, content] of shards) {
    for (const [name, tensor] of content) {
      if (tensors.has(name)) {
        throw new CheckpointError('CHECKPOINT_TENSOR_INVALID', 'stands in two shards', {
          file: join(path, shard),
          tensor: name,
        });
      }
      tensors.set(name, tensor);
    }
  }
  for (const [name, shard] of Object.entries(weightMap)) {
    if (shards.get(shard as string)?.has(name) === true) continue;
    throw new CheckpointError('CHECKPOINT_SHARD_MISSING', 'not in the shard the index names', {
      file: indexPath,
      tensor: name,
      expected: `it in '${shard}'`,
      received: tensors.has(name) ? 'it in another shard' : 'it nowhere',
    });
  }
  return tensors;
}

/** A shard's file name, which must stay inside the directory and exist. */
function shardName(shard: unknown, path: string, indexPath: string): string {
  if (typeof shard !== 'string' || !/^[\w.-]+\.safetensors$/.test(shard)) {
    throw new CheckpointError('CHECKPOINT_CONFIG_INVALID', 'the index names an unusable shard', {
      file: indexPath,
      expected: 'the name of a .safetensors file of the same directory',
      received: showValue(shard),
    });
  }
  if (!existsSync(join(path, shard))) {
    throw new CheckpointError(
      'CHECKPOINT_SHARD_MISSING',
      'the index names a shard that is missing',
      {
        file: indexPath,
        expected: shard,
        received: 'no such file',
      },
    );
  }
  return shard;
}

function findSingleFile(path: string): string {
  const names = readdirSync(path).filter((name) => name.endsWith('.safetensors'));
  if (names.includes('model.safetensors')) return 'model.safetensors';
  const [only] = names;
  if (names.length === 1 && only !== undefined) return only;
  const pickled = readdirSync(path).filter((name) => /\.(bin|pt|pth)$/.test(name));
  throw new CheckpointError('CHECKPOINT_NOT_FOUND', 'no weights that can be read', {
    file: path,
    expected: 'model.safetensors, or model.safetensors.index.json and its shards',
    received: [...names, ...pickled].sort().join(', ') || 'neither',
  });
}

function readChatTemplate(
  path: string,
  tokenizerConfig: unknown,
  readJson: (name: string) => Record<string, unknown> | undefined,
): string | undefined {
  const file = join(path, 'chat_template.jinja');
  if (existsSync(file)) return readFileSync(file, 'utf8');
  const fromFile = readJson('chat_template.json')?.chat_template;
  const template =
    fromFile ?? (isObject(tokenizerConfig) ? tokenizerConfig.chat_template : undefined);
  if (typeof template === 'string') return template;
  if (!Array.isArray(template)) return undefined;
  // Several named templates: 'default' is the one for plain chat.
  const named = template.find((item) => isObject(item) && item.name === 'default');
  return isObject(named) && typeof named.template === 'string' ? named.template : undefined;
}

function tokenIds(from: Record<string, unknown>, key: string, file: string): number[] {
  const value = from[key] ?? [];
  const ids: unknown[] = Array.isArray(value) ? value : [value];
  return ids.map((id) => {
    if (Number.isSafeInteger(id) && (id as number) >= 0) return id as number;
    throw new CheckpointError('CHECKPOINT_CONFIG_INVALID', `'${key}' is unusable`, {
      file,
      expected: 'a token id or a list of them',
      received: showValue(value),
    });
  });
}

/** `do_sample: false` asks for greedy decoding; a top_p of 0 or a top_k of 0 means off, as the files use them. */
function readGenerationDefaults(
  generation: Record<string, unknown>,
  file: string,
): Checkpoint['generationDefaults'] {
  const read = (key: string): number | undefined => {
    const value = generation[key] ?? undefined;
    if (value === undefined || (typeof value === 'number' && value >= 0)) return value;
    throw new CheckpointError('CHECKPOINT_CONFIG_INVALID', `'${key}' is unusable`, {
      file,
      expected: 'a number of at least 0',
      received: showValue(value),
    });
  };
  const temperature = generation.do_sample === false ? 0 : read('temperature');
  const topP = read('top_p');
  const topK = read('top_k');
  const repetitionPenalty = read('repetition_penalty');
  return {
    ...(temperature === undefined ? {} : { temperature }),
    ...(topP ? { topP } : {}),
    ...(topK ? { topK } : {}),
    ...(repetitionPenalty ? { repetitionPenalty } : {}),
  };
}
