/** Conversation of a Responses request: what came before, what is new, and the ids of both. */
import { NvlmError } from '#engine/protocol/errors.ts';
import { invalid } from '#engine/protocol/fields.ts';
import type { TextMessage } from '#engine/protocol/messages.ts';
import type { ResponsesRequest } from '#engine/protocol/responses-request.ts';
import type { PromptImage } from '#engine/scheduler/request.ts';
import type { ServerContext } from './context.ts';
import { embedImages, placeImages, readImages, withImages } from './image-prompt.ts';
import { checkLength, encode, renderMessages, truncate } from './prompt.ts';

/** What a finished response leaves for the next one. */
export interface Conversation {
  /** Without instructions: those hold for one response only. */
  readonly messages: readonly TextMessage[];
  /** Prompt and output as the model saw them; the ids decode to exactly this text. */
  readonly text: string;
  readonly ids: readonly number[];
}

export interface ResponsePrompt {
  readonly inputMessages: readonly TextMessage[];
  /** Earlier messages and the new ones. */
  readonly messages: readonly TextMessage[];
  readonly text: string;
  readonly ids: readonly number[];
  readonly images: readonly PromptImage[];
  readonly maxTokens: number;
}

/**
 * Renders the whole conversation. When the text begins with what the previous response already saw and said, its ids are
 * reused and only the rest is tokenised, so that the cached prefix matches whatever ids the model drew.
 */
export async function responsePrompt(
  context: ServerContext,
  request: ResponsesRequest,
  previous: Conversation | undefined,
  generate: boolean,
): Promise<ResponsePrompt> {
  const inputMessages = request.input ?? [];
  const messages = [...(previous?.messages ?? []), ...inputMessages];
  if (messages.length === 0)
    throw invalid('input', 'a text or at least one message', request.input);
  const instructions = request.instructions;
  const spoken =
    instructions === undefined
      ? messages
      : [{ role: 'system', content: instructions }, ...messages];
  const read = await readImages(context, messages);
  const rendered = renderMessages(context, spoken, {
    addGenerationPrompt: generate,
    continueFinalMessage: false,
  });
  const text = withImages(rendered, read);
  const truncated = request.truncate_prompt_tokens !== undefined;
  const options = { addSpecialTokens: false, truncated };
  const whole =
    previous !== undefined && previous.text !== '' && text.startsWith(previous.text)
      ? [...previous.ids, ...encode(context, text.slice(previous.text.length), 'input', options)]
      : encode(context, text, 'input', options);
  const ids = truncate(context, whole, request.truncate_prompt_tokens);
  const room = checkLength(context, ids, generate ? request.max_output_tokens : undefined, 'input');
  const images = await embedImages(placeImages(context, rendered, ids, read, 'input'));
  return { inputMessages, messages, text, ids, images, maxTokens: generate ? room : 0 };
}

/** Throws 'response_not_found'. */
export function missingResponse(id: string, param: string): NvlmError {
  return new NvlmError(
    'response_not_found',
    `no response \`${id.slice(0, 128)}\` is in memory; it may have been deleted or evicted: send the whole conversation again`,
    { param },
  );
}
