/** Text to ids and back, as the checkpoint's own tokenizer does it. */

/** What a checkpoint says of its tokenizer; GGUF metadata is converted to the same JSON by engine/weights. */
export interface TokenizerFiles {
  /** Parsed tokenizer.json. */
  readonly tokenizerJson: unknown;
  /** Parsed tokenizer_config.json (may be {}). */
  readonly tokenizerConfig: unknown;
}

export interface Tokenizer {
  /** Ids 0 .. vocabularySize - 1 can be decoded. */
  readonly vocabularySize: number;
  /** Special tokens in the text are recognised as such; none is added unless `addSpecialTokens`. */
  encode(text: string, options?: { readonly addSpecialTokens?: boolean }): number[];
  decode(ids: readonly number[], options?: { readonly skipSpecialTokens?: boolean }): string;
  tokenToId(content: string): number | undefined;
  /** The token's own text as bytes (may be part of a character); special tokens give their content. */
  tokenBytes(id: number): Uint8Array;
  isSpecial(id: number): boolean;
  /** One per stream: never emits half a character. */
  createDecoder(options?: { readonly skipSpecialTokens?: boolean }): IncrementalDecoder;
}

export interface IncrementalDecoder {
  /** Text that became certain by this token; '' while a character is incomplete. */
  push(id: number): string;
  /** What is left, broken bytes as U+FFFD. */
  flush(): string;
}

export interface ChatMessage {
  readonly role: string;
  readonly content: string;
  readonly name?: string;
}

export interface ChatTemplate {
  /** Throws NvlmError 'template_error' quoting what the template raised. */
  render(
    messages: readonly ChatMessage[],
    options: { readonly addGenerationPrompt: boolean; readonly continueFinalMessage?: boolean },
  ): string;
}
