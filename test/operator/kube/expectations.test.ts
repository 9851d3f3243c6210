import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { Expectations } from '#operator/kube/expectations.ts';
import type { KubeObject } from '#operator/kube/resource.ts';
import { Store } from '#operator/kube/store.ts';
import { FakeClock } from '../../support/fake-clock.ts';

const pod = (uid: string, version: string, more: object = {}): KubeObject => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'p', namespace: 'ns', uid, resourceVersion: version, ...more },
});

describe('a key whose own writes have not come back', () => {
  let clock: FakeClock;
  let expectations: Expectations;
  let store: Store<KubeObject>;
  beforeEach(() => {
    clock = new FakeClock();
    expectations = new Expectations(clock, 60_000);
    store = new Store();
  });
  const isSatisfied = (): boolean => expectations.isSatisfied('ns/chat');

  test('waits until the store shows what was written, or something later', () => {
    assert.equal(isSatisfied(), true);
    for (const seen of ['100', '1000']) {
      store.replace([pod('1', '9')]);
      expectations.expectWrite('ns/chat', store, pod('1', '100'));
      assert.equal(isSatisfied(), false, 'versions are numbers and no texts: 9 is older than 100');
      store.set(pod('1', seen));
      assert.equal(isSatisfied(), true);
    }
  });

  test('waits for an object that it made, and not for one that was made anew since', () => {
    expectations.expectWrite('ns/chat', store, pod('1', '5'));
    assert.equal(isSatisfied(), false);
    store.set(pod('2', '4'));
    assert.equal(isSatisfied(), true);
  });

  test('does not wait for what others deleted before its turn came', () => {
    expectations.expectWrite('ns/chat', store, pod('1', '5'));
    store.set(pod('1', '5'));
    store.delete(pod('1', '6'));
    assert.equal(isSatisfied(), true);
    expectations.expectWrite('ns/chat', store, pod('2', '8'));
    store.replace([], '7');
    assert.equal(isSatisfied(), false, 'the list is older than the write');
    store.replace([], '9');
    assert.equal(isSatisfied(), true);
  });

  test('does not wait for objects of a type that is not served any more', () => {
    expectations.expectWrite('ns/chat', store, pod('1', '5'));
    store.clear();
    assert.equal(isSatisfied(), true);
    expectations.expectWrite('ns/chat', store, pod('2', '8'));
    assert.equal(isSatisfied(), false);
  });

  test('waits until what it deleted is gone, is going, or is another', () => {
    for (const after of [undefined, pod('1', '6', { deletionTimestamp: 'now' }), pod('2', '7')]) {
      store.replace([pod('1', '5')]);
      expectations.expectDelete('ns/chat', store, pod('1', '5'));
      assert.equal(isSatisfied(), false);
      store.replace(after === undefined ? [] : [after]);
      assert.equal(isSatisfied(), true);
    }
  });

  test('waits for all of them, and holds up no other key', () => {
    expectations.expectWrite('ns/chat', store, pod('1', '5'));
    expectations.expectWrite('ns/chat', store, {
      ...pod('9', '6'),
      metadata: { ...pod('9', '6').metadata, name: 'q' },
    });
    store.set(pod('1', '5'));
    assert.equal(isSatisfied(), false);
    assert.equal(expectations.isSatisfied('ns/other'), true);
  });

  test('goes on when an event must have been lost, or the key is forgotten', () => {
    expectations.expectWrite('ns/chat', store, pod('1', '5'));
    clock.advance(59_999);
    assert.equal(isSatisfied(), false);
    clock.advance(1);
    assert.equal(isSatisfied(), true);
    expectations.expectWrite('ns/chat', store, pod('1', '5'));
    expectations.forget('ns/chat');
    assert.equal(isSatisfied(), true);
  });
});
