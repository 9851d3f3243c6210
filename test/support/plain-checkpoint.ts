import type { Checkpoint } from '#engine/weights/checkpoint.ts';

/** A checkpoint for tests of models alone: a config and tensors, nothing that text needs. */
export function plainCheckpoint({
  path,
  config,
  tensors,
}: Pick<Checkpoint, 'path' | 'config' | 'tensors'>): Checkpoint {
  return {
    format: 'huggingface',
    path,
    config,
    tensors,
    tokenizer: { tokenizerJson: {}, tokenizerConfig: {} },
    chatTemplate: undefined,
    bosToken: undefined,
    eosToken: undefined,
    eosTokenIds: [],
    generationDefaults: {},
  };
}
