import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FailureBackoff } from '#operator/nvlm/failure-backoff.ts';
import type { RolloutPod } from '#operator/nvlm/rollout.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { rolloutPod } from '../../support/rollout-world.ts';

const pod = (name: string, more: Partial<RolloutPod> = {}): RolloutPod =>
  rolloutPod(name, 'r', { isReady: false, hasFailed: true, inFlight: undefined, ...more });
const plan = (names: readonly string[]) => ({
  create: names.length,
  drain: [],
  undrain: [],
  delete: names,
});

test('failed pods are replaced after pauses that double, and stay to be looked at meanwhile', () => {
  const clock = new FakeClock();
  const backoff = new FailureBackoff(clock);
  let paused = 0;
  for (const [i, seconds] of [5, 10, 20, 40, 80, 160, 300, 300].entries()) {
    const name = `pod-${i}`;
    const first = backoff.apply('ns/a', [pod(name)], plan([name]));
    assert.deepEqual(first.plan, { create: 0, drain: [], undrain: [], delete: [] });
    assert.equal(first.waitMs, seconds * 1000);
    clock.advance(seconds * 1000 - 1);
    assert.equal(backoff.apply('ns/a', [pod(name)], plan([name])).plan.create, 0);
    clock.advance(1);
    assert.deepEqual(backoff.apply('ns/a', [pod(name)], plan([name])).plan, plan([name]));
    paused += seconds;
  }
  assert.equal(clock.now(), paused * 1000);
});

test('a pod that serves ends the count, and other deployments are not paused', () => {
  const clock = new FakeClock();
  const backoff = new FailureBackoff(clock);
  for (const name of ['a', 'b', 'c']) {
    backoff.apply('ns/a', [pod(name)], plan([name]));
    clock.advance(300_000);
  }
  assert.equal(backoff.apply('ns/b', [pod('x')], plan(['x'])).waitMs, 5000);
  const serving = pod('ok', { isReady: true, hasFailed: false });
  assert.equal(backoff.apply('ns/a', [serving, pod('d')], plan(['d'])).waitMs, 5000);
});
