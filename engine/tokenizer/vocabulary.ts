/** Whether a tokenizer and a model belong together. */
import { TokenizerError } from './errors.ts';
import type { Tokenizer } from './tokenizer.ts';

/** Throws TokenizerError 'TOKENIZER_VOCABULARY_MISMATCH' when a text could give an id that the model has no row for. */
export function checkVocabulary(tokenizer: Tokenizer, vocabularyRows: number): void {
  if (tokenizer.vocabularySize <= vocabularyRows) return;
  throw new TokenizerError(
    'TOKENIZER_VOCABULARY_MISMATCH',
    `the tokenizer has ids up to ${tokenizer.vocabularySize - 1}, the model has embedding rows for 0 to ` +
      `${vocabularyRows - 1}; use the tokenizer files that came with these weights`,
  );
}
