/** What the client, the reflector and the election rely on: the same tests against the fake and a real API server. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { KubeClient } from '#operator/kube/client.ts';
import type { KubeErrorCode } from '#operator/kube/errors.ts';
import { LeaseElection } from '#operator/kube/lease.ts';
import { Reflector } from '#operator/kube/reflector.ts';
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
      await remove('one');
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
          durationSeconds: 2,
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
      await until('behind leads', () => leaders.length === 1);
      const second = run('ahead', hour);
      await sleep(3000);
      assert.deepEqual(leaders, ['behind'], 'the renewed lease is respected beyond its duration');
      assert.equal(second.election.isLeader, false);
      first.stop.abort();
      await first.ended;
      await until('ahead leads', () => leaders.length === 2);
      assert.deepEqual(leaders, ['behind', 'ahead']);
      second.stop.abort();
      await second.ended;
    });
  });
}
