/** What the two completion interfaces share: several generations of one request, collected or streamed side by side. */
import type { FastifyReply } from 'fastify';
import { unsupportedError } from '#engine/protocol/fields.ts';
import type { SamplingFields } from '#engine/protocol/sampling-fields.ts';
import type {
  GenerationRequest,
  GenerationUsage,
  TokenLogprobs,
} from '#engine/scheduler/request.ts';
import type { RequestIdentity, ServerContext } from './context.ts';
import { asNvlmError, errorBody } from './http-errors.ts';
import { ownHeaders } from './responses.ts';
import { SseWriter } from './sse.ts';
import {
  type GeneratedToken,
  type GenerationEnd,
  streamText,
  type TextEvent,
} from './text-stream.ts';

export type TextStream = AsyncGenerator<TextEvent, void>;

/** Submits all or none: when one is refused the others are aborted and its error is thrown. */
export function submitAll(
  context: ServerContext,
  requests: readonly GenerationRequest[],
  fields: SamplingFields,
  identity: RequestIdentity,
  abort: AbortController,
): TextStream[] {
  context.metrics.countCompletions(requests.length);
  try {
    return requests.map((request) => streamText(context, request, fields, identity, abort.signal));
  } catch (error) {
    abort.abort();
    throw error;
  }
}

/** A stream has no place for the log-probabilities of the prompt: refused there, as by vLLM. */
export function checkPromptLogprobs(body: {
  readonly stream: boolean | undefined;
  readonly prompt_logprobs: number | undefined;
}): void {
  if (body.stream === true && body.prompt_logprobs !== undefined) {
    throw unsupportedError('prompt_logprobs', 'a stream does not carry them');
  }
}

/** Aborts when the client goes before the answer is whole. */
export function abortOnClose(reply: FastifyReply): AbortController {
  const abort = new AbortController();
  reply.raw.once('close', () => {
    if (!reply.raw.writableFinished) abort.abort();
  });
  return abort;
}

export interface CollectedText {
  readonly text: string;
  readonly tokens: readonly GeneratedToken[];
  readonly promptLogprobs: readonly (TokenLogprobs | null)[] | undefined;
  readonly end: GenerationEnd;
}

/** Reads one stream to its end. Throws the NvlmError it ended with. */
export async function collectText(stream: TextStream): Promise<CollectedText> {
  let text = '';
  const tokens: GeneratedToken[] = [];
  let promptLogprobs: readonly (TokenLogprobs | null)[] | undefined;
  for await (const event of stream) {
    if (event.type === 'delta') {
      text += event.text;
      tokens.push(...event.tokens);
    } else if (event.type === 'promptLogprobs') promptLogprobs = event.logprobs;
    else if (event.type === 'error') throw event.error;
    else if (event.type === 'end') return { text, tokens, promptLogprobs, end: event };
  }
  throw new Error('a text stream ended without a terminal event');
}

/** Collects all; when one fails the others are aborted. */
export async function collectAll(
  streams: readonly TextStream[],
  abort: AbortController,
): Promise<CollectedText[]> {
  try {
    return await Promise.all(streams.map(collectText));
  } catch (error) {
    abort.abort();
    throw error;
  }
}

export interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
  /** Absent while a stream runs: the engine tells at the end. */
  readonly prompt_tokens_details?: { readonly cached_tokens: number };
}

/** The usage of a request: each prompt counted once, whatever `n`. */
export function usageOf(
  parts: readonly { readonly usage: GenerationUsage; readonly countsPrompt: boolean }[],
): Usage {
  const sum = (of: (part: (typeof parts)[number]) => number) =>
    parts.reduce((total, part) => total + of(part), 0);
  const prompt = sum(({ usage, countsPrompt }) => (countsPrompt ? usage.promptTokens : 0));
  const completion = sum(({ usage }) => usage.generatedTokens);
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: {
      cached_tokens: sum(({ usage, countsPrompt }) => (countsPrompt ? usage.cachedTokens : 0)),
    },
  };
}

export interface ChunkOptions {
  readonly includeUsage: boolean;
  readonly continuousUsage: boolean;
  /** A chunk around choices; `usage` undefined leaves the field out. */
  readonly chunk: (choices: readonly unknown[], usage: Usage | null | undefined) => unknown;
  /** First chunks, before any token. */
  readonly opening: readonly unknown[];
  /** The choice of one event, or undefined when it says nothing to the client. */
  readonly choice: (index: number, event: TextEvent) => unknown;
  readonly promptTokens: number;
  readonly countsPrompt: (index: number) => boolean;
}

/** Streams all generations into one SSE body, in the order in which their tokens come. */
export async function streamAll(
  context: ServerContext,
  reply: FastifyReply,
  streams: readonly TextStream[],
  abort: AbortController,
  options: ChunkOptions,
): Promise<FastifyReply> {
  reply.hijack();
  const writer = new SseWriter(reply.raw, ownHeaders(reply), context.options, false);
  const ends: { usage: GenerationUsage; countsPrompt: boolean }[] = [];
  let generated = 0;
  const runningUsage = (): Usage => ({
    prompt_tokens: options.promptTokens,
    completion_tokens: generated,
    total_tokens: options.promptTokens + generated,
  });
  const write = async (choices: readonly unknown[]): Promise<void> => {
    const usage = options.continuousUsage
      ? runningUsage()
      : options.includeUsage
        ? null
        : undefined;
    if (!writer.write(JSON.stringify(options.chunk(choices, usage)))) await writer.drained();
  };
  const follow = async (stream: TextStream, index: number): Promise<void> => {
    for await (const event of stream) {
      if (event.type === 'error') throw event.error;
      if (event.type === 'delta') generated += event.tokens.length;
      if (event.type === 'end') {
        ends.push({ usage: event.usage, countsPrompt: options.countsPrompt(index) });
      }
      const choice = options.choice(index, event);
      if (choice !== undefined) await write([choice]);
    }
  };
  try {
    if (options.opening.length > 0) await write(options.opening);
    await Promise.all(streams.map(follow));
    if (options.includeUsage) writer.write(JSON.stringify(options.chunk([], usageOf(ends))));
    writer.end('[DONE]');
  } catch (thrown) {
    const error = asNvlmError(thrown);
    abort.abort();
    context.metrics.countError(error.code);
    writer.cut(JSON.stringify({ error: errorBody(error) }));
  }
  return reply;
}
