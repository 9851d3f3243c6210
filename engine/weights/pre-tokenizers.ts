/**
 * How byte-level BPE tokenizers split text before merging, as tokenizer.json spells it, for checkpoints that only
 * name their kind (GGUF's `tokenizer.ggml.pre`, or vocab.json + merges.txt with a tokenizer class).
 * The patterns are those of the models' own tokenizer.json files.
 */

export interface TokenizerKind {
  readonly normalizer: unknown;
  readonly preTokenizer: unknown;
  /** Whole words that are in the vocabulary are taken without merging. */
  readonly ignoreMerges: boolean;
  /** What to assume when the checkpoint does not say whether a BOS token is prepended. */
  readonly addsBosByDefault: boolean;
}

const byteLevel = (useRegex: boolean) => ({
  type: 'ByteLevel',
  add_prefix_space: false,
  trim_offsets: true,
  use_regex: useRegex,
});
const isolate = (pattern: string) => ({
  type: 'Split',
  pattern: { Regex: pattern },
  behavior: 'Isolated',
  invert: false,
});
const sequence = (...pretokenizers: unknown[]) => ({ type: 'Sequence', pretokenizers });

/** The pattern Llama 3 and Qwen 2 share but for how many digits stand together. */
const wordsAndDigits = (digits: string) =>
  `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`;

const kind = (preTokenizer: unknown, rest: Partial<TokenizerKind> = {}): TokenizerKind => ({
  normalizer: null,
  preTokenizer,
  ignoreMerges: false,
  addsBosByDefault: false,
  ...rest,
});

const llama3 = kind(sequence(isolate(wordsAndDigits('\\p{N}{1,3}')), byteLevel(false)), {
  ignoreMerges: true,
  addsBosByDefault: true,
});
// Each digit by itself, of any script: what tokenizer.json writes as Digits with individual_digits.
const singleDigits = kind(sequence(isolate('\\p{N}'), byteLevel(true)));

export const TOKENIZER_KINDS: ReadonlyMap<string, TokenizerKind> = new Map([
  ['gpt-2', kind(byteLevel(true))],
  ['smollm', singleDigits],
  ['starcoder', singleDigits],
  [
    'qwen2',
    kind(sequence(isolate(wordsAndDigits('\\p{N}')), byteLevel(false)), {
      normalizer: { type: 'NFC' },
    }),
  ],
  ['llama-bpe', llama3],
  ['llama3', llama3],
  ['llama-v3', llama3],
]);

export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
  readonly single_word?: boolean;
  readonly lstrip?: boolean;
  readonly rstrip?: boolean;
  readonly normalized?: boolean;
}

/** A tokenizer.json of a byte-level BPE model. `bos` is prepended by the post-processor when given. */
export function buildTokenizerJson(parts: {
  readonly kind: TokenizerKind;
  readonly vocab: Readonly<Record<string, number>>;
  readonly merges: readonly (readonly [string, string])[];
  readonly addedTokens: readonly AddedToken[];
  readonly bos?: { readonly id: number; readonly content: string };
}): Record<string, unknown> {
  const { kind, bos } = parts;
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: parts.addedTokens.map((token) => ({
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      ...token,
    })),
    normalizer: kind.normalizer,
    pre_tokenizer: kind.preTokenizer,
    post_processor: bos === undefined ? null : prependToken(bos),
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: kind.ignoreMerges,
      vocab: parts.vocab,
      merges: parts.merges,
    },
  };
}

function prependToken({ id, content }: { id: number; content: string }): unknown {
  const special = (type_id: number) => ({ SpecialToken: { id: content, type_id } });
  const text = (name: 'A' | 'B', type_id: number) => ({ Sequence: { id: name, type_id } });
  return {
    type: 'TemplateProcessing',
    single: [special(0), text('A', 0)],
    pair: [special(0), text('A', 0), special(1), text('B', 1)],
    special_tokens: { [content]: { id: content, ids: [id], tokens: [content] } },
  };
}
