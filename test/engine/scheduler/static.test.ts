import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeClock } from '../../support/fake-clock.ts';
import { fakeEngine, requestOf, run, turnUntil } from './harness.ts';

test('a static batch waits for a step that nobody wants any more without asking the clock again and again', async () => {
  const clock = new FakeClock();
  let timers = 0;
  const { engine, forwards } = fakeEngine({
    mode: 'Static',
    staticWindowMs: 10,
    now: clock.now,
    setTimer: (callback, ms) => {
      assert.ok(++timers < 100, 'a timer of no length sets itself again and again');
      return clock.setTimer(callback, ms);
    },
  });
  let release = () => {};
  forwards[0]!.onRun = () =>
    new Promise((resolve) => {
      release = resolve;
    });
  const controller = new AbortController();
  engine.submit(requestOf({ promptIds: [1] }), controller.signal);
  clock.advance(10);
  await new Promise((resolve) => setImmediate(resolve));
  await new Promise((resolve) => setImmediate(resolve));
  controller.abort();
  const second = run(engine, { promptIds: [2], maxTokens: 1 });
  await new Promise((resolve) => setImmediate(resolve));
  clock.advance(100);
  forwards[0]!.onRun = () => {};
  release();
  let isDone = false;
  void second.then(() => {
    isDone = true;
  });
  await turnUntil(clock, () => isDone);
  assert.equal((await second).at(-1)!.type, 'end');
});
