/** One server: routes, sockets, keys, limits, and its end. */
import type { AddressInfo } from 'node:net';
import { type FastifyRequest, fastify } from 'fastify';
import { type Logger, pino } from 'pino';
import type { Registry } from 'prom-client';
import { NvlmError } from '#engine/protocol/errors.ts';
import type { GenerationEngine } from '#engine/scheduler/request.ts';
import type { ChatTemplate, Tokenizer } from '#engine/tokenizer/tokenizer.ts';
import type { ImageReader } from '#engine/vision/image-reader.ts';
import { isOriginAllowed, keyChecker } from './auth.ts';
import { registerChatCompletions } from './chat-completions.ts';
import { registerCompletions } from './completions.ts';
import type { ServedModel, ServerContext } from './context.ts';
import { registerHealth } from './health.ts';
import { asNvlmError, sendError } from './http-errors.ts';
import { parseJsonBytes } from './json-body.ts';
import { ServerMetrics } from './metrics.ts';
import { registerModelRoutes } from './model-routes.ts';
import type { ServerOptions } from './options.ts';
import { ResponseStore } from './response-store.ts';
import { registerResponses } from './responses.ts';
import { attachSockets, requestIdOf } from './socket-server.ts';
import { Turns } from './turns.ts';
import { registerWebFiles } from './web-files.ts';

export interface ServerParts {
  readonly engine: GenerationEngine;
  readonly tokenizer: Tokenizer;
  readonly chatTemplate: ChatTemplate;
  /** Absent when the model reads text only. */
  readonly images?: ImageReader | undefined;
  readonly model: ServedModel;
  readonly options: ServerOptions;
  /** Silent when absent. */
  readonly logger?: Logger;
  readonly metricsRegistry?: Registry;
}

export interface RunningServer {
  listen(): Promise<{ readonly url: string }>;
  /** Stops accepting, lets streams finish for up to `timeoutMs`, cuts the rest. Idempotent. */
  close(timeoutMs: number): Promise<void>;
  readonly context: ServerContext;
}

/**
 * Routes that need no key when keys are set: health, figures and the page. Asked of the route that was matched, not of the
 * path that was sent, which may be percent-encoded.
 */
const OPEN_ROUTES = /^\/(|healthz?|ping|readyz|load|metrics|version|assets\/.*)$/;

/** After the engine is done, how long sockets may take for the events that are left. */
const LAST_WORDS_MS = 1000;

/** The Python client declares JSON on these too and sends nothing. */
const TAKES_NO_BODY = /^(DELETE |POST .*\/cancel$|POST \/reset_prefix_cache$)/;

export function createServer(parts: ServerParts): RunningServer {
  const { engine, model, options } = parts;
  const logger = parts.logger ?? pino({ level: 'silent' });
  let closing: Promise<void> | undefined;
  const context: ServerContext = {
    engine,
    tokenizer: parts.tokenizer,
    chatTemplate: parts.chatTemplate,
    ...(parts.images && { images: parts.images }),
    model,
    options,
    logger,
    metrics: new ServerMetrics(engine, model.name, logger, parts.metricsRegistry),
    store: new ResponseStore(options),
    turns: new Turns(),
    isClosing: () => closing !== undefined,
  };
  const app = fastify({
    bodyLimit: options.maxBodyBytes,
    requestTimeout: options.requestTimeoutMs,
    genReqId: requestIdOf,
    forceCloseConnections: 'idle',
    return503OnClosing: false,
    http: {
      maxHeaderSize: options.maxHeaderBytes,
      headersTimeout: options.requestTimeoutMs,
      // Node looks for late requests only so often, every 30 s of its own.
      connectionsCheckingInterval: Math.min(5000, Math.ceil(options.requestTimeoutMs / 2)),
    },
    routerOptions: { maxParamLength: 512 },
  });
  app.server.maxConnections = options.maxConnections;
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(
    'application/json',
    { parseAs: 'buffer' },
    async (request: FastifyRequest, body: Buffer) =>
      body.length === 0 && TAKES_NO_BODY.test(`${request.method} ${request.routeOptions.url}`)
        ? undefined
        : parseJsonBytes(body),
  );
  const checkKey = keyChecker(options.apiKeys);

  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id);
    const { origin } = request.headers;
    if (
      origin !== undefined &&
      options.corsOrigins.length > 0 &&
      isOriginAllowed(request.raw, options.corsOrigins)
    ) {
      reply.headers({ 'access-control-allow-origin': origin, vary: 'origin' });
      if (request.method === 'OPTIONS') {
        await reply
          .headers({
            'access-control-allow-methods': 'GET, POST, DELETE',
            'access-control-allow-headers': 'authorization, content-type, x-request-id',
            'access-control-max-age': '600',
          })
          .code(204)
          .send();
        return;
      }
    }
    const route = request.routeOptions.url;
    if (route !== undefined && !OPEN_ROUTES.test(route)) checkKey(request.raw);
    if (closing !== undefined && request.method === 'POST') {
      throw new NvlmError(
        'shutting_down',
        'the server is stopping; retry against another replica',
        {
          retryAfterSeconds: 1,
        },
      );
    }
  });
  app.addHook('preHandler', async (request, reply) => {
    if (request.method !== 'POST') return;
    await context.turns.take();
    // Nobody is there any more, and the event that would say so has been.
    if (reply.raw.destroyed) reply.hijack();
  });
  app.setErrorHandler((thrown, request, reply) => {
    const error = asNvlmError(thrown);
    context.metrics.countError(error.code);
    if (error.code === 'internal_error') {
      logger.error({ err: error.cause ?? thrown, requestId: request.id }, 'request failed');
    }
    return sendError(reply, error);
  });
  app.setNotFoundHandler((request, reply) =>
    sendError(
      reply,
      new NvlmError(
        'route_not_found',
        `${request.method} ${request.url.slice(0, 128)} is not served here`,
      ),
    ),
  );
  registerHealth(app, context);
  registerModelRoutes(app, context);
  registerResponses(app, context);
  registerChatCompletions(app, context);
  registerCompletions(app, context);
  if (options.web !== undefined) registerWebFiles(app, options.web);
  const sockets = attachSockets(app.server, context, checkKey);

  const shutDown = async (timeoutMs: number): Promise<void> => {
    sockets.drain();
    // Stops listening at once; connections with a stream stay until it ends.
    const closed = app.close();
    await engine.drain(timeoutMs);
    // The engine is idle once the last tokens are made; their events, the terminal one among them, are still on the way out.
    await sockets.settled(LAST_WORDS_MS);
    sockets.close();
    const cut = setTimeout(() => app.server.closeAllConnections(), 1000);
    await closed;
    clearTimeout(cut);
  };

  return {
    context,
    listen: async () => {
      await app.listen({ host: options.host, port: options.port });
      const { port } = app.server.address() as AddressInfo;
      const host = options.host.includes(':') ? `[${options.host}]` : options.host;
      return { url: `http://${host}:${port}` };
    },
    close: (timeoutMs) => {
      closing ??= Promise.resolve().then(() => shutDown(timeoutMs));
      return closing;
    },
  };
}
