/** The end of a server while responses run: nobody's stream may lose its end. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, describe, test } from 'node:test';
import { WebSocket } from 'ws';
import { closeModel, noLiveServer, startLiveServer } from '../../support/live-server.ts';

interface Event {
  readonly type: string;
  readonly stream_id?: string;
  readonly code?: string;
  readonly response?: { readonly status: string; readonly usage: { output_tokens: number } };
}

const TERMINAL = /^response\.(completed|incomplete|failed)$/;

/** A server and a socket to it. `start` sends requests that count, and resolves with the first text of any. */
async function openSocket() {
  const server = await startLiveServer();
  const socket = new WebSocket(`${server.url.replace('http', 'ws')}/v1/responses`);
  const events: Event[] = [];
  const closed = once(socket, 'close');
  const started = Promise.withResolvers<void>();
  socket.on('message', (data) => {
    const event = JSON.parse(String(data)) as Event;
    events.push(event);
    if (event.type === 'response.output_text.delta') started.resolve();
  });
  await once(socket, 'open');
  const start = async (requests: readonly object[]): Promise<void> => {
    for (const request of requests) {
      const frame = { type: 'response.create', input: 'Count.', ignore_eos: true, ...request };
      socket.send(JSON.stringify(frame));
    }
    await started.promise;
  };
  return { server, events, start, closed };
}

describe('a server that stops', { skip: noLiveServer, timeout: 180_000 }, () => {
  after(closeModel);

  test('lets every lane of a socket hear its terminal event, then closes with 1012', async () => {
    const { server, events, start, closed } = await openSocket();
    const wanted = new Map([8, 16, 24, 32].map((count) => [`lane-${count}`, count]));
    await start(
      [...wanted].map(([stream_id, max_output_tokens]) => ({ max_output_tokens, stream_id })),
    );
    // Time to finish on a busy machine too; it ends as soon as they have.
    await server.close(30_000);
    const [code] = await closed;
    assert.equal(code, 1012);
    for (const [lane, count] of wanted) {
      const ends = events.filter((event) => event.stream_id === lane && TERMINAL.test(event.type));
      assert.equal(ends.length, 1, `${lane} heard ${ends.length} terminal events`);
      assert.equal(ends[0]?.response?.status, 'incomplete');
      assert.equal(ends[0]?.response?.usage.output_tokens, count);
    }
    const last = events.at(-1);
    assert.deepEqual([last?.type, last?.code], ['error', 'shutting_down']);
  });

  test('tells a stream that outlasts the time given, with the code, and ends in that time', async () => {
    const { server, events, start, closed } = await openSocket();
    await start([{ max_output_tokens: 900 }]);
    await server.close(0);
    await closed;
    const ends = events.filter((event) => TERMINAL.test(event.type));
    assert.deepEqual(
      ends.map(({ type }) => type),
      ['response.failed'],
    );
  });
});
