/** POST /v1/chat/completions, streamed and not. */
import type { FastifyInstance } from 'fastify';
import { type ChatRequest, parseChatRequest } from '#engine/protocol/chat-request.ts';
import { invalid } from '#engine/protocol/fields.ts';
import {
  abortOnClose,
  checkPromptLogprobs,
  collectAll,
  streamAll,
  submitAll,
  usageOf,
} from './completion-streams.ts';
import type { ServerContext } from './context.ts';
import { generationRequest } from './generation-request.ts';
import {
  embedImages,
  type PlacedImage,
  placeImages,
  readImages,
  withImages,
} from './image-prompt.ts';
import { logprobItems, promptLogprobsField, tokenNamer } from './logprobs.ts';
import { checkLength, checkModel, encode, renderMessages, truncate } from './prompt.ts';
import { newId } from './response-run.ts';
import type { GeneratedToken, TextEvent } from './text-stream.ts';

export function registerChatCompletions(app: FastifyInstance, context: ServerContext): void {
  app.post('/v1/chat/completions', async (request, reply) => {
    const body = parseChatRequest(request.body);
    checkModel(context, body.model);
    checkPromptLogprobs(body);
    const isStream = body.stream ?? false;
    const abort = abortOnClose(reply);
    const { ids: promptIds, placed } = await promptOf(context, body);
    const wanted = body.max_completion_tokens ?? body.max_tokens;
    const maxTokens = checkLength(context, promptIds, wanted, 'messages');
    if (body.top_logprobs !== undefined && body.logprobs !== true) {
      throw invalid('top_logprobs', 'logprobs to be true beside it', body.top_logprobs);
    }
    const images = await embedImages(placed);
    const id = newId('chatcmpl');
    const requests = Array.from({ length: body.n ?? 1 }, (_, index) =>
      generationRequest(context, body, {
        id: `${id}-${index}`,
        promptIds,
        images,
        maxTokens,
        logprobs: body.logprobs === true ? (body.top_logprobs ?? 0) : -1,
        promptLogprobs: body.prompt_logprobs ?? -1,
        index,
      }),
    );
    const identity = { requestId: request.id, route: '/v1/chat/completions', stream: isStream };
    const streams = submitAll(context, requests, body, identity, abort);
    const name = tokenNamer(context.tokenizer, body.return_tokens_as_token_ids);
    const echo = echoedText(body);
    const head = { id, created: Math.floor(Date.now() / 1000), model: context.model.name };
    const logprobsOf = (tokens: readonly GeneratedToken[]) =>
      body.logprobs === true
        ? { content: logprobItems(context.tokenizer, tokens, name), refusal: null }
        : null;
    const idsOf = (tokens: readonly GeneratedToken[]) =>
      body.return_token_ids === true ? { token_ids: tokens.map(({ tokenId }) => tokenId) } : {};

    if (isStream) {
      return streamAll(context, reply, streams, abort, {
        includeUsage: body.stream_options?.include_usage ?? false,
        continuousUsage: body.stream_options?.continuous_usage_stats ?? false,
        promptTokens: promptIds.length,
        countsPrompt: (index) => index === 0,
        chunk: (choices, usage) => ({
          ...head,
          object: 'chat.completion.chunk',
          choices,
          ...(usage === undefined ? {} : { usage }),
        }),
        opening: requests.map((_, index) => ({
          index,
          delta: { role: 'assistant', content: echo },
          logprobs: null,
          finish_reason: null,
          ...(body.return_token_ids === true ? { prompt_token_ids: promptIds } : {}),
        })),
        choice: (index, event: TextEvent) => {
          if (event.type === 'delta') {
            return {
              index,
              delta: { content: event.text },
              logprobs: logprobsOf(event.tokens),
              finish_reason: null,
              ...idsOf(event.tokens),
            };
          }
          if (event.type !== 'end') return undefined;
          return {
            index,
            delta: {},
            logprobs: null,
            finish_reason: event.reason,
            stop_reason: event.stopReason,
          };
        },
      });
    }
    const collected = await collectAll(streams, abort);
    const promptLogprobs = collected[0]?.promptLogprobs;
    return {
      ...head,
      object: 'chat.completion',
      choices: collected.map(({ text, tokens, end }, index) => ({
        index,
        message: { role: 'assistant', content: echo + text, refusal: null },
        logprobs: logprobsOf(tokens),
        finish_reason: end.reason,
        stop_reason: end.stopReason,
        ...idsOf(tokens),
      })),
      usage: usageOf(
        collected.map(({ end }, index) => ({ usage: end.usage, countsPrompt: index === 0 })),
      ),
      ...(promptLogprobs === undefined
        ? {}
        : { prompt_logprobs: promptLogprobsField(promptIds, promptLogprobs, name) }),
      ...(body.return_token_ids === true ? { prompt_token_ids: promptIds } : {}),
    };
  });
}

async function promptOf(
  context: ServerContext,
  body: ChatRequest,
): Promise<{ readonly ids: readonly number[]; readonly placed: readonly PlacedImage[] }> {
  const messages = body.messages ?? [];
  if (messages.length === 0) throw invalid('messages', 'at least one message', body.messages);
  const continueFinalMessage = body.continue_final_message ?? false;
  const images = await readImages(context, messages);
  const rendered = renderMessages(context, messages, {
    addGenerationPrompt: body.add_generation_prompt ?? !continueFinalMessage,
    continueFinalMessage,
  });
  const ids = encode(context, withImages(rendered, images), 'messages', {
    addSpecialTokens: body.add_special_tokens ?? false,
    truncated: body.truncate_prompt_tokens !== undefined,
  });
  const kept = truncate(context, ids, body.truncate_prompt_tokens);
  return { ids: kept, placed: placeImages(context, rendered, kept, images, 'messages') };
}

/** With `echo` an answer that continues the last assistant message begins with it, as in vLLM. */
function echoedText(body: ChatRequest): string {
  const last = body.messages?.at(-1);
  return body.echo === true && last?.role === 'assistant' ? last.content : '';
}
