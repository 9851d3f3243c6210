import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { KubeObject } from '#operator/kube/resource.ts';
import { ownerIndex, Store } from '#operator/kube/store.ts';

const object = (name: string, uid: string, version: number, owners: readonly string[] = []) =>
  ({
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: {
      name,
      namespace: 'ns',
      uid,
      resourceVersion: String(version),
      ownerReferences: owners.map((owner) => ({
        apiVersion: 'v1',
        kind: 'X',
        name: owner,
        uid: owner,
      })),
    },
  }) satisfies KubeObject;

test('objects are found by their owner, also after they changed hands or went', () => {
  const store = new Store<KubeObject>({ owner: ownerIndex });
  const names = (owner: string): string[] =>
    store.by('owner', owner).map(({ metadata }) => metadata.name);
  store.set(object('a', '1', 1, ['x']));
  store.set(object('b', '2', 2, ['x', 'y']));
  assert.deepEqual(names('x'), ['a', 'b']);
  assert.deepEqual(names('y'), ['b']);
  store.set(object('b', '2', 3, ['y']));
  assert.deepEqual(names('x'), ['a']);
  store.delete(object('a', '1', 4));
  assert.deepEqual(names('x'), []);
  assert.throws(() => store.by('label', 'x'), /no index label/);
});

test('what is stored cannot be changed by who reads it', () => {
  const store = new Store<KubeObject>();
  store.set({ ...object('a', '1', 1), data: { deep: [1] } });
  const { data } = store.get('ns/a') as unknown as { data: { deep: number[] } };
  assert.throws(() => data.deep.push(2), TypeError);
});

test('the same version again is no change', () => {
  const store = new Store<KubeObject>();
  let changes = 0;
  store.onChange(() => changes++);
  store.set(object('a', '1', 1));
  store.set(object('a', '1', 1));
  store.replace([object('a', '1', 1)]);
  assert.equal(changes, 1);
});

test('however lists and events come, listeners that add up what they hear have what is stored', () => {
  const version = fc.integer({ min: 1, max: 1000 });
  const one = fc.record({
    name: fc.constantFrom('a', 'b', 'c'),
    uid: fc.constantFrom('1', '2', '3'),
    version,
    owners: fc.subarray(['x', 'y']),
  });
  const step = fc.oneof(
    fc.record({ do: fc.constant('set' as const), one }),
    fc.record({ do: fc.constant('delete' as const), one }),
    fc.record({
      do: fc.constant('replace' as const),
      list: fc.uniqueArray(one, { selector: ({ name }) => name }),
    }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
      const store = new Store<KubeObject>({ owner: ownerIndex });
      const heard = new Map<string, KubeObject>();
      store.onChange(({ key, previous, current }) => {
        assert.equal(previous, heard.get(key), 'each change starts from the one before');
        assert.ok(
          previous === undefined ||
            current === undefined ||
            previous.metadata.uid === current.metadata.uid,
          'another object is told as gone and as new',
        );
        if (current === undefined) heard.delete(key);
        else heard.set(key, current);
      });
      const make = ({
        name,
        uid,
        version: v,
        owners,
      }: {
        name: string;
        uid: string;
        version: number;
        owners: string[];
      }) => object(name, uid, v, owners);
      for (const each of steps) {
        if (each.do === 'replace') store.replace(each.list.map(make));
        else store[each.do](make(each.one));
        assert.deepEqual(new Set(heard.values()), new Set(store.list()));
        for (const owner of ['x', 'y']) {
          const wanted = store.list().filter((kept) => ownerIndex(kept).includes(owner));
          assert.deepEqual(new Set(store.by('owner', owner)), new Set(wanted));
        }
      }
    }),
  );
});
