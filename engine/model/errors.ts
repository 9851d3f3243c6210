/** Refusals of a model: its config or its tensors ask for something that the op program does not express. */

/** Code -> what happened and what to do, a clause each. Codes are stable and never reused. */
export const MODEL_ERRORS = {
  MODEL_ARCHITECTURE_UNSUPPORTED: {
    meaning: 'no model of this engine has the architecture that the config names',
    remedy: 'choose a model of docs/models-and-formats.md',
  },
  MODEL_FEATURE_UNSUPPORTED: {
    meaning: 'the config switches on a feature that the model does not have here',
    remedy: 'choose a checkpoint without the feature that the message names',
  },
  MODEL_CONFIG_INVALID: {
    meaning: 'the config lacks a needed key, or a key has an impossible value',
    remedy: 'use the config.json that came with the weights; the message names the key',
  },
  MODEL_TENSORS_MISMATCH: {
    meaning: 'tensors are missing, unexpected or of another shape than the config says',
    remedy: 'use config and weights of one checkpoint; the message names the tensors',
  },
  MODEL_VOCABULARY_MISMATCH: {
    meaning: 'the tokenizer has ids that the embedding has no rows for',
    remedy: 'use the tokenizer files that came with the weights',
  },
  MODEL_LENGTH_UNSUPPORTED: {
    meaning: 'the wanted context is longer than the model has positions',
    remedy: 'lower --max-model-length to what the message says',
  },
  MODEL_SPLIT_UNSUPPORTED: {
    meaning: 'the layers of the model cannot be divided between so many ranks',
    remedy: 'set --tensor to what the message says',
  },
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
