/** Body of POST /v1/responses, which is also the `response.create` frame of the socket. */
import {
  boolean,
  type Field,
  harmless,
  integer,
  invalid,
  isObject,
  listOf,
  object,
  type Parsed,
  parseFields,
  string,
  unsupported,
  unsupportedError,
} from './fields.ts';
import { readContent, roleOf, type TextMessage } from './messages.ts';
import {
  bookkeepingFields,
  MAXIMUM_TOP_LOGPROBS,
  refusedFields,
  responseFormat,
  samplingFields,
} from './sampling-fields.ts';

/** A text is one user message; a list holds messages, also those this server returned as output. */
const input: Field<readonly TextMessage[]> = (value, path) => {
  if (typeof value === 'string') {
    if (value === '') throw invalid(path, 'a text that is not empty', value);
    return [{ role: 'user', content: value }];
  }
  if (!Array.isArray(value)) throw invalid(path, 'a text or a list of messages', value);
  return value.map((item, index) => inputMessage(item, `${path}[${index}]`));
};

function inputMessage(item: unknown, path: string): TextMessage {
  if (!isObject(item)) throw invalid(path, 'a message', item);
  const type = item.type ?? 'message';
  if (type !== 'message') {
    throw unsupportedError(`${path}.type`, `items of type ${String(type).slice(0, 60)}`);
  }
  return {
    role: roleOf(item.role, `${path}.role`),
    ...readContent(item.content, `${path}.content`),
  };
}

const LOGPROBS = 'message.output_text.logprobs';

/** Only the log-probabilities can be included; whatever concerns tools and images has nothing to add here. */
const include: Field<{ readonly logprobs: boolean }> = (value, path) => {
  const names = listOf(string(100), 32)(value, path);
  return { logprobs: names.includes(LOGPROBS) };
};

/** Up to 16 pairs of short strings, returned as they came. */
const metadata: Field<Readonly<Record<string, string>>> = (value, path) => {
  if (!isObject(value)) throw invalid(path, 'an object of strings', value);
  const entries = Object.entries(value);
  if (entries.length > 16) throw invalid(path, 'at most 16 pairs', value);
  for (const [name, text] of entries) {
    if (name.length > 64) throw invalid(path, 'names of at most 64 characters', name);
    string(512)(text, `${path}.${name}`);
  }
  return value as Record<string, string>;
};

/** Clients send an empty or all-null object when nothing was chosen. */
const reasoning: Field<undefined> = (value, path) => {
  const asksForNothing =
    isObject(value) && Object.values(value).every((choice) => choice === null || choice === 'none');
  if (!asksForNothing) throw unsupportedError(path, 'the served model has no reasoning effort');
  return undefined;
};

const TOOLS = 'tools are not called by this engine';

export const responsesFields = {
  ...samplingFields,
  ...bookkeepingFields,
  ...refusedFields,
  metadata,
  store: boolean,
  model: string(256),
  input,
  instructions: string(),
  previous_response_id: string(128),
  max_output_tokens: integer(1),
  stream: boolean,
  stream_options: object({ include_obfuscation: boolean }),
  background: boolean,
  include,
  top_logprobs: integer(0, MAXIMUM_TOP_LOGPROBS),
  text: object({
    format: responseFormat,
    verbosity: unsupported('the served model has no verbosity', 'medium'),
  }),
  parallel_tool_calls: harmless,
  max_tool_calls: harmless,
  truncation: unsupported('the input is never cut silently', 'disabled', 'auto'),
  tools: unsupported(TOOLS),
  tool_choice: unsupported(TOOLS, 'none', 'auto'),
  reasoning,
  conversation: unsupported('use previous_response_id'),
  prompt: unsupported('stored prompt templates are not kept here'),
  context_management: unsupported('the context is not compacted'),
  moderation: unsupported('the engine does not moderate'),
  access_programs: harmless,
  image: unsupported('pictures are content parts of type input_image'),
} as const satisfies Record<string, Field<unknown>>;

export type ResponsesRequest = Parsed<typeof responsesFields>;

export const parseResponsesRequest = (body: unknown): ResponsesRequest =>
  parseFields(responsesFields, body);
