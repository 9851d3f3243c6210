/** The tokenizer inside a GGUF file, as the tokenizer.json and tokenizer_config.json it was made from. */
import type { TokenizerFiles } from '#engine/tokenizer/tokenizer.ts';
import { CheckpointError, shorten } from './errors.ts';
import type { GgufFile } from './gguf.ts';
import { createKeyReader } from './gguf-model.ts';
import { type AddedToken, buildTokenizerJson, TOKENIZER_KINDS } from './pre-tokenizers.ts';

/** `tokenizer.ggml.token_type` values that matter here. */
const CONTROL = 3;
const USER_DEFINED = 4;
const UNUSED = 5;

export interface GgufTokenizer extends TokenizerFiles {
  readonly chatTemplate: string | undefined;
  readonly bosToken: string | undefined;
  readonly eosToken: string | undefined;
  /** End of text and end of turn. */
  readonly eosTokenIds: readonly number[];
}

/**
 * Byte-level BPE only (`tokenizer.ggml.model` gpt2, `pre` one of TOKENIZER_KINDS); every other kind is refused by name
 * with CHECKPOINT_TOKENIZER_UNSUPPORTED. Unused ids at the end of the vocabulary (padding rows) are left out.
 */
export function readGgufTokenizer(file: GgufFile): GgufTokenizer {
  const keys = createKeyReader(file);
  const kind = readKind(file, keys);
  const tokens = strings(file, 'tokenizer.ggml.tokens');
  const types = numbers(file, 'tokenizer.ggml.token_type', tokens.length);
  let count = tokens.length;
  while (count > 0 && types[count - 1] === UNUSED) count--;
  const vocab: Record<string, number> = Object.create(null);
  const addedTokens: AddedToken[] = [];
  for (let id = 0; id < count; id++) {
    const content = tokens[id] as string;
    if (content in vocab) {
      throw invalid(file, `token '${shorten(content)}' has two ids`, `${vocab[content]} and ${id}`);
    }
    vocab[content] = id;
    if (types[id] === CONTROL || types[id] === USER_DEFINED) {
      addedTokens.push({ id, content, special: types[id] === CONTROL });
    }
  }
  const tokenOf = (key: string): { id: number; content: string } | undefined => {
    const id = keys.optionalNumber(`tokenizer.ggml.${key}`);
    if (id === undefined) return undefined;
    const content = tokens[id];
    if (content === undefined) {
      throw invalid(file, `'tokenizer.ggml.${key}' names no token`, `${id} of ${tokens.length}`);
    }
    return { id, content };
  };
  const bos = tokenOf('bos_token_id');
  const eos = tokenOf('eos_token_id');
  const addsBos = file.metadata.get('tokenizer.ggml.add_bos_token') ?? kind.addsBosByDefault;
  const merges = strings(file, 'tokenizer.ggml.merges').map((merge) => splitMerge(file, merge));
  return {
    tokenizerJson: buildTokenizerJson({
      kind,
      vocab,
      merges,
      addedTokens,
      ...(addsBos === true && bos !== undefined ? { bos } : {}),
    }),
    tokenizerConfig: {
      tokenizer_class: 'PreTrainedTokenizerFast',
      bos_token: bos?.content ?? null,
      eos_token: eos?.content ?? null,
      unk_token: tokenOf('unknown_token_id')?.content ?? null,
      pad_token: tokenOf('padding_token_id')?.content ?? null,
      add_bos_token: addsBos === true,
      clean_up_tokenization_spaces: false,
    },
    chatTemplate: keys.optionalString('tokenizer.chat_template'),
    bosToken: bos?.content,
    eosToken: eos?.content,
    eosTokenIds: [...new Set([eos, tokenOf('eot_token_id')].flatMap((token) => token?.id ?? []))],
  };
}

function readKind(file: GgufFile, keys: ReturnType<typeof createKeyReader>) {
  const refuse = (key: string, expected: string, received: string): never => {
    throw new CheckpointError('CHECKPOINT_TOKENIZER_UNSUPPORTED', `'${key}' is not supported`, {
      file: file.path,
      expected,
      received,
    });
  };
  const model = keys.string('tokenizer.ggml.model');
  if (model !== 'gpt2') refuse('tokenizer.ggml.model', 'gpt2 (byte-level BPE)', model);
  const pre = keys.optionalString('tokenizer.ggml.pre') ?? 'none';
  return (
    TOKENIZER_KINDS.get(pre) ??
    refuse('tokenizer.ggml.pre', [...TOKENIZER_KINDS.keys()].join(', '), pre)
  );
}

function strings(file: GgufFile, key: string): readonly string[] {
  const value = file.metadata.get(key);
  if (Array.isArray(value) && value.every((item) => typeof item === 'string')) return value;
  throw invalid(
    file,
    `metadata key '${key}' is unusable`,
    value === undefined ? 'nothing' : 'another type',
  );
}

function numbers(file: GgufFile, key: string, length: number): ArrayLike<number> {
  const value = file.metadata.get(key);
  const usable = value instanceof Int32Array || value instanceof Uint32Array;
  if (usable && value.length === length) return value;
  throw invalid(
    file,
    `metadata key '${key}' is unusable`,
    usable ? `${value.length} numbers for ${length} tokens` : 'nothing or another type',
  );
}

/** 'left right': neither side holds a plain space, byte-level BPE writes it as another character. */
export function splitMerge(
  file: { readonly path: string },
  merge: string,
): readonly [string, string] {
  const [left, right, ...rest] = merge.split(' ');
  if (!left || !right || rest.length > 0) {
    throw invalid(file, 'a merge is not two tokens', `'${shorten(merge)}'`);
  }
  return [left, right];
}

function invalid(
  file: { readonly path: string },
  summary: string,
  received: string,
): CheckpointError {
  return new CheckpointError('CHECKPOINT_CONFIG_INVALID', summary, { file: file.path, received });
}
