/** Texts and messages to prompt ids, within the model's length. */

import { NvlmError } from '#engine/protocol/errors.ts';
import { invalid } from '#engine/protocol/fields.ts';
import type { TextMessage } from '#engine/protocol/messages.ts';
import type { ServerContext } from './context.ts';

/** Throws 'model_not_found' unless the name is absent or the served model's. */
export function checkModel(context: ServerContext, name: string | undefined): void {
  const { model } = context;
  if (name === undefined || name === model.name || model.aliases.includes(name)) return;
  throw new NvlmError(
    'model_not_found',
    `the model \`${name}\` is not served here; this server serves \`${model.name}\``,
    { param: 'model' },
  );
}

/** Bytes of the longest token: a text of more than this times the context cannot fit, so it need not be tokenised to know. */
const longestTokenBytes = new WeakMap<object, number>();

function maximumPromptBytes(context: ServerContext): number {
  const { tokenizer, engine } = context;
  let longest = longestTokenBytes.get(tokenizer);
  if (longest === undefined) {
    longest = 1;
    for (let id = 0; id < tokenizer.vocabularySize; id++) {
      longest = Math.max(longest, tokenizer.tokenBytes(id).length);
    }
    longestTokenBytes.set(tokenizer, longest);
  }
  return longest * engine.maxModelLength;
}

/** Refuses a text that cannot fit whatever its tokens are, before the tokenizer blocks the event loop with it. */
export function encode(
  context: ServerContext,
  text: string,
  path: string,
  options: { readonly addSpecialTokens: boolean; readonly truncated: boolean },
): number[] {
  if (!options.truncated && Buffer.byteLength(text) > maximumPromptBytes(context)) {
    throw new NvlmError(
      'context_length_exceeded',
      `${path}: ${text.length} characters cannot fit the context of ${context.engine.maxModelLength} tokens`,
      { param: path },
    );
  }
  return context.tokenizer.encode(text, { addSpecialTokens: options.addSpecialTokens });
}

/** Keeps the last tokens, as vLLM does; -1 means as many as the model takes. */
export function truncate(
  context: ServerContext,
  ids: readonly number[],
  limit: number | undefined,
): readonly number[] {
  if (limit === undefined) return ids;
  if (limit === 0)
    throw invalid('truncate_prompt_tokens', 'a whole number of at least 1, or -1', 0);
  const kept = limit === -1 ? context.engine.maxModelLength - 1 : limit;
  return ids.length > kept ? ids.slice(ids.length - kept) : ids;
}

/**
 * The tokens this prompt may still produce: `wanted`, or whatever the context leaves. Throws 'invalid_request' for an empty
 * prompt or an id outside the vocabulary, 'context_length_exceeded' when both do not fit.
 */
export function checkLength(
  context: ServerContext,
  ids: readonly number[],
  wanted: number | undefined,
  path: string,
): number {
  const { maxModelLength } = context.engine;
  if (ids.length === 0) throw invalid(path, 'a prompt of at least one token', ids);
  const outside = ids.findIndex((id) => id >= context.tokenizer.vocabularySize);
  if (outside >= 0) {
    const expected = `a token id below ${context.tokenizer.vocabularySize}`;
    throw invalid(`${path}[${outside}]`, expected, ids[outside]);
  }
  const room = maxModelLength - ids.length;
  if (room < (wanted ?? 1)) {
    throw new NvlmError(
      'context_length_exceeded',
      `the prompt has ${ids.length} tokens and ${wanted ?? 'at least 1'} more were asked for, together over the ` +
        `model's context of ${maxModelLength} tokens; shorten the prompt or ask for fewer tokens`,
      { param: path },
    );
  }
  return wanted ?? room;
}

export interface TemplateOptions {
  readonly addGenerationPrompt: boolean;
  readonly continueFinalMessage: boolean;
}

/** Throws 'template_error' when the template refuses, 'invalid_request' when both options contradict. */
export function renderMessages(
  context: ServerContext,
  messages: readonly TextMessage[],
  options: TemplateOptions,
): string {
  if (options.addGenerationPrompt && options.continueFinalMessage) {
    throw invalid('continue_final_message', 'false while add_generation_prompt is true', true);
  }
  if (options.continueFinalMessage && messages.at(-1)?.role !== 'assistant') {
    throw invalid('messages', 'an assistant message at the end to continue', messages.at(-1)?.role);
  }
  // Templates may look for fields that a plain message does not have.
  const plain = messages.map(({ role, content, name }) =>
    name === undefined ? { role, content } : { role, content, name },
  );
  return context.chatTemplate.render(plain, options);
}
