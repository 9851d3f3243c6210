/** Body of POST /v1/completions. */
import {
  boolean,
  type Field,
  integer,
  invalid,
  object,
  type Parsed,
  parseFields,
  string,
  unsupported,
} from './fields.ts';
import {
  bookkeepingFields,
  MAXIMUM_TOP_LOGPROBS,
  refusedFields,
  responseFormat,
  samplingFields,
  streamOptions,
} from './sampling-fields.ts';

export type Prompt = string | readonly number[];

const MAXIMUM_PROMPTS = 128;

/** A text, token ids, a list of texts or a list of token id lists. */
const prompts: Field<readonly Prompt[]> = (value, path) => {
  if (typeof value === 'string') return [value];
  if (!Array.isArray(value)) throw invalid(path, 'a text, token ids, or a list of either', value);
  if (value.length === 0) throw invalid(path, 'a prompt that is not empty', value);
  if (value.every((item) => typeof item === 'number')) return [tokenIds(value, path)];
  if (value.length > MAXIMUM_PROMPTS) {
    throw invalid(path, `at most ${MAXIMUM_PROMPTS} prompts`, value);
  }
  return value.map((item, index) => {
    if (typeof item === 'string') return item;
    return tokenIds(item, `${path}[${index}]`);
  });
};

const isTokenId = (value: unknown): value is number =>
  Number.isInteger(value) && (value as number) >= 0 && (value as number) < 2 ** 31;

function tokenIds(value: unknown, path: string): readonly number[] {
  if (!Array.isArray(value)) throw invalid(path, 'a text or a list of token ids', value);
  const wrong = value.findIndex((id) => !isTokenId(id));
  if (wrong >= 0) throw invalid(`${path}[${wrong}]`, 'a token id', value[wrong]);
  return value as number[];
}

export const completionFields = {
  ...samplingFields,
  ...bookkeepingFields,
  ...refusedFields,
  model: string(256),
  prompt: prompts,
  n: integer(1, 128),
  stream: boolean,
  stream_options: object(streamOptions),
  max_tokens: integer(0),
  echo: boolean,
  logprobs: integer(0, MAXIMUM_TOP_LOGPROBS),
  prompt_logprobs: integer(0, MAXIMUM_TOP_LOGPROBS),
  return_tokens_as_token_ids: boolean,
  add_special_tokens: boolean,
  response_format: responseFormat,
  best_of: unsupported('only n completions can be asked for', 1),
  suffix: unsupported('the served model does not fill in the middle', ''),
  prompt_embeds: unsupported('prompts are text or token ids'),
} as const satisfies Record<string, Field<unknown>>;

export type CompletionRequest = Parsed<typeof completionFields>;

export function parseCompletionRequest(body: unknown): CompletionRequest {
  const request = parseFields(completionFields, body);
  // Scoring clients ask for the prompt's log-probabilities alone with echo and 0 tokens.
  if (request.max_tokens === 0 && request.echo !== true) {
    throw invalid('max_tokens', 'a whole number of at least 1 (0 only with echo)', 0);
  }
  return request;
}
