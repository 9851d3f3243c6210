/** The door of this layer: a checkpoint's tokenizer files become a Tokenizer. */
import { Tokenizer as LibraryTokenizer } from '@huggingface/tokenizers';
import { AddedTokenSplitter } from './added-token-splitter.ts';
import { bytesOfSymbols } from './byte-alphabet.ts';
import { ByteLevelEncoder } from './byte-level-encoder.ts';
import { TokenizerError } from './errors.ts';
import {
  decodeUtf8,
  incompleteSuffixLength,
  type TokenTexts,
  Utf8TokenDecoder,
} from './incremental-decoder.ts';
import type { IncrementalDecoder, Tokenizer, TokenizerFiles } from './tokenizer.ts';
import { readTokenizerJson, type TokenizerParts } from './tokenizer-json.ts';

const textEncoder = new TextEncoder();
const noBytes = new Uint8Array(0);

/**
 * Byte-level BPE (GPT-2, Llama 3, Qwen 2, SmolLM and relatives), and BPE with byte fallback (Llama 2 and relatives).
 * Ids equal those of Hugging Face's tokenizers for every text but two kinds: lone surrogates, which it cannot take, are read as
 * U+FFFD; and characters younger than its Unicode tables (letters assigned since Unicode 15) may be cut into words differently.
 * Throws TokenizerError 'TOKENIZER_INVALID' | 'TOKENIZER_UNSUPPORTED'.
 */
export function createTokenizer(files: TokenizerFiles): Tokenizer {
  const parts = readTokenizerJson(files.tokenizerJson);
  return new BpeTokenizer(parts, createEncode(parts));
}

/** Well-formed text to ids, nothing added. */
type Encode = (text: string) => number[];

function createEncode(parts: TokenizerParts): Encode {
  if (parts.byteLevel === undefined) return createFallbackEncode(parts);
  const encoder = new ByteLevelEncoder(parts, parts.byteLevel);
  const isRaw = (token: { readonly normalized: boolean }) =>
    !token.normalized || parts.byteLevel?.normalization === undefined;
  const raw = new AddedTokenSplitter(parts.addedTokens.filter(isRaw));
  const normalized = new AddedTokenSplitter(
    parts.addedTokens.filter((token) => !isRaw(token)),
    (content) => encoder.normalize(content),
  );
  return (text) => {
    const ids: number[] = [];
    const pushId = (id: number) => {
      ids.push(id);
    };
    const encodeText = (piece: string) => encoder.encodeInto(piece, ids);
    raw.split(
      text,
      (piece) => normalized.split(encoder.normalize(piece), encodeText, pushId),
      pushId,
    );
    return ids;
  };
}

/** The library's encoder is exact for BPE with byte fallback, and only old checkpoints need it. */
function createFallbackEncode(parts: TokenizerParts): Encode {
  let library: LibraryTokenizer;
  try {
    library = new LibraryTokenizer(parts.json, {});
  } catch (cause) {
    throw new TokenizerError('TOKENIZER_UNSUPPORTED', `tokenizer.json: ${String(cause)}`);
  }
  return (text) => (text === '' ? [] : library.encode(text, { add_special_tokens: false }).ids);
}

class BpeTokenizer implements Tokenizer {
  readonly vocabularySize: number;
  readonly #parts: TokenizerParts;
  readonly #encode: Encode;
  readonly #idsByContent: ReadonlyMap<string, number>;
  readonly #specialIds: ReadonlySet<number>;
  readonly #contents: (string | undefined)[];
  readonly #addedIds: ReadonlySet<number>;
  readonly #bytes: (Uint8Array | undefined)[] = [];
  /** null: not whole characters; undefined: not looked at yet. */
  readonly #wholeTexts: (string | null | undefined)[] = [];
  readonly #allTexts: TokenTexts;
  readonly #plainTexts: TokenTexts;

  constructor(parts: TokenizerParts, encode: Encode) {
    this.#parts = parts;
    this.#encode = encode;
    const idsByContent = new Map(parts.vocabulary);
    for (const { content, id } of parts.addedTokens) idsByContent.set(content, id);
    this.#idsByContent = idsByContent;
    this.#specialIds = new Set(parts.addedTokens.filter((t) => t.special).map((t) => t.id));
    this.#addedIds = new Set(parts.addedTokens.map((token) => token.id));
    let largest = -1;
    for (const id of idsByContent.values()) largest = Math.max(largest, id);
    this.vocabularySize = largest + 1;
    this.#contents = new Array(this.vocabularySize).fill(undefined);
    for (const [content, id] of parts.vocabulary) this.#contents[id] = content;
    for (const { content, id } of parts.addedTokens) this.#contents[id] = content;
    this.#allTexts = {
      bytes: (id) => this.tokenBytes(id),
      wholeText: (id) => this.#wholeText(id),
    };
    this.#plainTexts = {
      bytes: (id) => (this.#specialIds.has(id) ? undefined : this.tokenBytes(id)),
      wholeText: (id) => (this.#specialIds.has(id) ? undefined : this.#wholeText(id)),
    };
  }

  encode(text: string, options: { readonly addSpecialTokens?: boolean } = {}): number[] {
    const ids = this.#encode(text.toWellFormed());
    if (options.addSpecialTokens !== true) return ids;
    return [...this.#parts.prefixIds, ...ids, ...this.#parts.suffixIds];
  }

  decode(ids: readonly number[], options: { readonly skipSpecialTokens?: boolean } = {}): string {
    const decoder = this.createDecoder(options);
    let text = '';
    for (const id of ids) text += decoder.push(id);
    return text + decoder.flush();
  }

  tokenToId(content: string): number | undefined {
    return this.#idsByContent.get(content);
  }

  tokenBytes(id: number): Uint8Array {
    const known = this.#bytes[id];
    if (known !== undefined) return known;
    const content = this.#contents[id];
    if (content === undefined) return noBytes;
    const bytes = this.#bytesOf(id, content);
    this.#bytes[id] = bytes;
    return bytes;
  }

  isSpecial(id: number): boolean {
    return this.#specialIds.has(id);
  }

  createDecoder(options: { readonly skipSpecialTokens?: boolean } = {}): IncrementalDecoder {
    const texts = options.skipSpecialTokens === true ? this.#plainTexts : this.#allTexts;
    return new Utf8TokenDecoder(texts, this.#parts.stripsLeadingSpace);
  }

  #bytesOf(id: number, content: string): Uint8Array {
    if (this.#addedIds.has(id)) return textEncoder.encode(content);
    if (this.#parts.byteLevel !== undefined) {
      return bytesOfSymbols(content) ?? textEncoder.encode(content);
    }
    const byte = /^<0x([0-9A-F]{2})>$/.exec(content)?.[1];
    if (byte !== undefined) return Uint8Array.of(Number.parseInt(byte, 16));
    let text = content;
    for (const [from, to] of this.#parts.replacements) text = text.replaceAll(from, to);
    return textEncoder.encode(text);
  }

  #wholeText(id: number): string | undefined {
    const known = this.#wholeTexts[id];
    if (known !== undefined) return known ?? undefined;
    const bytes = this.tokenBytes(id);
    const isWhole = bytes.length > 0 && incompleteSuffixLength(bytes) === 0;
    const text = isWhole ? decodeUtf8(bytes) : null;
    if (id >= 0 && id < this.vocabularySize) this.#wholeTexts[id] = text;
    return text ?? undefined;
  }
}
