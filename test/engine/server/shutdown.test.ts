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

describe('a server that stops', { skip: noLiveServer, timeout: 60_000 }, () => {
  after(closeModel);

  test('lets every lane of a socket hear its terminal event, then closes with 1012', async () => {
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
    const wanted = new Map([8, 16, 24, 32].map((count) => [`lane-${count}`, count]));
    for (const [stream_id, max_output_tokens] of wanted) {
      const request = { input: 'Count.', ignore_eos: true, max_output_tokens, stream_id };
      socket.send(JSON.stringify({ type: 'response.create', ...request }));
    }
    await started.promise;
    await server.close();
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
    const server = await startLiveServer();
    const socket = new WebSocket(`${server.url.replace('http', 'ws')}/v1/responses`);
    const events: Event[] = [];
    const closed = once(socket, 'close');
    const started = Promise.withResolvers<void>();
    socket.on('message', (data) => {
      const event = JSON.parse(String(data)) as Event & { response?: { error: unknown } };
      events.push(event);
      if (event.type === 'response.output_text.delta') started.resolve();
    });
    await once(socket, 'open');
    const request = { input: 'Count.', ignore_eos: true, max_output_tokens: 900 };
    socket.send(JSON.stringify({ type: 'response.create', ...request }));
    await started.promise;
    await server.close(0);
    await closed;
    const ends = events.filter((event) => TERMINAL.test(event.type));
    assert.deepEqual(
      ends.map(({ type }) => type),
      ['response.failed'],
    );
  });
});
