/** The Responses interface over a WebSocket, by the official npm client's ResponsesWS, on a real model. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type {
  ResponsesClientEvent,
  ResponsesServerEvent,
} from 'openai/resources/responses/responses';
import { ResponsesWS } from 'openai/resources/responses/ws';
import { assertOfficialTypes } from '../support/event-types.ts';
import {
  closeModel,
  type LiveServer,
  MODEL_NAME as model,
  noLiveServer,
  startLiveServer,
} from '../support/live-server.ts';
import { assertLifecycle, official, textOf } from '../support/response-events.ts';

type Event = ResponsesServerEvent & { sequence_number?: number; stream_id?: string };
type Create = Partial<ResponsesClientEvent.ResponseCreate> & Record<string, unknown>;

const QUESTION = 'Name three colours of the rainbow.';
const TERMINAL = /^(response\.(completed|incomplete|failed)|error)$/;

/** One client socket; events are read one after the other. */
class Session {
  readonly socket: ResponsesWS;
  readonly #messages: AsyncIterator<Event>;

  constructor(server: LiveServer) {
    this.socket = new ResponsesWS(server.client);
    const { socket } = this;
    // Without a listener the client turns error events into unhandled rejections.
    socket.on('error', () => {});
    this.#messages = (async function* () {
      for await (const item of socket.stream()) {
        if (item.type === 'message') yield item.message as Event;
        if (item.type === 'error') yield item.error.error as Event;
      }
    })();
  }

  create(request: Create): void {
    this.socket.send({ type: 'response.create', model, ...request } as ResponsesClientEvent);
  }

  /** Our extensions are not in the client's types. */
  send(frame: object): void {
    this.socket.send(frame as ResponsesClientEvent);
  }

  async next(): Promise<Event> {
    const { value, done } = await this.#messages.next();
    assert.ok(done !== true, 'the socket closed');
    return value;
  }

  /** Up to and with the first event that `isLast`. */
  async until(isLast: (event: Event) => boolean): Promise<Event[]> {
    const events: Event[] = [];
    for (;;) {
      const event = await this.next();
      events.push(event);
      if (isLast(event)) return events;
    }
  }

  async ask(request: Create): Promise<Event[]> {
    this.create(request);
    return await this.until(({ type }) => TERMINAL.test(type));
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.socket.on('close', resolve));
    this.socket.close();
    await closed;
  }
}

function lastResponse(events: readonly Event[]) {
  const last = events.at(-1);
  assert.ok(
    last?.type === 'response.completed' ||
      last?.type === 'response.incomplete' ||
      last?.type === 'response.failed',
    `ended with ${JSON.stringify(last)}`,
  );
  return last.response;
}

describe('responses over a WebSocket', { skip: noLiveServer, timeout: 120_000 }, () => {
  let server: LiveServer;
  let session: Session;

  before(async () => {
    server = await startLiveServer();
    session = new Session(server);
  });
  after(async () => {
    await session?.close();
    await server?.close();
    await closeModel();
  });

  test('events come numbered from 0 in the order of the lifecycle, each of the official type', async () => {
    const events = await session.ask({
      input: 'Say hi.',
      max_output_tokens: 60,
      include: ['message.output_text.logprobs'],
    });
    events.forEach((event, index) => {
      assert.equal(event.sequence_number, index);
    });
    assertLifecycle(events, 'response.completed');
    const response = lastResponse(events);
    assert.equal(response.status, 'completed');
    assertOfficialTypes([
      { type: 'OpenAI.Responses.ResponsesServerEvent[]', value: official(events) },
    ]);
  });

  test('two lanes of one socket interleave and each is numbered and ended by itself', async () => {
    const lanes = ['left', 'right'] as const;
    for (const lane of lanes) {
      session.create({
        stream_id: lane,
        input: `${lane}: ${QUESTION}`,
        max_output_tokens: 60,
        ignore_eos: true,
      });
    }
    let ends = 0;
    const events = await session.until(({ type }) => TERMINAL.test(type) && ++ends === 2);
    for (const lane of lanes) {
      const own = events.filter((event) => event.stream_id === lane);
      assert.deepEqual(
        own.map((event) => event.sequence_number),
        own.map((_, index) => index),
      );
      assert.equal(lastResponse(own).usage?.output_tokens, 60);
    }
    const order = events
      .filter(({ type }) => type === 'response.output_text.delta')
      .map((event) => event.stream_id);
    const changes = order.filter((lane, index) => lane !== order[index - 1]).length;
    // One after the other would be 2 runs.
    assert.ok(changes > 20, `${changes} runs of deltas: ${order.join(' ')}`);
  });

  test('requests of one lane run one after the other', async () => {
    session.create({ stream_id: 'lane', input: 'One.', max_output_tokens: 8 });
    session.create({ stream_id: 'lane', input: 'Two.', max_output_tokens: 8 });
    let ends = 0;
    const events = await session.until(({ type }) => TERMINAL.test(type) && ++ends === 2);
    const created = events.flatMap((event, index) =>
      event.type === 'response.created' ? [index] : [],
    );
    const firstEnd = events.findIndex(({ type }) => TERMINAL.test(type));
    assert.deepEqual(created, [0, firstEnd + 1]);
  });

  test('previous_response_id continues with only the new input, and the conversation before is cached', async () => {
    const introduction = `My name is Ada and I live in Lund. ${'I like long walks by the sea. '.repeat(10)}`;
    const first = await session.ask({ input: introduction, max_output_tokens: 20 });
    const before = lastResponse(first);
    const input = 'What is my name?';
    const second = await session.ask({
      input,
      max_output_tokens: 12,
      previous_response_id: before.id,
    });
    const continued = lastResponse(second);
    const { json } = await server.post<{ count: number }>('/tokenize', {
      messages: [
        { role: 'user', content: introduction },
        { role: 'assistant', content: textOf(first) },
        { role: 'user', content: input },
      ],
    });
    assert.equal(continued.usage?.input_tokens, json.count);
    const { blockSize } = server.model;
    const held = (before.usage?.total_tokens ?? 0) - 1;
    assert.equal(
      continued.usage?.input_tokens_details.cached_tokens,
      Math.floor(held / blockSize) * blockSize,
    );
    const whole = await session.ask({
      input: [
        { role: 'user', content: introduction },
        { role: 'assistant', content: textOf(first) },
        { role: 'user', content: input },
      ],
      max_output_tokens: 12,
    });
    assert.equal(textOf(second), textOf(whole));
  });

  test('an unstored response continues on its own socket and nowhere else', async () => {
    const first = lastResponse(
      await session.ask({ input: 'Hi.', max_output_tokens: 4, store: false }),
    );
    const next = { input: 'Go on.', max_output_tokens: 4, previous_response_id: first.id };
    assert.equal(lastResponse(await session.ask(next)).previous_response_id, first.id);
    const other = new Session(server);
    const [refused] = await other.ask(next);
    assert.ok(refused?.type === 'error' && 'error' in refused);
    assert.equal(refused.error.code, 'response_not_found');
    await other.close();
  });

  test('generate: false computes the prompt only, and the next request finds it cached', async () => {
    await server.post('/reset_prefix_cache', {});
    const input = `Warm words: ${'the quick brown fox jumps over the lazy dog. '.repeat(15)}`;
    const warm = await session.ask({ input, generate: false });
    assert.deepEqual(
      official(warm)
        .map(({ type }) => type)
        .filter((type) => type !== 'response.queued'),
      ['response.created', 'response.in_progress', 'response.completed'],
    );
    const { usage, output } = lastResponse(warm);
    assert.deepEqual(output, []);
    assert.equal(usage?.output_tokens, 0);
    assert.ok((usage?.input_tokens ?? 0) > 150);
    const asked = await session.ask({ input, max_output_tokens: 2 });
    const { blockSize } = server.model;
    assert.equal(
      lastResponse(asked).usage?.input_tokens_details.cached_tokens,
      Math.floor((usage?.input_tokens ?? 0) / blockSize) * blockSize,
    );
  });

  test('response.cancel ends the response of its lane as cancelled and frees the engine', async () => {
    session.create({
      stream_id: 'long',
      input: QUESTION,
      max_output_tokens: 900,
      ignore_eos: true,
    });
    await session.until(({ type }) => type === 'response.output_text.delta');
    session.send({ type: 'response.cancel', stream_id: 'long' });
    const rest = await session.until(({ type }) => TERMINAL.test(type));
    const response = lastResponse(rest);
    assert.equal(response.status, 'cancelled');
    assert.equal(rest.at(-1)?.stream_id, 'long');
    await server.idle();
    const exposition = await (await fetch(`${server.url}/metrics`)).text();
    assert.match(exposition, /vllm:num_requests_running\{[^}]*\} 0\n/);
    assert.match(exposition, /vllm:kv_cache_usage_perc\{[^}]*\} 0\n/);
  });

  test('closing the socket aborts everything it ran, also during prefill', async () => {
    const other = new Session(server);
    other.create({ stream_id: 'a', input: QUESTION, max_output_tokens: 900, ignore_eos: true });
    await other.until(({ type }) => type === 'response.output_text.delta');
    other.create({ stream_id: 'b', input: 'word '.repeat(900), max_output_tokens: 20 });
    await other.until(({ type, stream_id }) => type === 'response.created' && stream_id === 'b');
    await other.close();
    await server.idle();
  });

  test('response.resume sends what a lost socket had not delivered, to the event', async () => {
    const lost = new Session(server);
    lost.create({ input: QUESTION, max_output_tokens: 60, background: true, ignore_eos: true });
    const seen = await lost.until((event) => (event.sequence_number ?? 0) >= 12);
    const [created] = seen;
    assert.ok(created?.type === 'response.created');
    await lost.close();
    session.send({
      type: 'response.resume',
      response_id: created.response.id,
      starting_after: 12,
    });
    const rest = await session.until(({ type }) => TERMINAL.test(type));
    const events = [...seen, ...rest];
    assert.deepEqual(
      events.map((event) => event.sequence_number),
      events.map((_, index) => index),
    );
    const response = lastResponse(events);
    const [message] = response.output;
    assert.ok(message?.type === 'message' && message.content[0]?.type === 'output_text');
    assert.equal(textOf(events), message.content[0].text);
  });

  test('a request that is wrong gets a typed error on its lane and the socket lives on', async () => {
    const cases: [Create, string, string][] = [
      [{ input: 'Hi', tools: [{ type: 'web_search' }] }, 'unsupported_parameter', 'tools'],
      [{ input: 'Hi', temperature: 9 }, 'invalid_request', 'temperature'],
      [{ input: 'Hi', model: 'gpt-5' }, 'model_not_found', 'model'],
      [{ input: 'Hi', maxtokens: 1 }, 'unknown_parameter', 'maxtokens'],
    ];
    for (const [request, code, param] of cases) {
      const [error] = await session.ask({ ...request, stream_id: 'bad' });
      assert.ok(error?.type === 'error' && 'error' in error, code);
      assert.equal(error.error.code, code);
      assert.equal(error.error.param, param);
      assert.equal(error.stream_id, 'bad');
      assertOfficialTypes([{ type: 'OpenAI.Responses.ResponsesServerEvent', value: error }]);
    }
    assert.equal(textOf(await session.ask({ input: 'Hi', max_output_tokens: 2 })) === '', false);
  });

  test('the same seed draws the same text over HTTP, the socket, and beside other requests', async () => {
    const request = { input: QUESTION, max_output_tokens: 40, temperature: 1.1, seed: 4242 };
    const whole = await server.client.responses.create({ model, ...request });
    const alone = textOf(await session.ask(request));
    const others = Array.from({ length: 3 }, (_, index) =>
      server.client.responses.create({
        model,
        input: `Tell me about the number ${index}.`,
        max_output_tokens: 50,
        temperature: 0.9,
      }),
    );
    const beside = textOf(await session.ask(request));
    await Promise.all(others);
    assert.equal(alone, whole.output_text);
    assert.equal(beside, whole.output_text);
    const reseeded = textOf(await session.ask({ ...request, seed: 4243 }));
    assert.notEqual(reseeded, alone);
  });
});

describe('a busy server', { skip: noLiveServer, timeout: 300_000 }, () => {
  let server: LiveServer;

  before(async () => {
    server = await startLiveServer(
      {},
      { mode: 'Continuous', maxSequences: 1, maxQueuedRequests: 2 },
    );
  });
  after(async () => {
    await server?.close();
    await closeModel();
  });

  test('a waiting response is told as queued with its place, and one too many is refused with when to retry', async () => {
    const session = new Session(server);
    for (const lane of ['a', 'b', 'c']) {
      session.create({
        stream_id: lane,
        input: QUESTION,
        max_output_tokens: 150,
        ignore_eos: true,
      });
      await session.until(
        ({ type, stream_id }) => type === 'response.created' && stream_id === lane,
      );
    }
    session.create({ stream_id: 'd', input: QUESTION });
    let ends = 0;
    const events = await session.until(({ type }) => TERMINAL.test(type) && ++ends === 4);
    const refused = events.find((event) => event.stream_id === 'd');
    assert.ok(refused?.type === 'error' && 'error' in refused);
    assert.equal(refused.error.code, 'queue_full');
    assert.equal((refused as { status?: number }).status, 429);
    const headers = (refused.error as { headers?: Record<string, string> }).headers;
    assert.match(headers?.['retry-after'] ?? '', /^[1-9]\d*$/);
    const waiting = events.filter((event) => event.stream_id === 'b' || event.stream_id === 'c');
    assert.ok(waiting.some(({ type }) => type === 'response.queued'));
    const progress = waiting.filter(
      ({ type }) => (type as string) === 'nvlm.progress',
    ) as unknown as {
      phase: string;
      position: number;
      response_id: string;
    }[];
    assert.ok(progress.some(({ phase, position }) => phase === 'queued' && position >= 0));
    await session.close();
    await server.idle();
  });

  test('over HTTP one too many is a 429 with Retry-After', async () => {
    const abort = new AbortController();
    const held = Array.from({ length: 3 }, () =>
      server.client.responses
        .create(
          { model, input: QUESTION, max_output_tokens: 900, ...{ ignore_eos: true } },
          { signal: abort.signal },
        )
        .catch(() => {}),
    );
    while (server.stats().running + server.stats().waiting < 3) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    const response = await fetch(`${server.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ messages: [{ role: 'user', content: 'Hi' }] }),
    });
    assert.equal(response.status, 429);
    assert.match(response.headers.get('retry-after') ?? '', /^[1-9]\d*$/);
    abort.abort();
    await Promise.all(held);
    await server.idle();
  });
});
