import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Turns } from '#engine/server/turns.ts';

test('callers of one burst get turns of the event loop one after the other, in their order', async () => {
  const turns = new Turns();
  const order: string[] = [];
  let loopTurn = 0;
  const count = (): void => {
    loopTurn++;
    counter = setImmediate(count);
  };
  let counter = setImmediate(count);
  const taken: number[] = [];
  await Promise.all(
    ['a', 'b', 'c', 'd'].map(async (name) => {
      await turns.take();
      order.push(name);
      taken.push(loopTurn);
    }),
  );
  clearImmediate(counter);
  assert.deepEqual(order, ['a', 'b', 'c', 'd']);
  assert.equal(new Set(taken).size, 4, `turns taken: ${taken}`);
});

test('a caller who comes when nobody waits is served in the next turn', async () => {
  const turns = new Turns();
  await turns.take();
  let isServed = false;
  void turns.take().then(() => {
    isServed = true;
  });
  await new Promise((resolve) => setImmediate(resolve));
  assert.equal(isServed, true);
});
