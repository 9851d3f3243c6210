import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import fc from 'fast-check';
import { OwnScaler, type OwnScalingInput } from '#operator/scaling/own.ts';
import { FakeClock } from '../../support/fake-clock.ts';

describe('the operator’s own scaling', () => {
  let clock: FakeClock;
  let scaler: OwnScaler;
  const input = (replicas: number, waiting: number, more: Partial<OwnScalingInput> = {}) => ({
    key: 'ns/chat',
    replicas,
    waiting,
    isStale: false,
    target: 4,
    minReplicas: 1,
    maxReplicas: 8,
    stabilizationMs: 60_000,
    ...more,
  });
  beforeEach(() => {
    clock = new FakeClock();
    scaler = new OwnScaler(clock);
  });

  test('goes up at once to what waits over the target, and not above the most', () => {
    assert.equal(scaler.decide(input(1, 12)), 3);
    assert.equal(scaler.decide(input(3, 14)), 4);
    assert.equal(scaler.decide(input(4, 1000)), 8);
    assert.equal(scaler.decide(input(8, 1000)), undefined);
  });

  test('changes nothing within a tenth of the target, either way', () => {
    const free = { stabilizationMs: 0 };
    scaler.decide(input(5, 20, free));
    for (const waiting of [18, 21]) {
      clock.advance(1);
      assert.equal(scaler.decide(input(5, waiting, free)), undefined);
    }
    assert.equal(scaler.decide(input(5, 23, free)), 6);
    clock.advance(1);
    assert.equal(scaler.decide(input(6, 20, free)), 5);
    assert.equal(scaler.decide(input(9, 36, free)), 8, 'the bounds hold all the same');
  });

  test('goes down only after the window, to the highest number called for in it', () => {
    assert.equal(scaler.decide(input(1, 24)), 6);
    clock.advance(10_000);
    assert.equal(scaler.decide(input(6, 0)), undefined);
    clock.advance(40_000);
    assert.equal(scaler.decide(input(6, 10)), undefined);
    clock.advance(10_001);
    assert.equal(
      scaler.decide(input(6, 0)),
      3,
      'six were called for a minute ago, three within it',
    );
    clock.advance(60_001);
    assert.equal(scaler.decide(input(3, 0)), 1);
  });

  test('takes nothing away after a start before a whole window was seen', () => {
    assert.equal(scaler.decide(input(5, 0)), undefined);
    clock.advance(59_000);
    assert.equal(scaler.decide(input(5, 0)), undefined);
    clock.advance(2000);
    assert.equal(scaler.decide(input(5, 0)), 1);
  });

  test('takes nothing away while an engine is silent, and still adds', () => {
    const stale = { isStale: true, stabilizationMs: 0 };
    scaler.decide(input(3, 0, stale));
    clock.advance(1);
    assert.equal(scaler.decide(input(3, 0, stale)), undefined);
    assert.equal(scaler.decide(input(3, 20, stale)), 5);
  });

  test('never goes below the least, nor to zero', () => {
    const free = { stabilizationMs: 0 };
    scaler.decide(input(4, 0, free));
    clock.advance(1);
    assert.equal(scaler.decide(input(4, 0, { ...free, minReplicas: 2 })), 2);
    clock.advance(1);
    assert.equal(scaler.decide(input(2, 0, { ...free, minReplicas: 0 })), 1);
  });

  test('keeps deployments apart, and forgets one that is gone', () => {
    scaler.decide(input(1, 24));
    assert.equal(scaler.decide(input(1, 0, { key: 'ns/other' })), undefined);
    scaler.forget('ns/chat');
    scaler.decide(input(2, 0));
    clock.advance(60_001);
    assert.equal(scaler.decide(input(2, 0)), 1);
  });

  test('stays within its bounds, and by the HPA’s rule, for every history', () => {
    const step = fc.record({
      waiting: fc.nat(200),
      isStale: fc.boolean(),
      afterMs: fc.nat(90_000),
    });
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 40 }),
        fc.integer({ min: 1, max: 8 }),
        (steps, first) => {
          const time = new FakeClock();
          const own = new OwnScaler(time);
          let replicas = first;
          for (const { waiting, isStale, afterMs } of steps) {
            time.advance(afterMs);
            const next = own.decide(input(replicas, waiting, { isStale })) ?? replicas;
            const isNear = Math.abs(waiting / (4 * replicas) - 1) <= 0.1;
            const wanted = Math.min(8, Math.max(1, isNear ? replicas : Math.ceil(waiting / 4)));
            assert.ok(next >= 1 && next <= 8);
            if (wanted >= replicas) assert.equal(next, wanted);
            else {
              assert.ok(next >= wanted && next <= replicas);
              if (isStale) assert.equal(next, replicas);
            }
            replicas = next;
          }
        },
      ),
    );
  });
});
