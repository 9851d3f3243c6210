/** Sockets that misbehave: each gets a typed error or is cut, and the server serves on as before. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { WebSocket } from 'ws';
import {
  closeModel,
  type LiveServer,
  noLiveServer,
  samplesOf,
  startLiveServer,
} from '../support/live-server.ts';

interface Event {
  readonly type: string;
  readonly code?: string;
  readonly error?: { readonly code: string };
  readonly stream_id?: string;
  readonly response?: {
    readonly id: string;
    readonly status: string;
    readonly error?: { readonly code: string };
  };
}

class Client {
  readonly socket: WebSocket;
  readonly events: Event[] = [];

  constructor(server: LiveServer) {
    this.socket = new WebSocket(`${server.url.replace('http', 'ws')}/v1/responses`);
    this.socket.on('message', (data) => this.events.push(JSON.parse(String(data)) as Event));
    this.socket.on('error', () => {});
  }

  send(frame: unknown): void {
    this.socket.send(
      typeof frame === 'string' || Buffer.isBuffer(frame) ? frame : JSON.stringify(frame),
    );
  }

  async until(test: (event: Event) => boolean): Promise<Event> {
    for (let tries = 0; tries < 2000; tries++) {
      const found = this.events.find(test);
      if (found !== undefined) return found;
      await sleep(5);
    }
    throw new Error(`not among ${JSON.stringify(this.events).slice(0, 2000)}`);
  }

  /** The code of the next error event. */
  async nextError(): Promise<string> {
    const event = await this.until(({ type }) => type === 'error');
    this.events.splice(this.events.indexOf(event), 1);
    return event.code ?? event.error?.code ?? '';
  }
}

const open = async (server: LiveServer): Promise<Client> => {
  const client = new Client(server);
  await once(client.socket, 'open');
  return client;
};

const create = (more: Record<string, unknown> = {}) => ({
  type: 'response.create',
  input: 'Count to ten.',
  max_output_tokens: 8,
  ...more,
});

/** A client that never reads, on a bare connection: a socket of the library would read by itself. */
async function openDeaf(server: LiveServer, frames: readonly object[]): Promise<Socket> {
  const socket = connect({ port: Number(new URL(server.url).port), host: '127.0.0.1' });
  socket.on('error', () => {});
  await once(socket, 'connect');
  const key = randomBytes(16).toString('base64');
  socket.write(
    `GET /v1/responses HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: ${key}\r\nSec-WebSocket-Version: 13\r\n\r\n`,
  );
  await once(socket, 'data');
  socket.pause();
  for (const frame of frames) {
    const payload = Buffer.from(JSON.stringify(frame));
    const header = Buffer.from([0x81, 0xfe, payload.length >> 8, payload.length & 255, 0, 0, 0, 0]);
    socket.write(Buffer.concat([header, payload]));
  }
  return socket;
}

describe('sockets that misbehave', { skip: noLiveServer, timeout: 400_000 }, () => {
  let server: LiveServer;

  before(async () => {
    server = await startLiveServer({
      maxFrameBytes: 32 << 10,
      maxSockets: 250,
      pingIntervalMs: 1500,
      socketIdleTimeoutMs: 4000,
    });
  });
  after(async () => {
    await server?.close();
    await closeModel();
  });
  afterEach(async () => {
    const client = await open(server);
    client.send(create());
    await client.until(({ type }) => /^response\.(completed|incomplete)$/.test(type));
    client.socket.close();
    await server.idle();
  });

  test('frames that are no JSON, no object, no UTF-8, binary, or of an unknown type are refused one by one, and the socket stays', async () => {
    const client = await open(server);
    for (const [frame, code] of [
      ['{', 'invalid_json'],
      ['[]', 'invalid_request'],
      ['null', 'invalid_request'],
      [{ type: 'session.update' }, 'invalid_frame'],
      [{}, 'invalid_frame'],
      [Buffer.from('{"type":"response.create"}'), 'invalid_frame'],
      [create({ temperature: 'hot' }), 'invalid_request'],
      [create({ no_such_field: 1 }), 'unknown_parameter'],
      [create({ stream_id: 7 }), 'invalid_request'],
      [create({ previous_response_id: 'resp_none' }), 'response_not_found'],
      [{ type: 'response.cancel', response_id: 'resp_none' }, 'response_not_found'],
      [{ type: 'response.resume', response_id: 'resp_none' }, 'response_not_found'],
      [{ type: 'response.cancel' }, 'response_not_found'],
      [create({ input: 'x'.repeat(40_000) }), 'request_too_large'],
    ] as const) {
      if (Buffer.isBuffer(frame)) client.socket.send(frame, { binary: true });
      else client.send(frame);
      assert.equal(await client.nextError(), code, JSON.stringify(frame).slice(0, 100));
    }
    // As text, but with bytes that are none.
    client.socket.send(Buffer.from([0x7b, 0xff, 0x7d]), { binary: false });
    assert.equal(await client.nextError(), 'invalid_json');
    client.send(create());
    await client.until(({ type }) => /^response\.(completed|incomplete)$/.test(type));
    client.socket.close();
  });

  test('nothing but nonsense closes the socket after a while', async () => {
    const client = await open(server);
    for (let i = 0; i < 40; i++) client.send('{');
    const [code] = await once(client.socket, 'close');
    assert.equal(code, 1008);
  });

  test('a frame far over the limit closes the socket with 1009', async () => {
    const client = await open(server);
    client.send(create({ input: 'x'.repeat(200_000) }));
    const [code] = await once(client.socket, 'close');
    assert.equal(code, 1009);
  });

  test('two responses on one lane run one after the other; on two lanes side by side', async () => {
    const client = await open(server);
    client.send(create({ max_output_tokens: 24, ignore_eos: true }));
    client.send(create({ max_output_tokens: 24, ignore_eos: true }));
    await client.until(
      (event) =>
        client.events.filter(({ type }) => type === 'response.incomplete').length === 2 &&
        event.type === 'response.incomplete',
    );
    const order = client.events.map(({ type }) => type);
    assert.ok(order.lastIndexOf('response.created') > order.indexOf('response.incomplete'));
    client.events.length = 0;
    client.send(create({ stream_id: 'a', max_output_tokens: 200, ignore_eos: true }));
    client.send(create({ stream_id: 'b', max_output_tokens: 200, ignore_eos: true }));
    await client.until(({ type, stream_id }) => type === 'response.created' && stream_id === 'b');
    assert.ok(!client.events.some(({ type }) => type === 'response.incomplete'));
    client.socket.terminate();
  });

  test('a socket closed in the middle of a prompt frees the engine', async () => {
    const client = await open(server);
    client.send(create({ input: 'word '.repeat(800), max_output_tokens: 100 }));
    while (server.stats().running === 0) await sleep(1);
    client.socket.terminate();
    await server.idle();
  });

  test('a reader that stops reading is paused, then cut, and told why', async () => {
    const patient = await startLiveServer({ slowReaderTimeoutMs: 1500, maxBufferedBytes: 4096 });
    // More than the kernel's buffers of both ends take in.
    const frames = Array.from({ length: 24 }, (_, i) =>
      create({
        stream_id: `lane-${i % 4}`,
        input: 'Write.',
        max_output_tokens: 900,
        ignore_eos: true,
        top_logprobs: 20,
        include: ['message.output_text.logprobs'],
        store: false,
      }),
    );
    const socket = await openDeaf(patient, frames);
    const closed = once(socket, 'close');
    try {
      let slow = 0;
      for (let tries = 0; tries < 900 && slow === 0; tries++) {
        await sleep(200);
        const exposition = await (await fetch(`${patient.url}/metrics`)).text();
        for (const [labels, value] of samplesOf(exposition, 'nvlm_errors_total')) {
          if (labels.includes('slow_reader')) slow += value;
        }
      }
      assert.ok(slow > 0, 'nobody was told to be slow');
      await patient.idle();
    } finally {
      socket.resume();
      await closed;
      await patient.close();
    }
  });

  test('200 sockets that say nothing are served beside, and closed after their idle time', async () => {
    const before = process.memoryUsage().rss;
    const clients = await Promise.all(Array.from({ length: 200 }, () => open(server)));
    const busy = await open(server);
    busy.send(create());
    await busy.until(({ type }) => /^response\.(completed|incomplete)$/.test(type));
    await Promise.all(
      clients.map(async ({ socket }) => {
        if (socket.readyState === WebSocket.OPEN) await once(socket, 'close');
      }),
    );
    for (const { events } of clients)
      assert.equal(events.at(-1)?.code ?? events.at(-1)?.error?.code, 'idle_timeout');
    busy.socket.close();
    assert.ok(process.memoryUsage().rss - before < 64 << 20);
  });

  test('one socket too many is refused with its code, and the others stay', async () => {
    const few = await startLiveServer({ maxSockets: 2 });
    const first = await open(few);
    const second = await open(few);
    const third = new Client(few);
    const [, response] = (await once(third.socket, 'unexpected-response')) as [
      unknown,
      import('node:http').IncomingMessage,
    ];
    assert.equal(response.statusCode, 503);
    assert.ok(Number(response.headers['retry-after']) > 0);
    let body = '';
    for await (const chunk of response) body += String(chunk);
    assert.equal(JSON.parse(body).error.code, 'too_many_sockets');
    second.socket.close();
    first.send(create());
    await first.until(({ type }) => /^response\.(completed|incomplete)$/.test(type));
    first.socket.close();
    await few.close();
  });

  test('a peer that answers no ping is cut', async () => {
    const socket = connect({ port: Number(new URL(server.url).port), host: '127.0.0.1' });
    await once(socket, 'connect');
    socket.write(
      'GET /v1/responses HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n',
    );
    socket.resume();
    await once(socket, 'close');
  });
});
