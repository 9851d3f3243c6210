/** Bytes to text as they come: UTF-8 as the WHATWG decoder reads it, never half a character. */
import type { IncrementalDecoder } from './tokenizer.ts';

/** Bytes a character led by `lead` has, 0 when no character starts so. */
function characterLength(lead: number): number {
  if (lead < 0x80) return 1;
  if (lead >= 0xc2 && lead <= 0xdf) return 2;
  if (lead >= 0xe0 && lead <= 0xef) return 3;
  if (lead >= 0xf0 && lead <= 0xf4) return 4;
  return 0;
}

/** Whether `second` may follow `lead`: rules out overlong forms, surrogates and what lies beyond U+10FFFF. */
function isSecondByte(lead: number, second: number): boolean {
  const low = lead === 0xe0 ? 0xa0 : lead === 0xf0 ? 0x90 : 0x80;
  const high = lead === 0xed ? 0x9f : lead === 0xf4 ? 0x8f : 0xbf;
  return second >= low && second <= high;
}

/** How many bytes at the end are the beginning of a character that more bytes may complete: 0 to 3. */
export function incompleteSuffixLength(bytes: Uint8Array): number {
  for (let back = 1; back <= 3 && back <= bytes.length; back++) {
    const lead = bytes[bytes.length - back]!;
    if (lead >= 0x80 && lead < 0xc0) continue;
    if (characterLength(lead) <= back) return 0;
    return back === 1 || isSecondByte(lead, bytes[bytes.length - back + 1]!) ? back : 0;
  }
  return 0;
}

/** Broken bytes become U+FFFD, one for each maximal part of a character, as in HTML and in Hugging Face's decoder. */
export function decodeUtf8(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('utf8');
}

/** What a decoder must know of the vocabulary. */
export interface TokenTexts {
  /** undefined: the token says nothing (skipped, or no such id). */
  bytes(id: number): Uint8Array | undefined;
  /** The token's text when its bytes are whole characters, else undefined. */
  wholeText(id: number): string | undefined;
}

const none = new Uint8Array(0);

/** O(bytes of the token) per push: at most 3 bytes are carried from one token to the next. */
export class Utf8TokenDecoder implements IncrementalDecoder {
  readonly #texts: TokenTexts;
  #pending: Uint8Array = none;
  #stripsLeadingSpace: boolean;

  constructor(texts: TokenTexts, stripsLeadingSpace: boolean) {
    this.#texts = texts;
    this.#stripsLeadingSpace = stripsLeadingSpace;
  }

  push(id: number): string {
    if (this.#pending.length === 0) {
      const whole = this.#texts.wholeText(id);
      if (whole !== undefined) return this.#strip(whole);
    }
    const bytes = this.#texts.bytes(id);
    if (bytes === undefined || bytes.length === 0) return '';
    const all = this.#pending.length === 0 ? bytes : Buffer.concat([this.#pending, bytes]);
    const certain = all.length - incompleteSuffixLength(all);
    this.#pending = certain === all.length ? none : all.subarray(certain);
    return this.#strip(decodeUtf8(all.subarray(0, certain)));
  }

  flush(): string {
    const rest = decodeUtf8(this.#pending);
    this.#pending = none;
    return this.#strip(rest);
  }

  #strip(text: string): string {
    if (!this.#stripsLeadingSpace || text === '') return text;
    this.#stripsLeadingSpace = false;
    return text.startsWith(' ') ? text.slice(1) : text;
  }
}
