/** The generation fields that all wires share, under vLLM's and OpenAI's names. */
import {
  boolean,
  type Field,
  harmless,
  integer,
  invalid,
  isObject,
  listOf,
  number,
  oneOf,
  type Parsed,
  string,
  unsupported,
} from './fields.ts';

export const MAXIMUM_STOP_STRINGS = 64;
export const MAXIMUM_STOP_LENGTH = 1024;
export const MAXIMUM_TOP_LOGPROBS = 20;
const MAXIMUM_BIASES = 1024;
const MAXIMUM_BAD_WORDS = 64;
const MAXIMUM_TOKEN_LIST = 1 << 18;

const tokenId = integer(0, 2 ** 31 - 1);

/** One string or a list of them, each not empty. */
const stop: Field<readonly string[]> = (value, path) => {
  const one: Field<string> = (element, elementPath) => {
    const text = string(MAXIMUM_STOP_LENGTH)(element, elementPath);
    if (text === '') throw invalid(elementPath, 'a string that is not empty', element);
    return text;
  };
  return typeof value === 'string'
    ? [one(value, path)]
    : listOf(one, MAXIMUM_STOP_STRINGS)(value, path);
};

/** {"token id": bias from -100 to 100} */
const logitBias: Field<ReadonlyMap<number, number>> = (value, path) => {
  if (!isObject(value)) throw invalid(path, 'an object of token id to bias', value);
  const entries = Object.entries(value);
  if (entries.length > MAXIMUM_BIASES) throw invalid(path, `at most ${MAXIMUM_BIASES} ids`, value);
  return new Map(
    entries.map(([name, bias]) => {
      if (!/^\d{1,9}$/.test(name)) throw invalid(path, 'token ids as names', name);
      return [Number(name), number({ min: -100, max: 100 })(bias, `${path}.${name}`)] as const;
    }),
  );
};

/** OpenAI's 64-bit seeds come as JSON numbers: whole numbers up to 2^53 - 1 are exact. */
export const samplingFields = {
  temperature: number({ min: 0, max: 2 }),
  top_p: number({ min: 1e-6, max: 1 }),
  // vLLM writes "off" as -1 in old clients and 0 in new ones.
  top_k: integer(-1, 2 ** 31 - 1),
  min_p: number({ min: 0, max: 1 }),
  repetition_penalty: number({ min: 0.01, max: 100 }),
  presence_penalty: number({ min: -2, max: 2 }),
  frequency_penalty: number({ min: -2, max: 2 }),
  seed: integer(0),
  stop,
  stop_token_ids: listOf(tokenId, 1024),
  include_stop_str_in_output: boolean,
  ignore_eos: boolean,
  min_tokens: integer(0),
  skip_special_tokens: boolean,
  spaces_between_special_tokens: harmless,
  logit_bias: logitBias,
  allowed_token_ids: listOf(tokenId, MAXIMUM_TOKEN_LIST),
  bad_words: listOf(string(256), MAXIMUM_BAD_WORDS),
  truncate_prompt_tokens: integer(-1, 2 ** 31 - 1),
  cache_salt: string(256),
  priority: integer(-(2 ** 31), 2 ** 31 - 1),
  return_token_ids: boolean,
} as const;

export type SamplingFields = Parsed<typeof samplingFields>;

/** Sent by official clients as a matter of course; they steer OpenAI's own bookkeeping. */
export const bookkeepingFields = {
  user: harmless,
  metadata: harmless,
  store: harmless,
  service_tier: harmless,
  safety_identifier: harmless,
  prompt_cache_key: harmless,
  prompt_cache_options: harmless,
  prompt_cache_retention: harmless,
  request_id: harmless,
} as const;

const BEAM = 'beam search is not done by this engine';

/** Known to other engines, refused here: a silent difference in the output would be worse. */
export const refusedFields = {
  use_beam_search: unsupported(BEAM),
  length_penalty: unsupported(BEAM, 1),
  logits_processors: unsupported('logits processors cannot be sent over the wire'),
  structured_outputs: unsupported('output cannot be bound to a grammar'),
  guided_json: unsupported('output cannot be bound to a grammar'),
  guided_regex: unsupported('output cannot be bound to a grammar'),
  guided_choice: unsupported('output cannot be bound to a grammar'),
  guided_grammar: unsupported('output cannot be bound to a grammar'),
  kv_transfer_params: unsupported('caches are not moved between engines'),
  mm_processor_kwargs: unsupported('the served model reads text only'),
} as const;

export const streamOptions = {
  include_usage: boolean,
  continuous_usage_stats: boolean,
  include_obfuscation: boolean,
} as const;

/** Only plain text output is done. */
export const responseFormat: Field<undefined> = (value, path) => {
  const type = isObject(value) ? value.type : value;
  if (type === 'text') return undefined;
  if (type === 'json_object' || type === 'json_schema') {
    return unsupported('only {"type": "text"} output is done')(value, path);
  }
  oneOf('text')(type, `${path}.type`);
  return undefined;
};
