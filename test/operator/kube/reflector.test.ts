import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { KubeClient } from '#operator/kube/client.ts';
import { type Clock, systemClock } from '#operator/kube/clock.ts';
import { KubeError } from '#operator/kube/errors.ts';
import { Reflector, type ReflectorOptions, type RestartReason } from '#operator/kube/reflector.ts';
import { type KubeList, type KubeObject, RESOURCES } from '#operator/kube/resource.ts';
import { ownerIndex, Store } from '#operator/kube/store.ts';
import { FakeKube, type FakeRequest, refuse } from '../../support/fake-kube/server.ts';

const collection = '/api/v1/namespaces/default/configmaps';
const path = (name: string): string => `${collection}/${name}`;

describe('a reflector stays equal to an API server that', () => {
  let server: FakeKube;
  let client: KubeClient;
  let store: Store<KubeObject>;
  let restarts: RestartReason[];
  let stop: AbortController;
  let ended: Promise<void>;
  const listenerErrors: unknown[] = [];

  beforeEach(async () => {
    server = new FakeKube();
    client = await server.start();
    restarts = [];
    stop = new AbortController();
    ended = Promise.resolve();
    store = new Store<KubeObject>({ owner: ownerIndex }, (error) => listenerErrors.push(error));
  });
  afterEach(async () => {
    stop.abort();
    await ended;
    await server.stop();
  });

  const start = (options: Partial<ReflectorOptions<KubeObject>> = {}): Reflector<KubeObject> => {
    const reflector = new Reflector<KubeObject>({
      client,
      type: RESOURCES.configMap,
      store,
      namespace: 'default',
      backoff: { baseMs: 4, maxMs: 20 },
      inactivityMs: 250,
      hooks: { onRestart: (reason) => restarts.push(reason) },
      ...options,
    });
    ended = reflector.run(stop.signal);
    return reflector;
  };
  const names = (): string[] =>
    store
      .list()
      .map(({ metadata }) => metadata.name)
      .sort();
  const until = async (what: string, test: () => boolean): Promise<void> => {
    for (let i = 0; i < 500; i++) {
      if (test()) return;
      await sleep(10);
    }
    assert.fail(`not within 5 s: ${what}; has ${names()}, restarts ${restarts}`);
  };
  const has = (...wanted: string[]): Promise<void> =>
    until(`has ${wanted}`, () => names().join() === wanted.sort().join());
  const once = (verb: FakeRequest['verb'], answer: (request: FakeRequest) => void): void => {
    server.misbehave = (request) => {
      if (request.verb !== verb) return false;
      server.misbehave = () => false;
      answer(request);
      return true;
    };
  };

  test('answers a list in pages', async () => {
    for (const name of ['a', 'b', 'c', 'd', 'e']) server.put(path(name));
    await start({ pageSize: 2 }).synced;
    assert.deepEqual(names(), ['a', 'b', 'c', 'd', 'e']);
    assert.equal(server.count('list'), 3);
  });

  test('lets the token of the next page expire: the list begins again', async () => {
    for (const name of ['a', 'b', 'c']) server.put(path(name));
    server.misbehave = ({ verb, query, attempt, response }) => {
      if (verb !== 'list' || !query.has('continue') || attempt > 1) return false;
      refuse(response, 410, 'Expired');
      return true;
    };
    await start({ pageSize: 2 }).synced;
    assert.deepEqual(names(), ['a', 'b', 'c']);
  });

  test('cannot list at first: synced only after the first whole list, and never stops trying', async () => {
    server.put(path('a'));
    server.misbehave = ({ verb, attempt, response }) => {
      if (verb !== 'list' || attempt >= 3) return false;
      refuse(response, 500, 'InternalError');
      return true;
    };
    const reflector = start();
    assert.equal(reflector.hasSynced, false);
    await reflector.synced;
    assert.deepEqual(names(), ['a']);
    assert.deepEqual(restarts, ['error', 'error', 'error']);
  });

  test('is not there for long: once it is back, it is found within two seconds', async () => {
    const waits: number[] = [];
    const clock: Clock = {
      ...systemClock,
      setTimer: (callback, ms) => {
        waits.push(ms);
        return systemClock.setTimer(callback, Math.min(ms, 1));
      },
    };
    const away: KubeClient = {
      ...client,
      request: async (request) => {
        if (waits.length < 20) throw new KubeError('KUBE_UNREACHABLE', 'connection refused');
        // It answers before all of it has started.
        if (waits.length === 20) throw new KubeError('KUBE_STATUS', 'no', { status: 403 });
        return client.request(request);
      },
    };
    server.put(path('a'));
    const backoff = { baseMs: 500, maxMs: 30_000 };
    await start({ client: away, clock, backoff, random: () => 0.99 }).synced;
    assert.deepEqual(names(), ['a']);
    assert.ok(Math.max(...waits) <= 2000, String(waits));
    assert.ok(waits[0]! < 500, 'the first wait is short');
  });

  test('breaks the watch: it is taken up where it was, without a list, and nothing is missed', async () => {
    server.put(path('a'));
    await start().synced;
    await until('watches', () => server.count('watch') === 1);
    server.closeWatches();
    server.put(path('b'));
    server.remove(path('a'));
    await has('b');
    assert.equal(server.count('list'), 1);
    once('watch', ({ response }) => refuse(response, 500, 'InternalError'));
    server.closeWatches();
    server.put(path('c'));
    await has('b', 'c');
    assert.equal(server.count('list'), 1);
  });

  test('has forgotten the resourceVersion, by status or by event: a list makes up for it', async () => {
    server.put(path('a'));
    await start().synced;
    await until('watches', () => server.count('watch') === 1);
    once('watch', ({ response }) => refuse(response, 410, 'Expired'));
    server.closeWatches();
    server.remove(path('a'));
    server.put(path('b'));
    await has('b');
    await until('watches again', () => server.count('watch') >= 3);
    const gone = { kind: 'Status', code: 410, reason: 'Expired', message: 'too old' };
    server.broadcast(`${JSON.stringify({ type: 'ERROR', object: gone })}\n`);
    await until('listed again', () => server.count('list') === 3);
    assert.ok(restarts.filter((reason) => reason === 'gone').length >= 2, String(restarts));
  });

  test('sends an error in the middle of a watch and leaves it open: the watch is given up', async () => {
    await start().synced;
    await until('watches', () => server.count('watch') === 1);
    const failure = { kind: 'Status', code: 500, reason: 'InternalError', message: 'etcd' };
    server.broadcast(`${JSON.stringify({ type: 'ERROR', object: failure })}\n`);
    await until('watches again', () => server.count('watch') === 2);
    server.put(path('a'));
    await has('a');
  });

  test('falls silent on an open connection: the watch is given up and what happened is seen', async () => {
    await start().synced;
    await until('watches', () => server.count('watch') === 1);
    once('watch', ({ response }) => {
      response.writeHead(200);
      response.flushHeaders();
    });
    server.closeWatches();
    await until('hangs', () => server.count('watch') === 2);
    server.put(path('a'));
    await has('a');
  });

  test('is cut in the middle of a line, or of a character: nothing half is stored, nothing is lost', async () => {
    await start().synced;
    await until('watches', () => server.count('watch') === 1);
    once('watch', ({ response }) => {
      response.writeHead(200);
      response.write('{"type":"ADDED","object":{"metadata":{"name":"half","reso');
      setTimeout(() => response.socket?.destroy(), 20);
    });
    server.closeWatches();
    server.put(path('whole'), { data: { text: 'käse' } });
    await has('whole');
    const bytes = Buffer.from(
      `${JSON.stringify({ type: 'MODIFIED', object: { metadata: { name: 'whole', namespace: 'default', uid: 'uid-1', resourceVersion: '999' }, data: { text: 'ü' } } })}\n`,
    );
    const middle = bytes.indexOf(Buffer.from('ü')) + 1;
    once('watch', ({ response }) => {
      response.writeHead(200);
      response.write(bytes.subarray(0, middle));
      setTimeout(() => response.write(bytes.subarray(middle)), 20);
    });
    server.closeWatches();
    await until('whole character', () => {
      const { data } = (store.get('default/whole') ?? {}) as { data?: { text?: string } };
      return data?.text === 'ü';
    });
  });

  test('sends bookmarks only: the next watch starts from the last one', async () => {
    await start().synced;
    await until('watches', () => server.count('watch') === 1);
    const bookmark = { type: 'BOOKMARK', object: { metadata: { resourceVersion: '4711' } } };
    server.broadcast(`${JSON.stringify(bookmark)}\n`);
    await sleep(30);
    server.closeWatches();
    await until('watches again', () => server.count('watch') === 2);
    const last = server.requests.findLast(({ verb }) => verb === 'watch');
    assert.equal(last?.query.get('resourceVersion'), '4711');
    assert.equal(last?.query.get('allowWatchBookmarks'), 'true');
    const seconds = Number(last?.query.get('timeoutSeconds'));
    assert.ok(seconds >= 240 && seconds <= 480, `timeoutSeconds ${seconds}`);
  });

  test('has deleted and made an object anew in a gap: listeners hear of both', async () => {
    server.put(path('a'));
    await start().synced;
    await until('watches', () => server.count('watch') === 1);
    const heard: string[] = [];
    store.onChange(({ previous, current }) => {
      heard.push(`${previous?.metadata.uid ?? '-'} to ${current?.metadata.uid ?? '-'}`);
    });
    once('watch', ({ response }) => refuse(response, 410, 'Expired'));
    server.closeWatches();
    server.remove(path('a'));
    server.put(path('a'));
    await until('new uid', () => store.get('default/a')?.metadata.uid === 'uid-2');
    assert.deepEqual(heard, ['uid-1 to -', '- to uid-2']);
  });

  test('has a listener that throws: the others are told, the reflector goes on', async () => {
    listenerErrors.length = 0;
    const told: string[] = [];
    store.onChange(() => {
      throw new Error('listener');
    });
    store.onChange(({ key }) => told.push(key));
    await start().synced;
    await until('watches', () => server.count('watch') === 1);
    server.put(path('a'));
    await has('a');
    assert.deepEqual(told, ['default/a']);
    assert.equal(listenerErrors.length, 1);
  });

  test('asks to be left alone: Retry-After is waited for', async () => {
    const waits: number[] = [];
    const clock: Clock = {
      now: systemClock.now,
      setTimer: (callback, ms) => {
        waits.push(ms);
        return systemClock.setTimer(callback, 0);
      },
    };
    once('list', ({ response }) =>
      refuse(response, 429, 'TooManyRequests', 'busy', { 'retry-after': '7' }),
    );
    await start({ clock }).synced;
    assert.deepEqual(waits, [7000]);
  });

  test('closes every watch at once: it is not asked in a tight loop', async () => {
    const waits: number[] = [];
    const clock: Clock = {
      now: systemClock.now,
      setTimer: (callback, ms) => {
        waits.push(ms);
        return systemClock.setTimer(callback, 0);
      },
    };
    server.misbehave = ({ verb, attempt, response }) => {
      if (verb !== 'watch' || attempt >= 6) return false;
      response.writeHead(200).end();
      return true;
    };
    const backoff = { baseMs: 100, maxMs: 400 };
    start({ clock, backoff, random: () => 0.999 });
    await until('seven watches', () => server.count('watch') === 7);
    assert.deepEqual(
      waits.slice(0, 6).map((ms) => Math.round(ms)),
      [100, 200, 400, 400, 400, 400],
    );
  });

  test('knows fields that we do not: they are kept, and what is stored cannot be changed', async () => {
    server.put(path('a'), { futureField: { deep: [1, 2] } });
    await start().synced;
    const stored = store.get('default/a') as KubeObject & { futureField: { deep: number[] } };
    assert.deepEqual(stored.futureField, { deep: [1, 2] });
    assert.throws(() => stored.futureField.deep.push(3), TypeError);
  });

  for (const keepsManagedFields of [false, true]) {
    test(`tells who owns which field: that is ${keepsManagedFields ? '' : 'not '}kept`, async () => {
      const withOwners = (object: KubeObject): KubeObject => ({
        ...object,
        metadata: { ...object.metadata, managedFields: [{ manager: 'm', operation: 'Apply' }] },
      });
      const telling: KubeClient = {
        ...client,
        request: async (request) => {
          const list = (await client.request(request)) as KubeList<KubeObject>;
          return { ...list, items: list.items.map(withOwners) };
        },
        stream: async function* (...of) {
          for await (const line of client.stream(...of)) {
            const { type, object } = line as { type: string; object: KubeObject };
            yield { type, object: withOwners(object) };
          }
        },
      };
      server.put(path('a'));
      await start({ client: telling, keepsManagedFields }).synced;
      server.put(path('b'));
      await has('a', 'b');
      const kept = store.list().map(({ metadata }) => metadata.managedFields !== undefined);
      assert.deepEqual(kept, [keepsManagedFields, keepsManagedFields]);
    });
  }

  test('says nothing but bookmarks: the watch is kept, and how old the last word is is known', async () => {
    const reflector = start({ inactivityMs: 800 });
    assert.equal(reflector.lastEventAgeMs, undefined);
    await reflector.synced;
    await until('watches', () => server.count('watch') === 1);
    const bookmark = { type: 'BOOKMARK', object: { metadata: { resourceVersion: '200' } } };
    for (let i = 0; i < 30; i++) {
      await sleep(40);
      server.broadcast(`${JSON.stringify(bookmark)}\n`);
    }
    assert.equal(server.count('watch'), 1);
    await until('the bookmark is heard', () => (reflector.lastEventAgeMs ?? 1e9) < 200);
    assert.deepEqual(restarts, []);
  });

  test('loses an event: the next list, made from time to time, makes up for it', async () => {
    server.put(path('a'));
    server.misbehave = ({ verb, response }) => {
      // An open watch that tells nothing.
      if (verb !== 'watch') return false;
      response.writeHead(200);
      response.flushHeaders();
      setTimeout(() => response.end(), 20);
      return true;
    };
    await start({ relistMs: 300 }).synced;
    server.put(path('b'));
    server.remove(path('a'));
    await has('b');
    assert.ok(
      restarts.every((reason) => reason === 'closed' || reason === 'relist'),
      String(restarts),
    );
  });

  test('is listed by many: each lists again at a moment of its own', async () => {
    const seconds: number[] = [];
    server.misbehave = ({ verb, query }) => {
      if (verb === 'watch') seconds.push(Number(query.get('timeoutSeconds')));
      return false;
    };
    for (const random of [0, 0.5, 0.98]) {
      const watches = server.count('watch');
      start({ relistMs: 100_000, random: () => random });
      await until('watches', () => server.count('watch') > watches);
      stop.abort();
      await ended;
      stop = new AbortController();
    }
    assert.deepEqual(seconds, [50, 75, 99]);
  });

  test('ends every watch: connections do not pile up', async () => {
    server.misbehave = ({ verb, attempt, response }) => {
      if (verb !== 'watch' || attempt >= 60) return false;
      if (attempt % 2 === 0) response.socket?.destroy();
      else response.writeHead(200).end();
      return true;
    };
    await start({ backoff: { baseMs: 1, maxMs: 1 } }).synced;
    await until('sixty watches', () => server.count('watch') > 60);
    server.put(path('a'));
    await has('a');
    assert.ok((await server.connections()) <= 3, `${await server.connections()} connections`);
  });
});
