/** Refusals of a checkpoint's tokenizer: what an operator sees when a model does not load. */

/** Code -> what happened and what to do, a clause each. Codes are stable and never reused. */
export const TOKENIZER_ERRORS = {
  TOKENIZER_INVALID: {
    meaning: 'the tokenizer file contradicts itself or lacks a needed part',
    remedy: 'use the tokenizer files that came with the weights',
  },
  TOKENIZER_UNSUPPORTED: {
    meaning: 'the tokenizer asks for a step that is not supported',
    remedy: 'choose a model whose tokenizer is byte-level BPE or BPE with byte fallback',
  },
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
