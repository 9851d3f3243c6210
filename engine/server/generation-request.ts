/** Sampling fields of any wire to the engine's request. */
import { randomBytes } from 'node:crypto';
import { invalid } from '#engine/protocol/fields.ts';
import type { SamplingFields } from '#engine/protocol/sampling-fields.ts';
import type { GenerationRequest, PromptImage } from '#engine/scheduler/request.ts';
import type { ServerContext } from './context.ts';

export interface GenerationWishes {
  readonly id: string;
  readonly promptIds: readonly number[];
  readonly images?: readonly PromptImage[];
  readonly maxTokens: number;
  /** -1: none; n: the drawn token's and the n best. */
  readonly logprobs: number;
  readonly promptLogprobs: number;
  /** Which of n completions: seeds must differ. */
  readonly index: number;
}

/** Throws 'invalid_request' for ids outside the vocabulary and for min_tokens over max_tokens. */
export function generationRequest(
  context: ServerContext,
  fields: SamplingFields,
  wishes: GenerationWishes,
): GenerationRequest {
  const { defaults, eosTokenIds } = context.model;
  const minTokens = fields.min_tokens ?? 0;
  if (minTokens > wishes.maxTokens) {
    throw invalid('min_tokens', `at most max_tokens, here ${wishes.maxTokens}`, minTokens);
  }
  checkIds(context, 'stop_token_ids', fields.stop_token_ids);
  checkIds(context, 'allowed_token_ids', fields.allowed_token_ids);
  checkIds(context, 'logit_bias', fields.logit_bias && [...fields.logit_bias.keys()]);
  if (fields.allowed_token_ids?.length === 0) {
    throw invalid('allowed_token_ids', 'at least one token id', fields.allowed_token_ids);
  }
  return {
    id: wishes.id,
    promptIds: Int32Array.from(wishes.promptIds),
    ...(wishes.images && wishes.images.length > 0 && { images: wishes.images }),
    maxTokens: wishes.maxTokens,
    minTokens,
    eosTokenIds: fields.ignore_eos === true ? [] : eosTokenIds,
    stopTokenIds: fields.stop_token_ids ?? [],
    sampling: {
      temperature: fields.temperature ?? defaults.temperature,
      topK: Math.max(0, fields.top_k ?? defaults.topK),
      topP: fields.top_p ?? defaults.topP,
      minP: fields.min_p ?? defaults.minP,
      repetitionPenalty: fields.repetition_penalty ?? defaults.repetitionPenalty,
      presencePenalty: fields.presence_penalty ?? 0,
      frequencyPenalty: fields.frequency_penalty ?? 0,
      seed: fields.seed === undefined ? randomSeed() : BigInt(fields.seed) + BigInt(wishes.index),
      logitBias: fields.logit_bias ?? new Map(),
      allowedTokenIds: fields.allowed_token_ids,
      badWords: (fields.bad_words ?? []).flatMap((word) => badWordSequences(context, word)),
      logprobs: wishes.logprobs,
    },
    promptLogprobs: wishes.promptLogprobs,
    priority: fields.priority ?? 0,
    cacheSalt: fields.cache_salt,
  };
}

const randomSeed = (): bigint => randomBytes(8).readBigUInt64LE();

function checkIds(context: ServerContext, path: string, ids: readonly number[] | undefined): void {
  const { vocabularySize } = context.tokenizer;
  const outside = ids?.find((id) => id >= vocabularySize);
  if (outside !== undefined) throw invalid(path, `token ids below ${vocabularySize}`, outside);
}

/**
 * The word as it is and as a word after a space, where that is made of other tokens. vLLM leaves the second out when their
 * numbers differ, so that ` rainbow` gets past a ban of `rainbow`.
 */
function badWordSequences(context: ServerContext, word: string): number[][] {
  const bare = context.tokenizer.encode(word);
  if (bare.length === 0) throw invalid('bad_words', 'words of at least one token', word);
  const spaced = context.tokenizer.encode(` ${word.trimStart()}`);
  const endsWithBare = bare.every(
    (id, index) => spaced[spaced.length - bare.length + index] === id,
  );
  return endsWithBare ? [bare] : [bare, spaced];
}
