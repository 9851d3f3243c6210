import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { AskingOrder } from '#operator/scaling/asking-order.ts';
import type { ScrapeTarget } from '#operator/scaling/scraper.ts';

const target = (pod: string, isPressing = false): ScrapeTarget => ({
  deployment: 'ns/chat',
  pod,
  url: `http://${pod}`,
  isPressing,
});
const names = (targets: readonly ScrapeTarget[]): string[] => targets.map(({ pod }) => pod);

describe('who is asked next', () => {
  test('everybody once before anybody twice, as pods come and go', () => {
    const order = new AskingOrder();
    const present = ['a', 'b', 'c', 'd', 'e'].map((pod) => target(pod));
    assert.deepEqual(names(order.choose(present, 2)), ['a', 'b']);
    assert.deepEqual(names(order.choose(present, 2)), ['c', 'd']);
    // A new one is asked before those that were asked already, one that is gone by nobody.
    const changed = [target('f'), ...present.filter(({ pod }) => pod !== 'a')];
    assert.deepEqual(names(order.choose(changed, 2)), ['f', 'e']);
    assert.deepEqual(names(order.choose(changed, 2)), ['b', 'c']);
    assert.deepEqual(names(order.choose(changed, 9)).sort(), ['b', 'c', 'd', 'e', 'f']);
  });

  test('those that press every time, beside as many of the others as ever', () => {
    const order = new AskingOrder();
    const present = [target('x', true), target('a'), target('b')];
    assert.deepEqual(names(order.choose(present, 1)), ['x', 'a']);
    assert.deepEqual(names(order.choose(present, 1)), ['x', 'b']);
    // One that pressed and does not any more was asked just now.
    const calm = [target('x'), target('a'), target('b')];
    assert.deepEqual(names(order.choose(calm, 1)), ['a']);
    assert.deepEqual(names(order.choose(calm, 1)), ['x']);
  });

  test('a pod that went and came back is new', () => {
    const order = new AskingOrder();
    const [a, b] = [target('a'), target('b')];
    order.choose([a, b], 2);
    assert.deepEqual(names(order.choose([b], 1)), ['b']);
    assert.deepEqual(names(order.choose([a, b], 1)), ['a']);
  });
});
