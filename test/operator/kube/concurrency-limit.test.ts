import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { ConcurrencyLimit } from '#operator/kube/concurrency-limit.ts';
import { FakeClock } from '../../support/fake-clock.ts';

/**
 * A server with `cores` that share their time evenly among the calls that are under way: each takes `serviceMs` alone, and longer in
 * proportion once there are more calls than cores. As many calls are made as the limit allows, for `rounds` rounds of calls.
 */
function run(
  limit: ConcurrencyLimit,
  clock: FakeClock,
  { cores, serviceMs, others = 0, rounds }: Record<string, number> & { cores: number },
): { readonly perSecond: number; readonly meanMs: number } {
  let calls = 0;
  let spentMs = 0;
  let sumMs = 0;
  for (let round = 0; round < (rounds ?? 0); round++) {
    const atOnce = limit.limit;
    limit.use(atOnce);
    const ms = (serviceMs ?? 0) * Math.max(1, (atOnce + others) / cores);
    clock.advance(ms);
    spentMs += ms;
    for (let call = 0; call < atOnce; call++) {
      limit.observe('apply', ms / 1000);
      calls++;
      sumMs += ms;
    }
  }
  return { perSecond: (calls / spentMs) * 1000, meanMs: sumMs / calls };
}

describe('how much is done at once', () => {
  test('grows until the server’s cores are busy, and not until calls wait for long', () => {
    const clock = new FakeClock();
    const limit = new ConcurrencyLimit({ max: 64, clock });
    assert.equal(limit.limit, 1, 'begins with one');
    run(limit, clock, { cores: 8, serviceMs: 10, rounds: 2000 });
    const { perSecond, meanMs } = run(limit, clock, { cores: 8, serviceMs: 10, rounds: 500 });
    assert.ok(perSecond > 0.95 * 800, `${perSecond} of 800 calls a second`);
    assert.ok(meanMs < 30, `${meanMs} ms a call of 10`);
    assert.ok(limit.limit < 32);
  });

  test('reaches its maximum on a server that has room, also a distant one', () => {
    for (const serviceMs of [2, 200]) {
      const clock = new FakeClock();
      const limit = new ConcurrencyLimit({ max: 8, clock });
      run(limit, clock, { cores: 1000, serviceMs, rounds: 1000 });
      assert.equal(limit.limit, 8);
    }
  });

  test('falls to its minimum when others take the server, and comes back when they leave', () => {
    const clock = new FakeClock();
    const limit = new ConcurrencyLimit({ max: 16, clock });
    run(limit, clock, { cores: 16, serviceMs: 5, rounds: 2000 });
    assert.equal(limit.limit, 16);
    run(limit, clock, { cores: 16, serviceMs: 5, others: 400, rounds: 60 });
    assert.equal(limit.limit, 1);
    run(limit, clock, { cores: 16, serviceMs: 5, rounds: 4000 });
    assert.equal(limit.limit, 16);
  });

  test('takes a server that has become slower for good as it is, in a while', () => {
    const clock = new FakeClock();
    const limit = new ConcurrencyLimit({ max: 8, memoryMs: 10_000, clock });
    run(limit, clock, { cores: 100, serviceMs: 5, rounds: 2000 });
    run(limit, clock, { cores: 100, serviceMs: 50, rounds: 60 });
    assert.equal(limit.limit, 1);
    run(limit, clock, { cores: 100, serviceMs: 50, rounds: 1000 });
    assert.equal(limit.limit, 8);
  });

  test('does not grow while nobody needs it', () => {
    const clock = new FakeClock();
    const limit = new ConcurrencyLimit({ max: 8, clock });
    for (let call = 0; call < 1000; call++) {
      clock.advance(5);
      limit.use(1);
      limit.observe('apply', 0.005);
    }
    assert.equal(limit.limit, 2, 'one more than is used');
  });

  test('kinds of calls are measured each against its own shortest', () => {
    const clock = new FakeClock();
    const limit = new ConcurrencyLimit({ max: 8, clock });
    for (let call = 0; call < 4000; call++) {
      clock.advance(5);
      limit.use(limit.limit);
      limit.observe(call % 2 === 0 ? 'apply' : 'delete', call % 2 === 0 ? 0.05 : 0.002);
    }
    assert.equal(limit.limit, 8);
  });

  test('falls at once when the server says that it is too much', () => {
    const clock = new FakeClock();
    const limit = new ConcurrencyLimit({ max: 8, clock });
    run(limit, clock, { cores: 100, serviceMs: 5, rounds: 1000 });
    clock.advance(1000);
    for (let call = 0; call < 8; call++) limit.observe('apply', 0.005);
    assert.equal(limit.limit, 8);
    clock.advance(1000);
    limit.refused();
    for (let call = 0; call < 8; call++) limit.observe('apply', 0.005);
    assert.ok(limit.limit <= 4);
  });

  test('the only one rests while the server has too much to do even so, and no longer', () => {
    const clock = new FakeClock();
    const limit = new ConcurrencyLimit({ min: 0.5, max: 4, clock });
    assert.equal(limit.restMs(100), 0);
    run(limit, clock, { cores: 2, serviceMs: 10, rounds: 200 });
    // What it has written makes work for others.
    run(limit, clock, { cores: 2, serviceMs: 10, others: 20, rounds: 100 });
    assert.deepEqual([limit.limit, limit.restMs(100)], [1, 100]);
    run(limit, clock, { cores: 2, serviceMs: 10, others: 4, rounds: 400 });
    assert.deepEqual([limit.limit, limit.restMs(100)], [1, 0], 'a busy server alone is no reason');
  });
});
