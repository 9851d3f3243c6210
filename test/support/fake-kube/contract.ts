/** What the client, the reflector and the election rely on: the same tests against the fake and a real API server. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { KubeClient } from '#operator/kube/client.ts';
import type { KubeErrorCode } from '#operator/kube/errors.ts';
import { LeaseElection } from '#operator/kube/lease.ts';
import { Reflector, type ReflectorOptions } from '#operator/kube/reflector.ts';
import { collectionPath, type KubeObject, objectPath, RESOURCES } from '#operator/kube/resource.ts';
import { ownerIndex, Store } from '#operator/kube/store.ts';

const namespace = 'default';
const collection = collectionPath(RESOURCES.configMap, namespace);
const pathOf = (name: string): string => objectPath(RESOURCES.configMap, name, namespace);

export interface ContractServer {
  readonly client: KubeClient;
  stop(): Promise<void>;
}

export function kubeContract(
  title: string,
  skip: string | false,
  start: () => Promise<ContractServer>,
): void {
  describe(`the API as we rely on it, by ${title}`, { skip, timeout: 120_000 }, () => {
    let server: ContractServer;
    let client: KubeClient;
    before(async () => {
      server = await start();
      client = server.client;
    });
    after(() => server?.stop());

    const make = async (name: string, data: Record<string, string> = {}): Promise<KubeObject> =>
      (await client.request({
        method: 'POST',
        path: collection,
        body: { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace }, data },
      })) as KubeObject;
    const remove = (name: string) => client.request({ method: 'DELETE', path: pathOf(name) });
    const refused = (code: KubeErrorCode, status: number, reason: string) => ({
      code,
      status,
      reason,
    });
    const until = async (what: string, check: () => boolean): Promise<void> => {
      for (let i = 0; i < 1000; i++) {
        if (check()) return;
        await sleep(10);
      }
      assert.fail(`not within 10 s: ${what}`);
    };

    test('names that are taken, missing or stale are refused with their reasons', async () => {
      const first = await make('one');
      await assert.rejects(make('one'), refused('KUBE_STATUS', 409, 'AlreadyExists'));
      const path = pathOf('nobody');
      await assert.rejects(
        client.request({ method: 'GET', path }),
        refused('KUBE_STATUS', 404, 'NotFound'),
      );
      const body = { ...first, data: { a: '1' } };
      await client.request({ method: 'PUT', path: pathOf('one'), body });
      await assert.rejects(
        client.request({ method: 'PUT', path: pathOf('one'), body }),
        refused('KUBE_STATUS', 409, 'Conflict'),
      );
      const { uid, resourceVersion } = first.metadata;
      await assert.rejects(
        client.request({
          method: 'DELETE',
          path: pathOf('one'),
          body: { preconditions: { uid, resourceVersion } },
        }),
        refused('KUBE_STATUS', 409, 'Conflict'),
      );
      await remove('one');
    });

    test('a partial apply leaves the fields of others, takes theirs only by force, and drops its own that it leaves out', async () => {
      const type = RESOURCES.configMap;
      const apply = async (fieldManager: string, data: object, force = false) => {
        const object = {
          apiVersion: 'v1',
          kind: 'ConfigMap',
          metadata: { name: 'applied', namespace },
          data,
        };
        const { data: left } = await client.apply<KubeObject>(type, object, {
          fieldManager,
          force,
        });
        return left;
      };
      assert.deepEqual(await apply('one', { a: '1', b: '1' }), { a: '1', b: '1' });
      assert.deepEqual(await apply('two', { c: '2' }), { a: '1', b: '1', c: '2' });
      await assert.rejects(
        apply('two', { a: '2', c: '2' }),
        refused('KUBE_STATUS', 409, 'Conflict'),
      );
      assert.deepEqual(await apply('two', { a: '2', c: '2' }, true), { a: '2', b: '1', c: '2' });
      assert.deepEqual(await apply('one', {}), { a: '2', c: '2' });
      await remove('applied');
    });

    test('a read, an edit and a write of raw JSON keep every field and every time as they were', async () => {
      const made = (await client.request({
        method: 'POST',
        path: collectionPath(RESOURCES.lease, namespace),
        body: {
          apiVersion: 'coordination.k8s.io/v1',
          kind: 'Lease',
          metadata: { name: 'kept', namespace, annotations: { a: '1' } },
          spec: {
            renewTime: '2026-11-24T10:00:00.123456Z',
            strategy: 'OldestEmulationVersion',
            preferredHolder: 'x',
          },
        },
      })) as KubeObject & { spec: object };
      const path = objectPath(RESOURCES.lease, 'kept', namespace);
      const read = (await client.request({ method: 'GET', path })) as typeof made;
      const body = { ...read, spec: { ...read.spec, holderIdentity: 'me' } };
      const written = (await client.request({ method: 'PUT', path, body })) as typeof made;
      assert.deepEqual(written.spec, { ...made.spec, holderIdentity: 'me' });
      assert.equal(
        (written.spec as { renewTime?: string }).renewTime,
        '2026-11-24T10:00:00.123456Z',
      );
      await client.request({ method: 'DELETE', path });
    });

    /** The same API through a network that can be cut. */
    const cuttable = () => {
      let cut = new AbortController();
      const streams: string[] = [];
      const through: KubeClient = {
        ...client,
        async *stream(path, query, { signal, inactivityMs }) {
          streams.push(String(query.resourceVersion));
          const both = AbortSignal.any([signal, cut.signal]);
          yield* client.stream(path, query, { signal: both, inactivityMs });
        },
      };
      return {
        through,
        streams,
        cut(): void {
          cut.abort();
          cut = new AbortController();
        },
      };
    };
    const follow = async (
      through: KubeClient,
      options: Partial<ReflectorOptions<KubeObject>> = {},
    ) => {
      const store = new Store<KubeObject>({ owner: ownerIndex });
      const stop = new AbortController();
      const lists: number[] = [];
      const restarts: string[] = [];
      const reflector = new Reflector<KubeObject>({
        client: through,
        type: RESOURCES.configMap,
        store,
        namespace,
        // Slow enough that what happens in the gap happens before the next watch.
        backoff: { baseMs: 400, maxMs: 400 },
        random: () => 0.999,
        hooks: {
          onList: (count) => lists.push(count),
          onRestart: (reason) => restarts.push(reason),
        },
        ...options,
      });
      const running = reflector.run(stop.signal);
      await reflector.synced;
      const end = async (): Promise<void> => {
        stop.abort();
        await running;
      };
      return { store, lists, restarts, end };
    };

    test('a watch that is cut is taken up where it was: what happened in the gap is told, and nothing is listed again', async () => {
      await make('gap-kept');
      await make('gap-gone');
      await make('gap-again');
      const { through, streams, cut } = cuttable();
      const { store, lists, restarts, end } = await follow(through);
      await until('it watches', () => streams.length === 1);
      const heard: string[] = [];
      store.onChange(({ key, previous, current }) => {
        heard.push(
          `${key.slice('default/gap-'.length)} ${previous ? '-' : ''}${current ? '+' : ''}`,
        );
      });
      cut();
      await remove('gap-gone');
      await remove('gap-again');
      await make('gap-again');
      await make('gap-new');
      await until('the gap is closed', () => heard.length >= 4);
      assert.deepEqual(heard, ['gone -', 'again -', 'again +', 'new +']);
      assert.equal(lists.length, 1);
      assert.deepEqual(restarts, ['error']);
      await end();
      for (const name of ['gap-kept', 'gap-again', 'gap-new']) await remove(name);
    });

    test('an object that was made anew between two lists is told as gone and as new', async () => {
      await make('relisted');
      const { through, streams, cut } = cuttable();
      const { store, lists, end } = await follow(through, { relistMs: 1 });
      await until('it watches', () => streams.length >= 1);
      const heard: string[] = [];
      store.onChange(({ key, previous, current }) => {
        if (key === 'default/relisted') heard.push(`${previous ? '-' : ''}${current ? '+' : ''}`);
      });
      cut();
      await remove('relisted');
      await make('relisted');
      await until('it is told', () => heard.length >= 2);
      assert.deepEqual(heard, ['-', '+']);
      assert.ok(lists.length >= 2);
      await end();
      await remove('relisted');
    });

    test('a watch of something quiet stays one watch', async () => {
      const { through, streams } = cuttable();
      const { store, restarts, end } = await follow(through);
      await until('it watches', () => streams.length === 1);
      await sleep(3000);
      await make('after-quiet');
      await until('it is seen', () => store.get('default/after-quiet') !== undefined);
      assert.equal(streams.length, 1);
      assert.deepEqual(restarts, []);
      await end();
      await remove('after-quiet');
    });

    test('a reflector lists in pages, follows, and tells a re-made object apart', async () => {
      for (const name of ['p1', 'p2', 'p3', 'p4', 'p5']) await make(name);
      const store = new Store<KubeObject>({ owner: ownerIndex }, (error) =>
        assert.fail(String(error)),
      );
      const stop = new AbortController();
      const type = RESOURCES.configMap;
      const reflector = new Reflector<KubeObject>({ client, type, store, namespace, pageSize: 2 });
      const running = reflector.run(stop.signal);
      await reflector.synced;
      const names = (): string =>
        store
          .list()
          .map(({ metadata }) => metadata.name)
          .filter((name) => /^p\d/.test(name))
          .sort()
          .join();
      assert.equal(names(), 'p1,p2,p3,p4,p5');
      const uid = store.get('default/p2')?.metadata.uid;
      const changes: boolean[] = [];
      store.onChange(({ key, current }) => {
        if (key === 'default/p2') changes.push(current !== undefined);
      });
      await remove('p1');
      await remove('p2');
      await make('p2', { again: 'yes' });
      await until('p2 is another', () => {
        const now = store.get('default/p2')?.metadata.uid;
        return now !== undefined && now !== uid && names() === 'p2,p3,p4,p5';
      });
      assert.deepEqual(changes, [false, true]);
      stop.abort();
      await running;
      for (const name of ['p2', 'p3', 'p4', 'p5']) await remove(name);
    });

    test('a Lease takes times of six digits and no others', async () => {
      const lease = (renewTime: string) =>
        client.request({
          method: 'POST',
          path: collectionPath(RESOURCES.lease, namespace),
          body: {
            apiVersion: 'coordination.k8s.io/v1',
            kind: 'Lease',
            metadata: { name: 'times', namespace },
            spec: { holderIdentity: 'x', leaseDurationSeconds: 1, renewTime },
          },
        });
      await assert.rejects(lease('2026-11-24T10:00:00.123Z'), { code: 'KUBE_STATUS', status: 400 });
      await lease('2026-11-24T10:00:00.123000Z');
    });

    test('one of two leads, whatever its clock says, and hands over when it stops', async () => {
      const leaders: string[] = [];
      const run = (identity: string, skewMs: number) => {
        const stop = new AbortController();
        const election = new LeaseElection({
          client,
          name: 'contract',
          namespace,
          identity,
          durationSeconds: 4,
          wallClock: () => new Date(Date.now() + skewMs),
        });
        const ended = election.run(async (fence) => {
          leaders.push(identity);
          await new Promise((resolve) => fence.addEventListener('abort', resolve));
        }, stop.signal);
        return { election, stop, ended };
      };
      const hour = 3_600_000;
      // An hour behind: by its own times its lease ran out long ago.
      const first = run('behind', -hour);
      let second: ReturnType<typeof run> | undefined;
      try {
        await until('behind leads', () => leaders.length === 1);
        second = run('ahead', hour);
        await sleep(6000);
        // A machine under load may be too slow to renew; the same one takes it again then.
        assert.deepEqual(new Set(leaders), new Set(['behind']), 'a renewed lease is respected');
        assert.equal(second.election.isLeader, false);
        first.stop.abort();
        await first.ended;
        await until('ahead leads', () => leaders.at(-1) === 'ahead');
      } finally {
        for (const one of [first, second]) {
          one?.stop.abort();
          await one?.ended;
        }
      }
    });
  });
}
