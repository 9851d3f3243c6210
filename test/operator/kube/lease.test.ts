import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { KubeClient } from '#operator/kube/client.ts';
import { KubeError } from '#operator/kube/errors.ts';
import { LeaseElection } from '#operator/kube/lease.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { FakeKube } from '../../support/fake-kube/server.ts';

const lease = { name: 'l', namespace: 'n' };

test('a leader that cannot reach the API server stops writing before another may start', async () => {
  const server = new FakeKube();
  const client = await server.start();
  const order: string[] = [];
  const run = (identity: string, stop: AbortController) =>
    new LeaseElection({ ...lease, client, identity, durationSeconds: 1.5 }).run(async (fence) => {
      order.push(`${identity} leads`);
      await new Promise((resolve) => fence.addEventListener('abort', resolve));
      order.push(`${identity} stops`);
    }, stop.signal);
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

test('a leader that stops hands over at once, and only after its work has ended', async () => {
  const server = new FakeKube();
  const client = await server.start();
  const order: string[] = [];
  const stop = new AbortController();
  const options = { client, name: 'l', namespace: 'n', durationSeconds: 30 };
  let finish = (): void => {};
  let leads = false;
  const first = new LeaseElection({ ...options, identity: 'first' }).run(async (fence) => {
    leads = true;
    await new Promise((resolve) => fence.addEventListener('abort', resolve));
    order.push(holder() ?? '');
    await new Promise<void>((resolve) => {
      finish = resolve;
    });
    order.push(holder() ?? '');
  }, stop.signal);
  const holder = (): string | undefined =>
    (
      server.read('/apis/coordination.k8s.io/v1/namespaces/n/leases/l') as
        | { spec?: { holderIdentity: string } }
        | undefined
    )?.spec?.holderIdentity;
  while (!leads) await sleep(10);
  stop.abort();
  while (order.length === 0) await sleep(10);
  await sleep(50);
  finish();
  await first;
  assert.deepEqual(order, ['first', 'first'], 'held as long as it works');
  assert.equal(holder(), '');
  const stopSecond = new AbortController();
  const startedAt = performance.now();
  const second = new LeaseElection({ ...options, identity: 'second' }).run(async () => {
    order.push('second leads');
    stopSecond.abort();
  }, stopSecond.signal);
  await second;
  assert.equal(order.at(-1), 'second leads');
  assert.ok(performance.now() - startedAt < 15_000, 'long before the duration of thirty seconds');
  await server.stop();
});

test('times of another holder are not read: one an hour in the past leads as long as it renews', async () => {
  const server = new FakeKube();
  const client = await server.start();
  const path = '/apis/coordination.k8s.io/v1/namespaces/n/leases/l';
  const renew = (i: number) =>
    server.put(path, {
      spec: {
        holderIdentity: 'other',
        leaseDurationSeconds: 1,
        renewTime: '2020-01-01T00:00:00.000000Z',
        leaseTransitions: i,
      },
    });
  let leads = false;
  const stop = new AbortController();
  renew(0);
  const election = new LeaseElection({ ...lease, client, identity: 'me', durationSeconds: 1 });
  const ended = election.run(async (fence) => {
    leads = true;
    await new Promise((resolve) => fence.addEventListener('abort', resolve));
  }, stop.signal);
  for (let i = 1; i < 15; i++) {
    await sleep(200);
    renew(i);
    assert.equal(leads, false);
  }
  for (let i = 0; i < 500 && !leads; i++) await sleep(10);
  assert.equal(leads, true, 'once it does not renew any more');
  stop.abort();
  await ended;
  await server.stop();
});

test('a write that is on its way when the lease is lost is cut', async () => {
  const server = new FakeKube();
  const client = await server.start();
  let outcome = '';
  const stop = new AbortController();
  server.misbehave = ({ path }) => path.includes('/configmaps/');
  const election = new LeaseElection({ ...lease, client, identity: 'me', durationSeconds: 1 });
  const ended = election.run(async (fence) => {
    const request = client.request({
      method: 'PUT',
      path: '/api/v1/namespaces/n/configmaps/slow',
      body: {},
      signal: fence,
    });
    server.put('/apis/coordination.k8s.io/v1/namespaces/n/leases/l', {
      spec: { holderIdentity: 'thief', leaseDurationSeconds: 60 },
    });
    await request.catch(({ code }) => {
      outcome = code;
    });
    stop.abort();
  }, stop.signal);
  await ended;
  assert.equal(outcome, 'KUBE_ABORTED');
  await server.stop();
});

test('a server that is away is looked for every second: a leader that it knew keeps its lease through a short outage', async () => {
  const server = new FakeKube();
  const client = await server.start();
  let isAway = false;
  let attempts = 0;
  const flaky: KubeClient = {
    ...client,
    request: async (request) => {
      if (!isAway) return client.request(request);
      attempts++;
      throw new KubeError('KUBE_UNREACHABLE', 'connection refused');
    },
  };
  const clock = new FakeClock();
  const stop = new AbortController();
  let led = 0;
  const election = new LeaseElection({
    ...lease,
    client: flaky,
    identity: 'i',
    clock,
    random: () => 0,
  });
  const ended = election.run(async (fence) => {
    led++;
    await new Promise((resolve) => fence.addEventListener('abort', resolve));
  }, stop.signal);
  const pass = async (seconds: number): Promise<void> => {
    for (let second = 0; second < seconds; second++) {
      clock.advance(1000);
      await sleep(20);
    }
  };
  while (led === 0) await sleep(5);
  isAway = true;
  await pass(9);
  assert.ok(attempts >= 4, `${attempts} attempts from the fifth to the ninth second`);
  assert.equal(election.isLeader, true);
  await pass(3);
  assert.equal(election.isLeader, false, 'in time before another may start');
  isAway = false;
  await pass(2);
  assert.deepEqual([election.isLeader, led], [true, 2]);
  stop.abort();
  await ended;
  await server.stop();
});
