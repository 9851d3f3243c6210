/** The tokenizer files of a Hugging Face directory, brought to one shape: tokenizer.json and tokenizer_config.json. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { TokenizerFiles } from '#engine/tokenizer/tokenizer.ts';
import { CheckpointError, showValue } from './errors.ts';
import { withFile } from './file-reader.ts';
import { splitMerge } from './gguf-tokenizer.ts';
import {
  type AddedToken,
  buildTokenizerJson,
  TOKENIZER_KINDS,
  type TokenizerKind,
} from './pre-tokenizers.ts';
import { decodeUtf8, isObject } from './strict-json.ts';

type ReadJson = (name: string) => Record<string, unknown> | undefined;

export interface HuggingFaceTokenizer {
  readonly files: TokenizerFiles;
  readonly bosToken: string | undefined;
  readonly eosToken: string | undefined;
  readonly eosTokenId: number | undefined;
}

/** Class names of byte-level BPE tokenizers that may come as vocab.json + merges.txt. */
const KINDS_BY_CLASS: ReadonlyMap<string, string> = new Map([
  ['Qwen2Tokenizer', 'qwen2'],
  ['Qwen2TokenizerFast', 'qwen2'],
  ['GPT2Tokenizer', 'gpt-2'],
  ['GPT2TokenizerFast', 'gpt-2'],
]);

/**
 * Reads tokenizer.json, or makes it from vocab.json + merges.txt for the classes above; other tokenizers
 * (SentencePiece, tiktoken files) are refused with CHECKPOINT_TOKENIZER_UNSUPPORTED.
 */
export function readHuggingFaceTokenizer(
  path: string,
  config: Record<string, unknown>,
  readJson: ReadJson,
): HuggingFaceTokenizer {
  const tokenizerConfig = readJson('tokenizer_config.json') ?? {};
  const specialTokens = readJson('special_tokens_map.json') ?? {};
  const tokenizerJson =
    readJson('tokenizer.json') ?? fromVocabAndMerges(path, config, tokenizerConfig, readJson);
  const special = (key: string) =>
    tokenContent(tokenizerConfig[key]) ?? tokenContent(specialTokens[key]);
  const eosToken = special('eos_token');
  return {
    files: { tokenizerJson, tokenizerConfig },
    bosToken: special('bos_token'),
    eosToken,
    eosTokenId: eosToken === undefined ? undefined : findTokenId(tokenizerJson, eosToken),
  };
}

/** A special token is written as its text or as an object with `content`. */
function tokenContent(value: unknown): string | undefined {
  const content = isObject(value) ? value.content : value;
  return typeof content === 'string' ? content : undefined;
}

function findTokenId(tokenizerJson: Record<string, unknown>, token: string): number | undefined {
  const { added_tokens: added, model } = tokenizerJson;
  for (const entry of Array.isArray(added) ? added : []) {
    if (isObject(entry) && entry.content === token) return asId(entry.id);
  }
  const vocab = isObject(model) ? model.vocab : undefined;
  return isObject(vocab) && Object.hasOwn(vocab, token) ? asId(vocab[token]) : undefined;
}

function asId(value: unknown): number | undefined {
  return Number.isSafeInteger(value) && (value as number) >= 0 ? (value as number) : undefined;
}

function fromVocabAndMerges(
  path: string,
  config: Record<string, unknown>,
  tokenizerConfig: Record<string, unknown>,
  readJson: ReadJson,
): Record<string, unknown> {
  const vocab = readJson('vocab.json');
  const mergesPath = join(path, 'merges.txt');
  if (vocab === undefined || !existsSync(mergesPath)) {
    throw new CheckpointError('CHECKPOINT_TOKENIZER_UNSUPPORTED', 'no tokenizer that can be read', {
      file: path,
      expected: 'tokenizer.json, or vocab.json and merges.txt',
      received: existsSync(join(path, 'tokenizer.model')) ? 'tokenizer.model only' : 'neither',
    });
  }
  for (const [token, id] of Object.entries(vocab)) {
    if (asId(id) === undefined) {
      throw new CheckpointError('CHECKPOINT_CONFIG_INVALID', `token '${token}' has no usable id`, {
        file: join(path, 'vocab.json'),
        received: showValue(id),
      });
    }
  }
  const addedTokens = readAddedTokens(path, tokenizerConfig, readJson);
  const bosContent = tokenContent(tokenizerConfig.bos_token);
  const bosId =
    addedTokens.find((token) => token.content === bosContent)?.id ?? vocab[bosContent ?? ''];
  const addsBos = tokenizerConfig.add_bos_token === true && typeof bosId === 'number';
  return buildTokenizerJson({
    kind: chooseKind(path, config, tokenizerConfig),
    vocab: vocab as Record<string, number>,
    merges: readMerges(mergesPath),
    addedTokens,
    ...(addsBos && bosContent !== undefined ? { bos: { id: bosId, content: bosContent } } : {}),
  });
}

function chooseKind(
  path: string,
  config: Record<string, unknown>,
  tokenizerConfig: Record<string, unknown>,
): TokenizerKind {
  const className = tokenizerConfig.tokenizer_class;
  const name =
    KINDS_BY_CLASS.get(String(className)) ??
    (className === undefined && config.model_type === 'qwen2' ? 'qwen2' : '');
  const kind = TOKENIZER_KINDS.get(name);
  if (kind !== undefined) return kind;
  throw new CheckpointError(
    'CHECKPOINT_TOKENIZER_UNSUPPORTED',
    "without tokenizer.json the 'tokenizer_class' decides how text is split",
    {
      file: join(path, 'tokenizer_config.json'),
      expected: [...KINDS_BY_CLASS.keys()].join(', '),
      received: showValue(className),
    },
  );
}

function readMerges(file: string): (readonly [string, string])[] {
  const text = withFile(file, (reader) =>
    decodeUtf8(reader.read(0, reader.byteLength, 'the merges'), file, 'the merges'),
  );
  return text
    .split(/\r?\n/)
    .filter((line, index) => line !== '' && !(index === 0 && line.startsWith('#version')))
    .map((line) => splitMerge({ path: file }, line));
}

/** tokenizer_config.json's added_tokens_decoder knows most; added_tokens.json knows ids alone. */
function readAddedTokens(
  path: string,
  tokenizerConfig: Record<string, unknown>,
  readJson: ReadJson,
): AddedToken[] {
  const tokens = new Map<string, AddedToken>();
  const refuse = (name: string, entry: unknown): never => {
    throw new CheckpointError('CHECKPOINT_CONFIG_INVALID', 'an added token is unusable', {
      file: join(path, name),
      expected: 'an id and its content',
      received: showValue(entry),
    });
  };
  for (const [content, value] of Object.entries(readJson('added_tokens.json') ?? {})) {
    const id = asId(value) ?? refuse('added_tokens.json', { [content]: value });
    tokens.set(content, { id, content, special: /^<\|.*\|>$|^<.?s>$/.test(content) });
  }
  const decoder = tokenizerConfig.added_tokens_decoder;
  for (const [key, entry] of Object.entries(isObject(decoder) ? decoder : {})) {
    const id = asId(Number(key));
    if (!isObject(entry) || typeof entry.content !== 'string' || id === undefined) {
      return refuse('tokenizer_config.json', { [key]: entry });
    }
    const { content } = entry;
    tokens.set(content, {
      id,
      content,
      special: entry.special === true,
      single_word: entry.single_word === true,
      lstrip: entry.lstrip === true,
      rstrip: entry.rstrip === true,
      normalized: entry.normalized === true,
    });
  }
  return [...tokens.values()].sort((a, b) => a.id - b.id);
}
