import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { KubeClient } from '#operator/kube/client.ts';
import { OptionalKinds } from '#operator/kube/discovery.ts';
import { Reflector } from '#operator/kube/reflector.ts';
import { type KubeObject, RESOURCES } from '#operator/kube/resource.ts';
import { Store } from '#operator/kube/store.ts';
import { FakeKube } from '../../support/fake-kube/server.ts';

const type = RESOURCES.podMonitor;
const collection = '/apis/monitoring.coreos.com/v1/namespaces/n/podmonitors';
let server: FakeKube;
let client: KubeClient;
let stop: AbortController;
let isServed: boolean;
/** Discovery answers 503. */
let isBroken: boolean;
let canList: boolean;

beforeEach(async () => {
  [isServed, isBroken, canList] = [true, false, true];
  stop = new AbortController();
  server = new FakeKube();
  server.misbehave = ({ path, response }) => {
    if (path === '/apis/monitoring.coreos.com/v1') {
      const code = isBroken ? 503 : isServed ? 200 : 404;
      response.writeHead(code, { 'content-type': 'application/json' });
      const resources = [{ name: 'podmonitors', kind: 'PodMonitor' }];
      response.end(JSON.stringify(code === 200 ? { resources } : { kind: 'Status', code }));
      return true;
    }
    if (canList || !path.endsWith('/podmonitors')) return false;
    response.writeHead(403, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ kind: 'Status', code: 403, reason: 'Forbidden' }));
    return true;
  };
  client = await server.start();
});
afterEach(async () => {
  stop.abort();
  await server.stop();
});

function start() {
  const store = new Store<KubeObject>();
  const changes: boolean[] = [];
  const errors: unknown[] = [];
  const kinds = new OptionalKinds({
    client,
    kinds: [
      {
        type,
        store,
        createReflector: (hooks) => new Reflector({ client, type, store, namespace: 'n', hooks }),
      },
    ],
    onChange: (_type, isAvailable) => changes.push(isAvailable),
    onError: (_type, error) => errors.push(error),
    periodMs: 20,
    firstListMs: 200,
  });
  const ended = kinds.run(stop.signal);
  return { kinds, store, changes, errors, ended };
}

async function until(test: () => boolean): Promise<void> {
  for (let i = 0; !test(); i++) {
    assert.ok(i < 500, 'it did not happen within 5 s');
    await sleep(10);
  }
}

test('a kind that is there is available once its objects are listed, and the first look waits for that', async () => {
  server.put(`${collection}/m`);
  const { kinds, store, changes, ended } = start();
  await kinds.looked;
  assert.equal(kinds.isAvailable(type), true);
  assert.equal(store.size, 1);
  assert.deepEqual(changes, [true]);
  stop.abort();
  await ended;
});

test('a kind that appears later is told, watched, and told again when it goes, with its objects', async () => {
  isServed = false;
  const { kinds, store, changes } = start();
  await kinds.looked;
  assert.equal(kinds.isAvailable(type), false);
  isServed = true;
  await until(() => kinds.isAvailable(type));
  server.put(`${collection}/m`);
  await until(() => store.size === 1);
  isServed = false;
  await until(() => !kinds.isAvailable(type) && store.size === 0);
  isServed = true;
  await until(() => store.size === 1);
  assert.deepEqual(changes, [true, false, true]);
});

test('a kind that goes and comes between two looks is told as both', async () => {
  const { kinds, changes } = start();
  await kinds.looked;
  const answer = server.misbehave;
  server.misbehave = (request) => {
    if (request.verb !== 'watch') return answer(request);
    request.response.writeHead(404, { 'content-type': 'application/json' });
    request.response.end(JSON.stringify({ kind: 'Status', code: 404, reason: 'NotFound' }));
    server.misbehave = answer;
    return true;
  };
  server.closeWatches();
  await until(() => changes.length === 3);
  assert.deepEqual(changes, [true, false, true]);
});

test('discovery that is not answered changes nothing that was known', async () => {
  const { kinds, store, changes, errors } = start();
  await kinds.looked;
  isBroken = true;
  await until(() => errors.length >= 3);
  assert.equal(kinds.isAvailable(type), true);
  server.put(`${collection}/m`);
  await until(() => store.size === 1);
  assert.deepEqual(changes, [true]);
});

test('discovery that is down at the start holds nobody up, and is made up for', async () => {
  isBroken = true;
  const { kinds } = start();
  await kinds.looked;
  assert.equal(kinds.isAvailable(type), false);
  isBroken = false;
  await until(() => kinds.isAvailable(type));
});

test('a kind that may not be listed is never available, and the first look does not wait for it for ever', async () => {
  canList = false;
  const { kinds, changes } = start();
  await kinds.looked;
  await sleep(100);
  assert.equal(kinds.isAvailable(type), false);
  assert.deepEqual(changes, []);
});
