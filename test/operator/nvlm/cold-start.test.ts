import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { coldStartOf, durationText } from '#operator/nvlm/cold-start.ts';
import type { PodObject } from '#operator/nvlm/pod.ts';

const at = (seconds: number): string =>
  new Date(Date.UTC(2026, 0, 1) + seconds * 1000).toISOString().replace('.000', '');

const pod = (
  name: string,
  created: number,
  ready: number,
  { isReady = true, restartCount = 0 } = {},
): PodObject => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name, namespace: 'ns', creationTimestamp: at(created) },
  spec: {},
  status: {
    conditions: [
      { type: 'Ready', status: isReady ? 'True' : 'False', lastTransitionTime: at(ready) },
    ],
    containerStatuses: [{ name: 'engine', restartCount }],
  },
});

describe('the cold start that is told', () => {
  test('is of the youngest replica that is ready, from its creation', () => {
    const found = coldStartOf(
      [pod('a', 0, 41), pod('b', 100, 292), pod('c', 300, 310, { isReady: false })],
      undefined,
    );
    assert.deepEqual(found, { pod: 'b', startedAt: at(100), seconds: 192, duration: '3m12s' });
  });

  test('stays when a pod loses its readiness and finds it again, and when its pod goes', () => {
    const first = coldStartOf([pod('a', 0, 41), pod('b', 100, 160)], undefined);
    assert.equal(first?.duration, '1m');
    assert.deepEqual(coldStartOf([pod('a', 0, 41), pod('b', 100, 5000)], first), first);
    assert.deepEqual(coldStartOf([pod('a', 0, 9000)], first), first);
    assert.deepEqual(coldStartOf([], first), first);
  });

  test('is not of an engine that ended and started again in its pod', () => {
    assert.equal(coldStartOf([pod('a', 0, 4000, { restartCount: 2 })], undefined), undefined);
  });
});

test('durations are written as kubectl writes ages', () => {
  const written = [0, 59, 60, 192, 3600, 3840, 7205].map(durationText);
  assert.deepEqual(written, ['0s', '59s', '1m', '3m12s', '1h', '1h4m', '2h']);
});
