import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { WorkQueue, type WorkQueueOptions } from '#operator/kube/queue.ts';
import { FakeClock } from '../../support/fake-clock.ts';

describe('keys that wait to be worked on', () => {
  let clock: FakeClock;
  let stop: AbortController;
  let ended: Promise<void>;
  /** Keys in the order in which work on them began. */
  let begun: string[];
  /** Ends the work on a key; rejects it when given an error. */
  let finish: Map<string, (error?: Error, again?: number) => void>;

  beforeEach(() => {
    clock = new FakeClock();
    stop = new AbortController();
    ended = Promise.resolve();
    begun = [];
    finish = new Map();
  });
  afterEach(async () => {
    stop.abort();
    for (const end of finish.values()) end();
    await ended;
  });

  const create = (options: Partial<WorkQueueOptions> = {}): WorkQueue =>
    new WorkQueue({
      workers: 1,
      clock,
      random: () => 0.5,
      work: (key) => {
        begun.push(key);
        return new Promise((resolve, reject) => {
          finish.set(key, (error, again) => {
            finish.delete(key);
            if (error) reject(error);
            else resolve(again);
          });
        });
      },
      ...options,
    });
  const run = async (queue: WorkQueue): Promise<void> => {
    ended = queue.run(stop.signal);
    await turn();
  };
  const end = async (key: string, error?: Error, again?: number): Promise<void> => {
    finish.get(key)?.(error, again);
    await turn();
  };

  test('are there once, however often they were added', async () => {
    const queue = create();
    for (let i = 0; i < 5; i++) queue.add('a');
    queue.add('b');
    assert.equal(queue.depth, 2);
    await run(queue);
    await end('a');
    await end('b');
    assert.deepEqual(begun, ['a', 'b']);
    assert.equal(queue.isIdle, true);
  });

  test('are worked on by one worker at a time, and once more when they were added meanwhile', async () => {
    const queue = create({ workers: 4 });
    await run(queue);
    queue.add('a');
    await turn();
    for (let i = 0; i < 3; i++) queue.add('a');
    await turn();
    assert.deepEqual(begun, ['a']);
    await end('a');
    assert.deepEqual(begun, ['a', 'a']);
    await end('a');
    assert.equal(queue.isIdle, true);
  });

  test('that are urgent go before those of a first list, and become urgent when they are added so', async () => {
    const queue = create();
    for (const key of ['l1', 'l2', 'l3']) queue.add(key, 'background');
    queue.add('edit');
    queue.add('l3', 'urgent');
    queue.add('l3', 'background');
    await run(queue);
    for (const key of ['edit', 'l3', 'l1', 'l2']) await end(key);
    assert.deepEqual(begun, ['edit', 'l3', 'l1', 'l2']);
  });

  test('come back after a failure, with a pause that doubles up to its limit and ends with a success', async () => {
    const delays: number[] = [];
    const queue = create({
      backoff: { baseMs: 100, maxMs: 1000 },
      hooks: { onRetry: (_key, _failures, delayMs) => delays.push(delayMs) },
    });
    await run(queue);
    queue.add('a');
    await turn();
    for (let i = 0; i < 6; i++) {
      await end('a', new Error('no'));
      clock.advance((delays.at(-1) ?? 0) - 1);
      await turn();
      assert.equal(finish.size, 0, 'not before its time');
      clock.advance(1);
      await turn();
    }
    assert.deepEqual(delays, [75, 150, 300, 600, 750, 750]);
    await end('a');
    queue.add('a');
    await turn();
    await end('a', new Error('again'));
    assert.equal(delays.at(-1), 75);
  });

  test('that fail do not hold up others', async () => {
    const queue = create();
    await run(queue);
    queue.add('bad');
    queue.add('good');
    await turn();
    await end('bad', new Error('no'));
    await end('good');
    assert.deepEqual(begun, ['bad', 'good']);
  });

  test('may be asked for later: of two times the earlier one counts, and adding them now does not wait', async () => {
    const queue = create();
    await run(queue);
    queue.addAfter('a', 500);
    queue.addAfter('a', 200);
    queue.addAfter('a', 900);
    clock.advance(199);
    await turn();
    assert.deepEqual(begun, []);
    clock.advance(1);
    await turn();
    assert.deepEqual(begun, ['a']);
    await end('a', undefined, 300);
    clock.advance(300);
    await turn();
    assert.deepEqual(begun, ['a', 'a']);
  });

  test('are all worked on in time by as many workers as there are, and no more', async () => {
    const queue = create({ workers: 3 });
    for (const key of ['a', 'b', 'c', 'd']) queue.add(key);
    await run(queue);
    assert.deepEqual(begun, ['a', 'b', 'c']);
    assert.equal(queue.depth, 1);
    clock.advance(2000);
    assert.equal(queue.oldestAgeMs, 2000);
    await end('b');
    assert.deepEqual(begun, ['a', 'b', 'c', 'd']);
  });

  test('wait while a worker rests, in proportion to how long it worked', async () => {
    const queue = create({ workers: 1, restMs: (busyMs) => 2 * busyMs });
    queue.add('a');
    queue.add('b');
    await run(queue);
    clock.advance(50);
    await end('a');
    assert.deepEqual(begun, ['a']);
    clock.advance(99);
    await turn();
    assert.deepEqual(begun, ['a']);
    clock.advance(1);
    await turn();
    assert.deepEqual(begun, ['a', 'b']);
  });

  test('are kept without a leader, and the end of leadership waits for the work at hand and starts none', async () => {
    const queue = create();
    queue.add('a');
    queue.add('b');
    await turn();
    assert.deepEqual(begun, []);
    await run(queue);
    let hasEnded = false;
    void ended.then(() => {
      hasEnded = true;
    });
    stop.abort();
    await turn();
    assert.equal(hasEnded, false);
    await end('a');
    await ended;
    assert.deepEqual(begun, ['a']);
    stop = new AbortController();
    await run(queue);
    assert.deepEqual(begun, ['a', 'b'], 'the next time it goes on');
  });
});
