/** Messages to a prompt, as the checkpoint's own Jinja template writes them. */
import { Template } from '@huggingface/jinja';
import { NvlmError } from '#engine/protocol/errors.ts';
import type { ChatMessage, ChatTemplate } from './tokenizer.ts';

/** What a template needs of a checkpoint. */
export interface ChatTemplateSource {
  /** Jinja source, undefined when the checkpoint has none. */
  readonly chatTemplate: string | undefined;
  readonly bosToken: string | undefined;
  readonly eosToken: string | undefined;
}

/**
 * `render` throws NvlmError 'template_error': quoting what the template raised, or saying that the checkpoint has none. A template
 * that cannot be parsed is refused here, with the same code, before any request comes. `strftime_now` reads the machine's clock.
 */
export function createChatTemplate(source: ChatTemplateSource): ChatTemplate {
  if (source.chatTemplate === undefined) return { render: refuseToRender };
  const template = parse(source.chatTemplate);
  const specials = { bos_token: source.bosToken ?? '', eos_token: source.eosToken ?? '' };
  const run = (messages: readonly ChatMessage[], addGenerationPrompt: boolean): string => {
    try {
      return template.render({
        messages,
        add_generation_prompt: addGenerationPrompt,
        ...specials,
        tools: null,
        documents: null,
      });
    } catch (cause) {
      throw templateError(
        `the chat template of the model refused the messages: ${reasonOf(cause)}`,
        cause,
      );
    }
  };
  return {
    render: (messages, { addGenerationPrompt, continueFinalMessage = false }) => {
      if (!continueFinalMessage) return run(messages, addGenerationPrompt);
      const final = messages.at(-1);
      if (final === undefined) throw templateError('there is no final message to continue');
      return cutAfterFinalMessage(run(messages, false), final.content);
    },
  };
}

function refuseToRender(): never {
  throw templateError(
    'the model has no chat template, so it takes no messages; name one with --chat-template, or send a plain prompt to /v1/completions',
  );
}

function parse(chatTemplate: string): Template {
  try {
    return new Template(chatTemplate);
  } catch (cause) {
    throw templateError(
      `the chat template cannot be read: ${reasonOf(cause)}; name a valid one with --chat-template`,
      cause,
    );
  }
}

/** The prompt up to the end of the final message, so that the model goes on writing it. */
function cutAfterFinalMessage(prompt: string, content: string): string {
  // Templates may trim what they are given.
  for (const wanted of [content, content.trimEnd(), content.trim()]) {
    const at = prompt.lastIndexOf(wanted);
    if (at >= 0) return prompt.slice(0, at + wanted.length);
  }
  throw templateError(
    'the chat template rewrites the final message, so it cannot be continued; leave continue_final_message out',
  );
}

function reasonOf(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

function templateError(message: string, cause?: unknown): NvlmError {
  return new NvlmError('template_error', message, { param: 'messages', cause });
}
