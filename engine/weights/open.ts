/** The door of this layer: a path on disk becomes a Checkpoint. Which format it is, and nothing more. */
import { existsSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { Checkpoint } from './checkpoint.ts';
import { composeCheckpoint, languageModelReference } from './composed.ts';
import { CheckpointError } from './errors.ts';
import { readGguf } from './gguf.ts';
import { describeGgufModel } from './gguf-model.ts';
import { readGgufTokenizer } from './gguf-tokenizer.ts';
import { openHuggingFaceDirectory } from './huggingface.ts';

/**
 * Reads what is needed to load the model at `path`: a Hugging Face directory, a `.gguf` file, or a directory that holds
 * one `.gguf` file and no config.json. Headers and JSON files only. `languageModelPath` is where the language model of a directory
 * is that names one by reference. Every refusal is a CheckpointError.
 */
export async function openCheckpoint(
  path: string,
  languageModelPath?: string,
): Promise<Checkpoint> {
  if (languageModelPath !== undefined) {
    return composeCheckpoint(path, await openCheckpoint(languageModelPath));
  }
  const stats = statSync(path, { throwIfNoEntry: false });
  if (stats === undefined) {
    throw new CheckpointError('CHECKPOINT_NOT_FOUND', 'there is no such file or directory', {
      file: path,
    });
  }
  if (!stats.isDirectory()) return openGgufFile(path);
  if (existsSync(join(path, 'config.json'))) {
    const reference = languageModelReference(path);
    if (reference === undefined) return openHuggingFaceDirectory(path);
    throw new CheckpointError('CHECKPOINT_NOT_FOUND', 'its language model is not given', {
      file: path,
      expected: `the path of ${reference}`,
    });
  }
  const ggufFiles = readdirSync(path).filter((name) => name.endsWith('.gguf'));
  const [only] = ggufFiles;
  if (ggufFiles.length === 1 && only !== undefined) return openGgufFile(join(path, only));
  throw new CheckpointError('CHECKPOINT_FORMAT_UNKNOWN', 'this directory is no checkpoint', {
    file: path,
    expected: 'config.json, or exactly one .gguf file',
    received: ggufFiles.length === 0 ? 'neither' : ggufFiles.sort().join(', '),
  });
}

function openGgufFile(path: string): Checkpoint {
  const file = readGguf(path);
  const { config, tensors } = describeGgufModel(file);
  const { chatTemplate, bosToken, eosToken, eosTokenIds, ...tokenizer } = readGgufTokenizer(file);
  return {
    format: 'gguf',
    path,
    config,
    tensors,
    tokenizer,
    chatTemplate,
    bosToken,
    eosToken,
    eosTokenIds,
    generationDefaults: {},
  };
}
