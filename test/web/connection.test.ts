import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { backoffMs, Connection, type ConnectionState } from '#web/connection.ts';
import type { ServerEvent } from '#web/protocol.ts';
import { FakeSocket, FakeTimers } from '../support/fake-socket.ts';

function harness() {
  const sockets: FakeSocket[] = [];
  const timers = new FakeTimers();
  const events: { streamId: string | null; event: ServerEvent }[] = [];
  const states: ConnectionState[] = [];
  const connection = new Connection({
    openSocket: () => {
      const socket = new FakeSocket();
      sockets.push(socket);
      return socket;
    },
    setTimer: timers.setTimer,
    random: () => 0.5,
    onEvent: (streamId, event) => events.push({ streamId, event }),
    onState: (state) => states.push(state),
  });
  const newest = (): FakeSocket => {
    const socket = sockets.at(-1);
    assert.ok(socket, 'no socket was opened');
    return socket;
  };
  const text = (): string =>
    events
      .map(({ event }) => (event.type === 'response.output_text.delta' ? event.delta : ''))
      .join('');
  return { connection, sockets, timers, events, states, newest, text };
}

const create = (streamId: string) =>
  ({
    type: 'response.create',
    stream_id: streamId,
    input: [{ role: 'user', content: 'hi' }],
  }) as const;

const created = (streamId: string, id: string) => ({
  type: 'response.created',
  stream_id: streamId,
  sequence_number: 0,
  response: { id },
});

const delta = (streamId: string, sequenceNumber: number, text: string) => ({
  type: 'response.output_text.delta',
  stream_id: streamId,
  sequence_number: sequenceNumber,
  delta: text,
});

const completed = (streamId: string, sequenceNumber: number) => ({
  type: 'response.completed',
  stream_id: streamId,
  sequence_number: sequenceNumber,
  response: { id: 'resp_1' },
});

test('no socket is opened before something is asked', () => {
  const { sockets, connection } = harness();
  assert.equal(sockets.length, 0);
  connection.create(create('a'));
  assert.equal(sockets.length, 1);
});

test('a dropped socket is opened again and the response goes on after the last event seen', () => {
  const { connection, newest, timers, sockets } = harness();
  connection.create(create('a'));
  newest().open();
  newest().deliver(created('a', 'resp_1'));
  newest().deliver(delta('a', 1, 'one'));
  newest().drop();
  timers.advance(1000);
  assert.equal(sockets.length, 2);
  newest().open();
  assert.deepEqual(newest().sent, [
    { type: 'response.resume', stream_id: 'a', response_id: 'resp_1', starting_after: 1 },
  ]);
});

test('a request whose response was never named is asked again after a drop', () => {
  const { connection, newest, timers } = harness();
  connection.create(create('a'));
  newest().open();
  newest().drop();
  timers.advance(1000);
  newest().open();
  assert.deepEqual(newest().sent, [create('a')]);
});

test('the text is exact however often and wherever the socket drops', () => {
  fc.assert(
    fc.property(
      fc.array(fc.string({ minLength: 1, maxLength: 4 }), { minLength: 1, maxLength: 30 }),
      fc.array(fc.record({ after: fc.nat(6), overlap: fc.nat(4) }), { maxLength: 10 }),
      (words, drops) => {
        const { connection, newest, timers, text, events } = harness();
        const script = [
          created('a', 'resp_1'),
          ...words.map((word, i) => delta('a', i + 1, word)),
          completed('a', words.length + 1),
        ];
        connection.create(create('a'));
        newest().open();
        let next = 0;
        let seen = 0;
        for (const { after, overlap } of drops) {
          for (const event of script.slice(next, next + after)) newest().deliver(event);
          next = Math.min(script.length, next + after);
          seen = Math.max(seen, next);
          if (seen === 0 || seen === script.length) continue;
          newest().drop();
          timers.advance(60_000);
          newest().open();
          const resume = newest().sent.at(-1);
          assert.equal(resume?.starting_after, seen - 1);
          // A server may send events again that this page has seen.
          next = Math.max(0, seen - overlap);
        }
        for (const event of script.slice(next)) newest().deliver(event);
        assert.equal(text(), words.join(''));
        const ends = events.filter(({ event }) => event.type === 'response.completed');
        assert.equal(ends.length, 1);
      },
    ),
  );
});

test('two responses share a socket without mixing', () => {
  const { connection, newest, events, sockets } = harness();
  connection.create(create('a'));
  newest().open();
  connection.create(create('b'));
  newest().deliver(created('a', 'resp_a'));
  newest().deliver(created('b', 'resp_b'));
  newest().deliver(delta('b', 1, 'B'));
  newest().deliver(delta('a', 1, 'A'));
  assert.equal(sockets.length, 1);
  assert.deepEqual(
    events.map(({ streamId, event }) => [streamId, event.type.split('.').at(-1)]),
    [
      ['a', 'created'],
      ['b', 'created'],
      ['b', 'delta'],
      ['a', 'delta'],
    ],
  );
});

test('a stop asked for before the response has a name is sent as soon as it has one', () => {
  const { connection, newest } = harness();
  connection.create(create('a'));
  newest().open();
  connection.cancel('a');
  assert.deepEqual(newest().sent, [create('a')]);
  newest().deliver(created('a', 'resp_1'));
  assert.deepEqual(newest().sent.at(-1), {
    type: 'response.cancel',
    stream_id: 'a',
    response_id: 'resp_1',
  });
});

test('a stop before the socket opened leaves nothing to send', () => {
  const { connection, newest } = harness();
  connection.create(create('a'));
  connection.cancel('a');
  newest().open();
  assert.deepEqual(newest().sent, []);
});

test('pauses between attempts grow to 15 seconds at most and never vanish', () => {
  for (let attempt = 1; attempt < 40; attempt += 1) {
    const shortest = backoffMs(attempt, 0);
    const longest = backoffMs(attempt, 0.999);
    assert.ok(
      shortest >= 125 && longest <= 15_000,
      `attempt ${attempt}: ${shortest}..${longest} ms`,
    );
    assert.ok(longest > shortest);
  }
  assert.ok(backoffMs(3, 0) > backoffMs(1, 0.999));
});

test('a server that accepts and drops at once is asked ever more slowly', () => {
  const { connection, newest, timers, states } = harness();
  connection.create(create('a'));
  for (let round = 0; round < 4; round += 1) {
    newest().open();
    newest().drop();
    timers.advance(60_000);
  }
  const delays = states.flatMap((state) => (state.phase === 'waiting' ? [state.delayMs] : []));
  assert.deepEqual(
    delays,
    [...delays].sort((a, b) => a - b),
  );
  assert.equal(new Set(delays).size, delays.length);
});

test('a reader who does not want to wait for the next attempt gets it at once, and only once', () => {
  const { connection, newest, timers, sockets } = harness();
  connection.create(create('a'));
  newest().drop();
  connection.retryNow();
  connection.retryNow();
  assert.equal(sockets.length, 2);
  timers.advance(20_000);
  assert.equal(sockets.length, 2);
});

test('a socket that falls silent under a running response is replaced', () => {
  const { connection, newest, timers, sockets } = harness();
  connection.create(create('a'));
  newest().open();
  newest().deliver(created('a', 'resp_1'));
  const silent = newest();
  timers.advance(31_000);
  assert.ok(silent.isClosed);
  timers.advance(1000);
  assert.equal(sockets.length, 2);
  newest().open();
  assert.equal(newest().sent[0]?.type, 'response.resume');
});

test('a socket without a running response may close, and nothing is left waiting', () => {
  const { connection, newest, timers, sockets, states, events } = harness();
  connection.create(create('a'));
  newest().open();
  newest().deliver(created('a', 'resp_1'));
  newest().deliver(completed('a', 1));
  const seen = events.length;
  newest().deliver({ type: 'error', error: { code: 'idle_timeout', message: 'nothing was sent' } });
  newest().drop();
  timers.advance(60_000);
  assert.equal(sockets.length, 1);
  assert.equal(timers.pendingCount, 0);
  assert.equal(states.at(-1)?.phase, 'idle');
  assert.equal(events.length, seen);
});

test('being cut off as a slow reader resumes instead of failing', () => {
  const { connection, newest, timers, events } = harness();
  connection.create(create('a'));
  newest().open();
  newest().deliver(created('a', 'resp_1'));
  newest().deliver({ type: 'error', error: { code: 'slow_reader', message: 'too slow' } });
  newest().drop();
  timers.advance(1000);
  newest().open();
  assert.equal(newest().sent[0]?.type, 'response.resume');
  assert.ok(events.every(({ event }) => event.type !== 'error'));
});

test('frames that are no events change nothing', () => {
  const { connection, newest, events } = harness();
  connection.create(create('a'));
  newest().open();
  newest().deliver([1, 2]);
  newest().deliver({ type: 7 });
  newest().deliver({ type: 'response.some_new_event', stream_id: 'other', sequence_number: 1 });
  assert.deepEqual(events, []);
});
