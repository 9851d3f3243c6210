/**
 * Byte-level BPE encoding: normalise, cut into words, merge each word's bytes. The patterns are translated from Oniguruma by
 * the Hugging Face library; words and merges are our own, because the library's encoder holds the event loop several times
 * longer than a decoding step for a prompt of a few thousand tokens.
 */
import * as library from '@huggingface/tokenizers';
import { byteCharacters } from './byte-alphabet.ts';
import { BytePairMerger, type Merge } from './byte-pair-merger.ts';
import { TokenizerError } from './errors.ts';
import type { ByteLevelPlan, TokenizerParts } from './tokenizer-json.ts';

/** Words remembered with their ids; prose repeats its words, so most are never merged twice. */
const CACHE_ENTRIES = 32_768;
const LONGEST_CACHED_WORD = 64;

// The package's type files import each other without extensions, which hides these exports from the compiler.
const { SplitPreTokenizer } = library as unknown as {
  readonly SplitPreTokenizer: new (config: object) => { readonly pattern: RegExp | null };
};

const textEncoder = new TextEncoder();

export class ByteLevelEncoder {
  readonly #plan: ByteLevelPlan;
  readonly #patterns: readonly RegExp[];
  readonly #merger: BytePairMerger;
  /** Id of each byte's symbol, -1 where the vocabulary has none. */
  readonly #byteIds: Int32Array;
  /** Whole words that are taken as they are; undefined unless the tokenizer ignores merges for them. */
  readonly #wholeWords: ReadonlyMap<string, number> | undefined;
  #cache = new Map<string, readonly number[]>();

  constructor(parts: TokenizerParts, plan: ByteLevelPlan) {
    const { vocabulary } = parts;
    this.#plan = plan;
    this.#patterns = plan.splits.map(({ pattern }) => compilePattern(pattern));
    this.#merger = new BytePairMerger(parts.merges.map((merge) => resolveMerge(vocabulary, merge)));
    const unknown =
      parts.unknownToken === undefined ? undefined : vocabulary.get(parts.unknownToken);
    this.#byteIds = Int32Array.from(
      byteCharacters,
      (symbol) => vocabulary.get(symbol) ?? unknown ?? -1,
    );
    this.#wholeWords = parts.ignoresMerges ? vocabulary : undefined;
  }

  normalize(text: string): string {
    return this.#plan.normalization === undefined ? text : text.normalize(this.#plan.normalization);
  }

  /** Appends the ids of normalised, well-formed text that holds no added token. */
  encodeInto(text: string, ids: number[]): void {
    const prefixed = this.#plan.addsPrefixSpace && !text.startsWith(' ') ? ` ${text}` : text;
    this.#split(prefixed, 0, ids);
  }

  #split(text: string, step: number, ids: number[]): void {
    const pattern = this.#patterns[step];
    if (pattern === undefined) {
      this.#encodeWord(text, ids);
      return;
    }
    let end = 0;
    for (const match of text.matchAll(pattern)) {
      if (match.index > end) this.#split(text.slice(end, match.index), step + 1, ids);
      if (match[0] !== '') this.#split(match[0], step + 1, ids);
      end = match.index + match[0].length;
    }
    if (end < text.length) this.#split(text.slice(end), step + 1, ids);
  }

  #encodeWord(word: string, ids: number[]): void {
    const cached = this.#cache.get(word);
    const wordIds = cached ?? this.#mergeWord(word);
    if (cached === undefined && word.length <= LONGEST_CACHED_WORD) {
      if (this.#cache.size >= CACHE_ENTRIES) this.#cache = new Map();
      this.#cache.set(word, wordIds);
    }
    for (const id of wordIds) ids.push(id);
  }

  #mergeWord(word: string): readonly number[] {
    const bytes = textEncoder.encode(word);
    if (this.#wholeWords !== undefined) {
      const symbols = Array.from(bytes, (byte) => byteCharacters[byte]).join('');
      const whole = this.#wholeWords.get(symbols);
      if (whole !== undefined) return [whole];
    }
    const symbolIds = Int32Array.from(bytes, (byte) => this.#byteIds[byte]!);
    // A byte that the vocabulary cannot write is left out, as Hugging Face does.
    return this.#merger.merge(
      symbolIds.includes(-1) ? symbolIds.filter((id) => id >= 0) : symbolIds,
    );
  }
}

function compilePattern(pattern: Readonly<Record<string, string>>): RegExp {
  let compiled: RegExp | null;
  try {
    compiled = new SplitPreTokenizer({
      type: 'Split',
      pattern,
      behavior: 'Isolated',
      invert: false,
    }).pattern;
  } catch (cause) {
    throw new TokenizerError(
      'TOKENIZER_UNSUPPORTED',
      `tokenizer.json: the split pattern ${JSON.stringify(pattern)} cannot be compiled: ${String(cause)}`,
    );
  }
  if (compiled?.global === true) return compiled;
  throw new TokenizerError(
    'TOKENIZER_UNSUPPORTED',
    `tokenizer.json: the split pattern ${JSON.stringify(pattern)} is neither Regex nor String`,
  );
}

function resolveMerge(
  vocabulary: ReadonlyMap<string, number>,
  [leftToken, rightToken]: readonly [string, string],
): Merge {
  const left = vocabulary.get(leftToken);
  const right = vocabulary.get(rightToken);
  const merged = vocabulary.get(leftToken + rightToken);
  if (left === undefined || right === undefined || merged === undefined) {
    throw new TokenizerError(
      'TOKENIZER_INVALID',
      `tokenizer.json: the merge of ${JSON.stringify(leftToken)} and ${JSON.stringify(rightToken)} needs a token ` +
        'that is not in the vocabulary',
    );
  }
  return { left, right, merged };
}
