import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { WorkQueue } from '#operator/kube/queue.ts';
import { FakeClock } from '../../support/fake-clock.ts';

/** Turns of the event loop: enough for what is resolved to be carried on. */
const settle = async (): Promise<void> => {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
};

describe('a queue whose leader lost the lease and got it back', () => {
  const leadAWhile = async (queue: WorkQueue): Promise<void> => {
    const stop = new AbortController();
    const ended = queue.run(stop.signal);
    await settle();
    stop.abort();
    await ended;
  };

  test('works on what was cut off', async () => {
    const worked: string[] = [];
    const queue = new WorkQueue({
      clock: new FakeClock(),
      work: async (key, signal) => {
        worked.push(key);
        if (worked.length > 1) return undefined;
        await new Promise((resolve) => signal.addEventListener('abort', resolve));
        throw new Error('aborted');
      },
    });
    queue.add('a');
    await leadAWhile(queue);
    assert.deepEqual(worked, ['a']);
    await leadAWhile(queue);
    assert.deepEqual(worked, ['a', 'a']);
  });

  test('works on what was to come later: its time may have passed', async () => {
    const worked: string[] = [];
    const queue = new WorkQueue({
      clock: new FakeClock(),
      work: async (key) => {
        worked.push(key);
        return worked.length > 1 ? undefined : 200;
      },
    });
    queue.add('a');
    await leadAWhile(queue);
    await leadAWhile(queue);
    assert.deepEqual(worked, ['a', 'a']);
  });

  test('does not work again on what was done', async () => {
    const worked: string[] = [];
    const queue = new WorkQueue({
      clock: new FakeClock(),
      work: async (key) => void worked.push(key),
    });
    queue.add('a');
    await leadAWhile(queue);
    await leadAWhile(queue);
    assert.deepEqual(worked, ['a']);
  });
});
