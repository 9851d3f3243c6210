/** Refusals of a checkpoint's tokenizer: what an operator sees when a model does not load. */

/** Code -> what happened, in one clause. Codes are stable and never reused. */
export const TOKENIZER_ERRORS = {
  TOKENIZER_INVALID: 'the tokenizer file contradicts itself or lacks a needed part',
  TOKENIZER_UNSUPPORTED: 'the tokenizer asks for a step that is not supported',
  TOKENIZER_VOCABULARY_MISMATCH: 'the tokenizer knows ids the model has no row for',
} as const;

export type TokenizerErrorCode = keyof typeof TOKENIZER_ERRORS;

/** The message says what was expected, what came and what to do. */
export class TokenizerError extends Error {
  readonly code: TokenizerErrorCode;

  constructor(code: TokenizerErrorCode, message: string) {
    super(message);
    this.name = 'TokenizerError';
    this.code = code;
  }
}
