import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { LeaseElection } from '#operator/kube/lease.ts';
import { FakeKube } from '../../support/fake-kube/server.ts';

test('a leader that cannot reach the API server stops writing before another may start', async () => {
  const server = new FakeKube();
  const client = await server.start();
  const order: string[] = [];
  const run = (identity: string, stop: AbortController) =>
    new LeaseElection({ client, name: 'l', namespace: 'n', identity, durationSeconds: 1.5 }).run(
      async (fence) => {
        order.push(`${identity} leads`);
        await new Promise((resolve) => fence.addEventListener('abort', resolve));
        order.push(`${identity} stops`);
      },
      stop.signal,
    );
  const [stopFirst, stopSecond] = [new AbortController(), new AbortController()];
  const first = run('first', stopFirst);
  while (order.length < 1) await sleep(10);
  // Cut off: what it sends is never answered.
  server.misbehave = () => true;
  while (order.length < 2) await sleep(10);
  stopFirst.abort();
  server.misbehave = () => false;
  const second = run('second', stopSecond);
  while (order.length < 3) await sleep(10);
  assert.deepEqual(order, ['first leads', 'first stops', 'second leads']);
  stopSecond.abort();
  await Promise.all([first, second]);
  await server.stop();
});
