/** What is served and how it splits text: /v1/models, /tokenize, /detokenize, /version. */
import type { FastifyInstance } from 'fastify';
import { NvlmError } from '#engine/protocol/errors.ts';
import {
  boolean,
  type Field,
  integer,
  invalid,
  listOf,
  parseFields,
  string,
} from '#engine/protocol/fields.ts';
import { parseChatMessages } from '#engine/protocol/messages.ts';
import type { ServerContext } from './context.ts';
import { readImages, withImages } from './image-prompt.ts';
import { checkModel, encode, renderMessages } from './prompt.ts';

const tokenizeFields = {
  model: string(256),
  prompt: string(1 << 22),
  messages: parseChatMessages,
  add_special_tokens: boolean,
  add_generation_prompt: boolean,
  continue_final_message: boolean,
  return_token_strs: boolean,
} as const satisfies Record<string, Field<unknown>>;

const detokenizeFields = {
  model: string(256),
  tokens: listOf(integer(0, 2 ** 31 - 1), 1 << 20),
} as const satisfies Record<string, Field<unknown>>;

export function registerModelRoutes(app: FastifyInstance, context: ServerContext): void {
  const { engine, model, tokenizer } = context;
  const card = {
    id: model.name,
    object: 'model',
    created: model.createdAt,
    owned_by: 'nvlm',
    root: model.name,
    parent: null,
    max_model_len: engine.maxModelLength,
    ...(context.images && { vision: context.images.card }),
  };
  app.get('/v1/models', async () => ({ object: 'list', data: [card] }));
  app.get('/v1/models/*', async (request) => {
    const { '*': name } = request.params as { '*': string };
    checkModel(context, name);
    return card;
  });
  app.get('/version', async () => ({ version: model.version }));

  app.post('/tokenize', async (request) => {
    const body = parseFields(tokenizeFields, request.body);
    checkModel(context, body.model);
    const isChat = body.messages !== undefined;
    if (isChat === (body.prompt !== undefined)) {
      throw invalid('prompt', 'either prompt or messages', isChat ? 'both' : 'neither');
    }
    const images = await readImages(context, body.messages ?? []);
    const text = isChat
      ? renderMessages(context, body.messages ?? [], {
          addGenerationPrompt:
            body.add_generation_prompt ?? !(body.continue_final_message ?? false),
          continueFinalMessage: body.continue_final_message ?? false,
        })
      : (body.prompt ?? '');
    const tokens = encode(context, withImages(text, images), isChat ? 'messages' : 'prompt', {
      addSpecialTokens: body.add_special_tokens ?? !isChat,
      truncated: false,
    });
    return {
      count: tokens.length,
      max_model_len: engine.maxModelLength,
      tokens,
      token_strs:
        body.return_token_strs === true ? tokens.map((id) => tokenizer.decode([id])) : null,
    };
  });

  app.post('/detokenize', async (request) => {
    const body = parseFields(detokenizeFields, request.body);
    checkModel(context, body.model);
    const tokens = body.tokens;
    if (tokens === undefined) throw invalid('tokens', 'a list of token ids', tokens);
    const outside = tokens.find((id) => id >= tokenizer.vocabularySize);
    if (outside !== undefined) {
      throw invalid('tokens', `token ids below ${tokenizer.vocabularySize}`, outside);
    }
    return { prompt: tokenizer.decode(tokens) };
  });

  app.post('/reset_prefix_cache', async () => {
    const { running, waiting } = engine.stats();
    if (running + waiting > 0) {
      throw new NvlmError(
        'invalid_request',
        `the prefix cache is reset only while nothing runs; ${running} running, ${waiting} waiting`,
      );
    }
    engine.resetPrefixCache();
    return { status: 'ok' };
  });
}
