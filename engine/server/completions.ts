/** POST /v1/completions: prompts as text or token ids, several at once, with echo and log-probabilities. */
import type { FastifyInstance } from 'fastify';
import {
  type CompletionRequest,
  parseCompletionRequest,
} from '#engine/protocol/completion-request.ts';
import { invalid } from '#engine/protocol/fields.ts';
import {
  abortOnClose,
  type CollectedText,
  checkPromptLogprobs,
  collectAll,
  streamAll,
  submitAll,
  usageOf,
} from './completion-streams.ts';
import type { ServerContext } from './context.ts';
import { generationRequest } from './generation-request.ts';
import { completionLogprobs, promptLogprobsField, tokenNamer } from './logprobs.ts';
import { checkLength, checkModel, encode, truncate } from './prompt.ts';
import { newId } from './response-run.ts';

/** OpenAI's default of this old interface. */
const DEFAULT_MAX_TOKENS = 16;

interface PreparedPrompt {
  readonly ids: readonly number[];
  readonly maxTokens: number;
}

export function registerCompletions(app: FastifyInstance, context: ServerContext): void {
  const { tokenizer } = context;
  app.post('/v1/completions', async (request, reply) => {
    const body = parseCompletionRequest(request.body);
    checkModel(context, body.model);
    checkPromptLogprobs(body);
    const isStream = body.stream ?? false;
    const prompts = preparePrompts(context, body);
    const n = body.n ?? 1;
    const { maxSequencesPerRequest } = context.options;
    if (prompts.length * n > maxSequencesPerRequest) {
      throw invalid(
        'n',
        `prompts times n of at most ${maxSequencesPerRequest}`,
        prompts.length * n,
      );
    }
    const id = newId('cmpl');
    const echo = body.echo ?? false;
    const requests = prompts.flatMap(({ ids, maxTokens }, prompt) =>
      Array.from({ length: n }, (_, i) =>
        generationRequest(context, body, {
          id: `${id}-${prompt * n + i}`,
          promptIds: ids,
          maxTokens,
          logprobs: body.logprobs ?? -1,
          promptLogprobs: body.prompt_logprobs ?? (echo ? (body.logprobs ?? -1) : -1),
          index: i,
        }),
      ),
    );
    const promptOf = (index: number) => (prompts[Math.floor(index / n)] as PreparedPrompt).ids;
    const echoed = prompts.map(({ ids }) => (echo ? tokenizer.decode(ids) : ''));
    const echoOf = (index: number) => echoed[Math.floor(index / n)] as string;
    const abort = abortOnClose(reply);
    const identity = { requestId: request.id, route: '/v1/completions', stream: isStream };
    const streams = submitAll(context, requests, body, identity, abort);
    const name = tokenNamer(tokenizer, body.return_tokens_as_token_ids);
    const head = {
      id,
      object: 'text_completion',
      created: Math.floor(Date.now() / 1000),
      model: context.model.name,
    };

    if (isStream) {
      const offsets = requests.map((_, index) => echoOf(index).length);
      return streamAll(context, reply, streams, abort, {
        includeUsage: body.stream_options?.include_usage ?? false,
        continuousUsage: body.stream_options?.continuous_usage_stats ?? false,
        promptTokens: prompts.reduce((sum, { ids }) => sum + ids.length, 0),
        countsPrompt: (index) => index % n === 0,
        chunk: (choices, usage) => ({
          ...head,
          choices,
          ...(usage === undefined ? {} : { usage }),
        }),
        // With log-probabilities the echo waits for those of the prompt.
        opening:
          echo && body.logprobs === undefined
            ? requests.map((_, index) => ({
                index,
                text: echoOf(index),
                logprobs: null,
                finish_reason: null,
              }))
            : [],
        choice: (index, event) => {
          if (event.type === 'promptLogprobs' && echo && body.logprobs !== undefined) {
            const tokens = [...promptOf(index)].map((tokenId, i) => ({
              tokenId,
              logprobs: event.logprobs[i],
            }));
            const logprobs = completionLogprobs(tokens, name, 0);
            return { index, text: echoOf(index), logprobs, finish_reason: null };
          }
          if (event.type === 'delta') {
            const offset = offsets[index] as number;
            offsets[index] = offset + event.text.length;
            return {
              index,
              text: event.text,
              logprobs:
                body.logprobs === undefined ? null : completionLogprobs(event.tokens, name, offset),
              finish_reason: null,
              ...(body.return_token_ids === true
                ? { token_ids: event.tokens.map(({ tokenId }) => tokenId) }
                : {}),
            };
          }
          if (event.type !== 'end') return undefined;
          return {
            index,
            text: '',
            logprobs: null,
            finish_reason: event.reason,
            stop_reason: event.stopReason,
          };
        },
      });
    }
    const collected = await collectAll(streams, abort);
    const logprobsOf = (result: CollectedText, index: number) => {
      if (body.logprobs === undefined) return null;
      const prompt = echo
        ? [...promptOf(index)].map((tokenId, i) => ({
            tokenId,
            logprobs: result.promptLogprobs?.[i],
          }))
        : [];
      return completionLogprobs([...prompt, ...result.tokens], name, 0);
    };
    return {
      ...head,
      choices: collected.map((result, index) => ({
        index,
        text: echoOf(index) + result.text,
        logprobs: logprobsOf(result, index),
        finish_reason: result.end.reason,
        stop_reason: result.end.stopReason,
        ...(body.prompt_logprobs !== undefined && result.promptLogprobs
          ? { prompt_logprobs: promptLogprobsField(promptOf(index), result.promptLogprobs, name) }
          : {}),
        ...(body.return_token_ids === true
          ? {
              prompt_token_ids: promptOf(index),
              token_ids: result.tokens.map(({ tokenId }) => tokenId),
            }
          : {}),
      })),
      usage: usageOf(
        collected.map(({ end }, index) => ({ usage: end.usage, countsPrompt: index % n === 0 })),
      ),
    };
  });
}

function preparePrompts(context: ServerContext, body: CompletionRequest): PreparedPrompt[] {
  if (body.prompt === undefined) throw invalid('prompt', 'a text or token ids', body.prompt);
  return body.prompt.map((prompt, index) => {
    const path = body.prompt?.length === 1 ? 'prompt' : `prompt[${index}]`;
    const whole =
      typeof prompt === 'string'
        ? encode(context, prompt, path, {
            addSpecialTokens: body.add_special_tokens ?? true,
            truncated: body.truncate_prompt_tokens !== undefined,
          })
        : prompt;
    const ids = truncate(context, whole, body.truncate_prompt_tokens);
    const room = checkLength(context, ids, body.max_tokens, path);
    return { ids, maxTokens: body.max_tokens ?? Math.min(DEFAULT_MAX_TOKENS, room) };
  });
}
