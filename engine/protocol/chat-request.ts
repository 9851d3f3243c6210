/** Body of POST /v1/chat/completions. */
import {
  boolean,
  type Field,
  harmless,
  integer,
  object,
  type Parsed,
  parseFields,
  string,
  unsupported,
} from './fields.ts';
import { parseChatMessages } from './messages.ts';
import {
  bookkeepingFields,
  MAXIMUM_TOP_LOGPROBS,
  refusedFields,
  responseFormat,
  samplingFields,
  streamOptions,
} from './sampling-fields.ts';

const TOOLS = 'tools are not called by this engine';
const TEXT_ONLY = 'the served model writes text only';

export const chatFields = {
  ...samplingFields,
  ...bookkeepingFields,
  ...refusedFields,
  model: string(256),
  messages: parseChatMessages,
  n: integer(1, 128),
  stream: boolean,
  stream_options: object(streamOptions),
  max_tokens: integer(1),
  max_completion_tokens: integer(1),
  logprobs: boolean,
  top_logprobs: integer(0, MAXIMUM_TOP_LOGPROBS),
  prompt_logprobs: integer(0, MAXIMUM_TOP_LOGPROBS),
  return_tokens_as_token_ids: boolean,
  echo: boolean,
  add_generation_prompt: boolean,
  continue_final_message: boolean,
  add_special_tokens: boolean,
  response_format: responseFormat,
  parallel_tool_calls: harmless,
  tools: unsupported(TOOLS),
  tool_choice: unsupported(TOOLS, 'none', 'auto'),
  functions: unsupported(TOOLS),
  function_call: unsupported(TOOLS, 'none', 'auto'),
  audio: unsupported(TEXT_ONLY),
  modalities: unsupported(TEXT_ONLY, ['text']),
  prediction: unsupported('predicted output is not used'),
  reasoning_effort: unsupported('the served model has no reasoning effort', 'none'),
  verbosity: unsupported('the served model has no verbosity', 'medium'),
  web_search_options: unsupported('the engine does not search the web'),
  moderation: unsupported('the engine does not moderate'),
  chat_template: unsupported('the template comes with the model'),
  chat_template_kwargs: unsupported('the template takes no variables', {}),
  documents: unsupported('the template takes no documents'),
} as const satisfies Record<string, Field<unknown>>;

export type ChatRequest = Parsed<typeof chatFields>;

export const parseChatRequest = (body: unknown): ChatRequest => parseFields(chatFields, body);
