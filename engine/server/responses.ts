/** The Responses interface over HTTP. Creation is shared with the socket. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { NvlmError } from '#engine/protocol/errors.ts';
import { integer, invalid } from '#engine/protocol/fields.ts';
import { partsOf } from '#engine/protocol/messages.ts';
import {
  parseResponsesRequest,
  type ResponsesRequest,
} from '#engine/protocol/responses-request.ts';
import type { RequestIdentity, ServerContext } from './context.ts';
import { feedEvents } from './event-feed.ts';
import { asNvlmError, errorEvent } from './http-errors.ts';
import { checkModel } from './prompt.ts';
import { type Conversation, missingResponse, responsePrompt } from './response-prompt.ts';
import { ResponseRun } from './response-run.ts';
import { SseWriter } from './sse.ts';

export interface CreateSettings {
  readonly identity: RequestIdentity;
  readonly generate: boolean;
  /** Unstored responses that only this connection can continue. */
  readonly ownResponse?: (id: string) => ResponseRun | undefined;
}

/** Validates, reads pictures, renders and submits. Throws NvlmError; nothing is kept then. */
export async function createResponse(
  context: ServerContext,
  request: ResponsesRequest,
  settings: CreateSettings,
): Promise<ResponseRun> {
  if (context.isClosing()) {
    throw new NvlmError('shutting_down', 'the server is stopping; retry against another replica', {
      retryAfterSeconds: 1,
    });
  }
  checkModel(context, request.model);
  if (request.background === true && request.store === false) {
    throw invalid(
      'store',
      'true for a background response, which is only reached by its id',
      false,
    );
  }
  const previous = previousConversation(context, request, settings);
  const prompt = await responsePrompt(context, request, previous, settings.generate);
  const run = new ResponseRun(context, {
    request,
    prompt,
    identity: settings.identity,
    generate: settings.generate,
  });
  if (run.isStored) context.store.add(run);
  return run;
}

function previousConversation(
  context: ServerContext,
  request: ResponsesRequest,
  settings: CreateSettings,
): Conversation | undefined {
  const id = request.previous_response_id;
  if (id === undefined) return undefined;
  const previous = settings.ownResponse?.(id) ?? context.store.get(id);
  if (previous === undefined) throw missingResponse(id, 'previous_response_id');
  if (!previous.isFinished) {
    throw invalid('previous_response_id', 'a finished response', `${id} (${previous.status})`);
  }
  return previous.conversation();
}

export function registerResponses(app: FastifyInstance, context: ServerContext): void {
  const find = (request: FastifyRequest): ResponseRun => {
    const { id } = request.params as { id: string };
    const run = context.store.get(id);
    if (run === undefined) throw missingResponse(id, 'response_id');
    return run;
  };

  app.post('/v1/responses', async (request, reply) => {
    const body = parseResponsesRequest(request.body);
    const isStream = body.stream ?? false;
    const run = await createResponse(context, body, {
      identity: { requestId: request.id, route: '/v1/responses', stream: isStream },
      generate: true,
    });
    const cancelOnClose = () => run.cancel();
    if (!run.background) {
      reply.raw.once('close', cancelOnClose);
      // Its event is over when the client went while pictures were read.
      if (reply.raw.destroyed) run.cancel();
      void run.done.then(() => reply.raw.off('close', cancelOnClose));
    }
    if (isStream) return streamRun(context, reply, run, 0, !run.background);
    if (!run.background) await run.done;
    if (run.failure !== undefined) throw run.failure;
    return run.snapshot();
  });

  app.get('/v1/responses', async () => {
    throw new NvlmError(
      'upgrade_required',
      'GET /v1/responses is a WebSocket; open one, or use POST /v1/responses',
    );
  });

  app.get('/v1/responses/:id', async (request, reply) => {
    const run = find(request);
    const query = request.query as Readonly<Record<string, string | undefined>>;
    if (query.stream !== 'true') return run.snapshot();
    const after = query.starting_after;
    const first = after === undefined ? 0 : integer(0)(Number(after), 'starting_after') + 1;
    return streamRun(context, reply, run, first, false);
  });

  app.delete('/v1/responses/:id', async (request) => {
    const { id } = find(request);
    context.store.delete(id);
    return { id, object: 'response', deleted: true };
  });

  app.post('/v1/responses/:id/cancel', async (request) => {
    const run = find(request);
    run.cancel();
    await run.done;
    return run.snapshot();
  });

  app.get('/v1/responses/:id/input_items', async (request) => {
    return inputItems(find(request), request.query as Readonly<Record<string, string | undefined>>);
  });
}

async function streamRun(
  context: ServerContext,
  reply: FastifyReply,
  run: ResponseRun,
  firstEvent: number,
  holdsRun: boolean,
): Promise<FastifyReply> {
  reply.hijack();
  const writer = new SseWriter(reply.raw, ownHeaders(reply), context.options, true);
  try {
    await feedEvents(run, writer, firstEvent, holdsRun);
    writer.end();
  } catch (thrown) {
    const error = asNvlmError(thrown);
    context.metrics.countError(error.code);
    if (holdsRun) run.cancel(error);
    writer.cut(JSON.stringify(errorEvent(error, undefined)));
  }
  return reply;
}

/** Headers set so far (request id, CORS), which a hijacked reply must write itself. */
export const ownHeaders = (reply: FastifyReply): Record<string, string> =>
  Object.fromEntries(
    Object.entries(reply.getHeaders()).map(([name, value]) => [name, String(value)]),
  );

function inputItems(run: ResponseRun, query: Readonly<Record<string, string | undefined>>) {
  const limit = query.limit === undefined ? 20 : integer(1, 100)(Number(query.limit), 'limit');
  const items = run.prompt.inputMessages.map((message, index) => ({
    id: `${run.id.replace('resp_', 'msg_')}_${index}`,
    type: 'message',
    role: message.role,
    status: 'completed',
    content: partsOf(message).map((part) =>
      typeof part === 'string'
        ? { type: message.role === 'assistant' ? 'output_text' : 'input_text', text: part }
        : { type: 'input_image', image_url: part.url, detail: part.detail, file_id: null },
    ),
  }));
  if (query.order !== 'asc') items.reverse();
  const after = query.after;
  const start = after === undefined ? 0 : items.findIndex((item) => item.id === after) + 1;
  const data = items.slice(start, start + limit);
  return {
    object: 'list',
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: start + limit < items.length,
  };
}
