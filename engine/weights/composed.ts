/**
 * A checkpoint of two parts: a directory that holds vision encoder and projector, and a language model of its own that the
 * directory's config.json names by reference under `language_model_reference`.
 */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { WeightSource } from '#kernels/program.ts';
import type { Checkpoint } from './checkpoint.ts';
import { CheckpointError, showValue } from './errors.ts';
import { readJsonFile } from './huggingface.ts';
import { readSafetensors } from './safetensors.ts';

const REFERENCE_KEY = 'language_model_reference';
const LANGUAGE_MODEL_PREFIX = 'language_model.';

/** The reference that the config.json in `directory` gives for its language model; undefined when it needs none. */
export function languageModelReference(directory: string): string | undefined {
  const file = join(directory, 'config.json');
  const reference = readJsonFile(file)?.[REFERENCE_KEY] ?? undefined;
  if (reference === undefined || typeof reference === 'string') return reference;
  throw new CheckpointError('CHECKPOINT_CONFIG_INVALID', `'${REFERENCE_KEY}' is unusable`, {
    file,
    expected: 'a model reference',
    received: showValue(reference),
  });
}

/**
 * Both parts as one: the language model's tensors under `language_model.`, its config as `llm_config`, and its tokenizer, chat
 * template, ends and sampling defaults. Reads headers only. Throws CheckpointError.
 */
export function composeCheckpoint(directory: string, language: Checkpoint): Checkpoint {
  const configPath = join(directory, 'config.json');
  const weightsPath = join(directory, 'model.safetensors');
  const config = readJsonFile(configPath);
  if (config === undefined || !existsSync(weightsPath)) {
    throw new CheckpointError('CHECKPOINT_NOT_FOUND', 'a part of the model is missing', {
      file: config === undefined ? configPath : weightsPath,
    });
  }
  const tensors = new Map<string, WeightSource>();
  for (const [name, tensor] of readSafetensors(weightsPath)) {
    if (name.startsWith(LANGUAGE_MODEL_PREFIX)) {
      throw new CheckpointError('CHECKPOINT_TENSOR_INVALID', 'belongs to the language model', {
        file: weightsPath,
        tensor: name,
        expected: 'vision encoder and projector only',
      });
    }
    tensors.set(name, tensor);
  }
  for (const [innerName, tensor] of language.tensors) {
    const name = LANGUAGE_MODEL_PREFIX + innerName;
    tensors.set(name, { ...tensor, name });
  }
  return {
    ...language,
    format: 'huggingface',
    path: directory,
    config: { ...config, llm_config: language.config },
    tensors,
  };
}
