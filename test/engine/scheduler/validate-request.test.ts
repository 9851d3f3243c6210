import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fakeEngine, type RequestOptions, requestOf, VOCABULARY } from './harness.ts';

const refused: readonly (readonly [string, Partial<RequestOptions>])[] = [
  ['prompt', { promptIds: [] }],
  ['prompt', { promptIds: [VOCABULARY] }],
  ['prompt', { promptIds: [-1] }],
  ['max_tokens', { maxTokens: -1 }],
  ['max_tokens', { maxTokens: 1.5 }],
  ['max_tokens', { maxTokens: Number.NaN }],
  ['min_tokens', { minTokens: Number.POSITIVE_INFINITY }],
  ['priority', { priority: Number.NaN }],
  ['stop_token_ids', { stopTokenIds: [VOCABULARY] }],
  ['temperature', { sampling: { temperature: -0.1 } }],
  ['temperature', { sampling: { temperature: Number.NaN } }],
  ['temperature', { sampling: { temperature: 1e300 } }],
  ['top_p', { sampling: { topP: 0 } }],
  ['top_p', { sampling: { topP: Number.NaN } }],
  ['min_p', { sampling: { minP: 1.1 } }],
  ['top_k', { sampling: { topK: -1 } }],
  ['repetition_penalty', { sampling: { repetitionPenalty: 0 } }],
  ['presence_penalty', { sampling: { presencePenalty: Number.NaN } }],
  ['frequency_penalty', { sampling: { frequencyPenalty: Number.POSITIVE_INFINITY } }],
  ['logit_bias', { sampling: { logitBias: new Map([[1, Number.NaN]]) } }],
  ['logit_bias', { sampling: { logitBias: new Map([[VOCABULARY, 1]]) } }],
  ['logprobs', { sampling: { logprobs: VOCABULARY + 1 } }],
  ['prompt_logprobs', { promptLogprobs: -2 }],
  ['bad_words', { sampling: { badWords: [[1, VOCABULARY]] } }],
  ['allowed_token_ids', { sampling: { allowedTokenIds: [] } }],
  ['allowed_token_ids', { minTokens: 1, eosTokenIds: [3], sampling: { allowedTokenIds: [3] } }],
];

for (const [param, wrong] of refused) {
  const shown = JSON.stringify(wrong, (_, value) =>
    value instanceof Map ? [...value] : typeof value === 'number' ? String(value) : value,
  );
  test(`a request with ${shown} is refused by the name of ${param}, and nothing is queued`, () => {
    const { engine } = fakeEngine();
    assert.throws(
      () => engine.submit(requestOf({ promptIds: [1], ...wrong }), new AbortController().signal),
      { code: 'invalid_request', param },
    );
    assert.equal(engine.stats().waiting, 0);
  });
}
