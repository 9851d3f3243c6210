/** Refusals of a model: its config or its tensors ask for something that the op program does not express. */

/** Code -> what happened, in one clause. Codes are stable and never reused. */
export const MODEL_ERRORS = {
  MODEL_ARCHITECTURE_UNSUPPORTED:
    'no model of this engine has the architecture that the config names',
  MODEL_FEATURE_UNSUPPORTED: 'the config switches on a feature that the model does not have here',
  MODEL_CONFIG_INVALID: 'the config lacks a needed key, or a key has an impossible value',
  MODEL_TENSORS_MISMATCH:
    'tensors are missing, unexpected or of another shape than the config says',
  MODEL_VOCABULARY_MISMATCH: 'the tokenizer has ids that the embedding has no rows for',
  MODEL_LENGTH_UNSUPPORTED: 'the wanted context is longer than the model has positions',
} as const;

export type ModelErrorCode = keyof typeof MODEL_ERRORS;

export class ModelError extends Error {
  readonly code: ModelErrorCode;
  constructor(code: ModelErrorCode, message: string) {
    super(message);
    this.name = 'ModelError';
    this.code = code;
  }
}
