import assert from 'node:assert/strict';
import { test } from 'node:test';
import { decideZero, type ZeroInput } from '#operator/scaling/zero.ts';

const idle: ZeroInput = {
  minReplicas: 0,
  replicas: 1,
  idleTimeoutMs: 60_000,
  wake: undefined,
  lastWake: undefined,
  waiting: 0,
  running: 0,
  isStale: false,
  readyReplicas: 1,
  idleMs: 60_000,
};
const decide = (more: Partial<ZeroInput>) => decideZero({ ...idle, ...more });

test('what was not asked for its idle time stops, whatever the number of its replicas', () => {
  assert.deepEqual(decide({}), { scaleTo: 0 });
  assert.deepEqual(decide({ replicas: 5 }), { scaleTo: 0 });
  assert.deepEqual(decide({ idleMs: 59_000 }), { lookAgainMs: 1000 });
});

test('what may not stop never does', () => {
  assert.equal(decide({ minReplicas: 1 }), undefined);
  assert.equal(decide({ waiting: 1 }), undefined);
  assert.equal(decide({ running: 1 }), undefined);
  assert.deepEqual(decide({ isStale: true }), { lookAgainMs: 1000 });
});

test('the idle time does not run before somebody could have been served', () => {
  assert.equal(decide({ readyReplicas: 0, idleMs: 1e9 }), undefined);
  assert.equal(decide({ idleMs: undefined }), undefined);
});

test('a new wake signal starts one replica, the same one only once', () => {
  const asleep = { replicas: 0, readyReplicas: 0, idleMs: undefined };
  assert.equal(decide(asleep), undefined);
  assert.deepEqual(decide({ ...asleep, wake: '1' }), { scaleTo: 1 });
  assert.equal(decide({ ...asleep, wake: '1', lastWake: '1' }), undefined);
  assert.deepEqual(decide({ ...asleep, wake: '2', lastWake: '1' }), { scaleTo: 1 });
});

test('zero that a user set without autoscaling to zero is left alone', () => {
  assert.equal(decide({ replicas: 0, minReplicas: 1, wake: '1' }), undefined);
});

test('a wake signal that comes as the last replica is about to stop keeps it', () => {
  assert.deepEqual(decide({ wake: '2', lastWake: '1' }), { lookAgainMs: 60_000 });
  assert.deepEqual(decide({ wake: '1', lastWake: '1' }), { scaleTo: 0 });
});
