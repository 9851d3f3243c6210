/** Refuses what would break a step: a step is shared, and one request's bad id or NaN would fail all the others in it. */
import { NvlmError } from '#engine/protocol/errors.ts';
import type { GenerationRequest } from './request.ts';

/** Below it a factor would be lost in 32-bit floats. */
const SMALLEST_FACTOR = 1e-30;
const LARGEST_COUNT = 2 ** 31 - 1;

/** Throws NvlmError 'invalid_request' that names the wire field. @param vocabularyRows ids must be below it. */
export function validateRequest(request: GenerationRequest, vocabularyRows: number): void {
  const { sampling } = request;
  const isId = (id: number): boolean => Number.isInteger(id) && id >= 0 && id < vocabularyRows;
  const ids = (param: string, list: Iterable<number>): void => {
    for (const id of list) {
      if (!isId(id)) {
        refuse(param, `token ids are integers from 0 to ${vocabularyRows - 1}, got ${id}`);
      }
    }
  };
  const number = (param: string, value: number, isValid: boolean, expected: string): void => {
    if (!isValid || Number.isNaN(value)) refuse(param, `expected ${expected}, got ${value}`);
  };
  const count = (param: string, value: number, least: number, most = LARGEST_COUNT): void =>
    number(
      param,
      value,
      Number.isInteger(value) && value >= least && value <= most,
      `an integer from ${least} to ${most}`,
    );

  if (request.promptIds.length === 0)
    refuse('prompt', 'expected at least one token, got an empty prompt');
  ids('prompt', request.promptIds);
  count('max_tokens', request.maxTokens, 0);
  count('min_tokens', request.minTokens, 0);
  number('priority', request.priority, Number.isFinite(request.priority), 'a finite number');
  ids('eos_token_id', request.eosTokenIds);
  ids('stop_token_ids', request.stopTokenIds);
  ids('logit_bias', sampling.logitBias.keys());
  for (const value of sampling.logitBias.values()) {
    number(
      'logit_bias',
      value,
      Math.fround(value) < Number.POSITIVE_INFINITY,
      'a number below infinity',
    );
  }
  for (const word of sampling.badWords) ids('bad_words', word);
  // Steps carry 32-bit floats: what is infinite there is infinite here.
  const finite = (value: number): boolean => Number.isFinite(Math.fround(value));
  const { temperature, topP, minP, repetitionPenalty } = sampling;
  number(
    'temperature',
    temperature,
    finite(temperature) && temperature >= 0,
    'a number of at least 0',
  );
  number('top_p', topP, topP > 0 && topP <= 1, 'a number above 0 and at most 1');
  number('min_p', minP, minP >= 0 && minP <= 1, 'a number from 0 to 1');
  number(
    'repetition_penalty',
    repetitionPenalty,
    finite(repetitionPenalty) && repetitionPenalty >= SMALLEST_FACTOR,
    `a number of at least ${SMALLEST_FACTOR}`,
  );
  for (const param of ['presencePenalty', 'frequencyPenalty'] as const) {
    number(param.replace('P', '_p'), sampling[param], finite(sampling[param]), 'a finite number');
  }
  count('top_k', sampling.topK, 0);
  count('logprobs', sampling.logprobs, -1, vocabularyRows);
  count('prompt_logprobs', request.promptLogprobs, -1, vocabularyRows);
  validateAllowedIds(request, ids);
}

function validateAllowedIds(
  { sampling, minTokens, eosTokenIds, stopTokenIds }: GenerationRequest,
  ids: (param: string, list: Iterable<number>) => void,
): void {
  const allowed = sampling.allowedTokenIds;
  if (allowed === undefined) return;
  ids('allowed_token_ids', allowed);
  const ends = minTokens > 0 ? [...eosTokenIds, ...stopTokenIds] : [];
  if (allowed.every((id) => ends.includes(id))) {
    refuse(
      'allowed_token_ids',
      'expected at least one id that may be drawn (ids that end the output are banned until min_tokens are out), got none',
    );
  }
}

function refuse(param: string, message: string): never {
  throw new NvlmError('invalid_request', `${param}: ${message}`, { param });
}
