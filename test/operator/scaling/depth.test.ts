import assert from 'node:assert/strict';
import { beforeEach, describe, test } from 'node:test';
import { DepthBook } from '#operator/scaling/depth.ts';
import { FakeClock } from '../../support/fake-clock.ts';

describe('the queue depth of a deployment', () => {
  let clock: FakeClock;
  let book: DepthBook;
  const figures = (waiting: number, running = 0, finished = 0) => ({ waiting, running, finished });
  const present = (...pods: string[]) => new Map([['ns/chat', new Set(pods)]]);
  beforeEach(() => {
    clock = new FakeClock();
    book = new DepthBook(clock);
  });

  test('is the sum over its pods, and of nobody else’s', () => {
    book.expect(present('a', 'b'));
    book.record('ns/chat', 'a', figures(3, 1));
    book.record('ns/chat', 'b', figures(4, 2));
    book.record('ns/other', 'c', figures(100));
    assert.deepEqual(book.depthOf('ns/chat'), { waiting: 7, running: 3, isStale: false, ageMs: 0 });
  });

  test('is a zero that is known for a deployment without pods, once anybody has looked', () => {
    assert.deepEqual(book.depthOf('ns/chat'), { waiting: 0, running: 0, isStale: true, ageMs: 0 });
    book.expect(new Map());
    assert.deepEqual(book.depthOf('ns/chat'), { waiting: 0, running: 0, isStale: false, ageMs: 0 });
  });

  test('keeps the last value of a pod that does not answer, marked stale with its age, until it answers again', () => {
    book.expect(present('a', 'b'));
    book.record('ns/chat', 'a', figures(3));
    book.record('ns/chat', 'b', figures(4));
    clock.advance(2000);
    book.record('ns/chat', 'a', figures(1));
    book.miss('ns/chat', 'b');
    assert.deepEqual(book.depthOf('ns/chat'), {
      waiting: 5,
      running: 0,
      isStale: true,
      ageMs: 2000,
    });
    assert.equal(book.podFigures('ns/chat', 'a')?.isStale, false);
    const stale = book.podFigures('ns/chat', 'b');
    assert.deepEqual([stale?.waiting, stale?.isStale, stale?.ageMs], [4, true, 2000]);
    book.record('ns/chat', 'b', figures(0));
    assert.equal(book.depthOf('ns/chat').isStale, false);
  });

  test('is stale while a pod has never answered: what it does is not known', () => {
    book.expect(present('a', 'b'));
    book.record('ns/chat', 'a', figures(0));
    assert.equal(book.depthOf('ns/chat').isStale, true);
    book.miss('ns/chat', 'b');
    assert.equal(book.depthOf('ns/chat').isStale, true);
    assert.equal(book.podFigures('ns/chat', 'b'), undefined, 'no figure is made up for it');
    book.record('ns/chat', 'b', figures(0));
    assert.equal(book.depthOf('ns/chat').isStale, false);
  });

  test('forgets pods that are gone, and one that never answered holds nobody up after that', () => {
    book.expect(present('a', 'b'));
    book.record('ns/chat', 'a', figures(3));
    book.record('ns/other', 'c', figures(9));
    book.expect(present('a'));
    assert.deepEqual(book.depthOf('ns/chat'), { waiting: 3, running: 0, isStale: false, ageMs: 0 });
    assert.equal(book.depthOf('ns/other').waiting, 0);
    assert.equal(book.podFigures('ns/other', 'c'), undefined);
  });

  test('is idle since the last sign of a request: one that waits, one that runs, or one that ended between two looks', () => {
    book.expect(present('a'));
    assert.equal(book.idleMs('ns/chat'), undefined);
    book.record('ns/chat', 'a', figures(0, 0, 7));
    assert.equal(book.idleMs('ns/chat'), undefined, 'what ended before the first look is unknown');
    clock.advance(1000);
    book.record('ns/chat', 'a', figures(0, 0, 8));
    clock.advance(1000);
    assert.equal(book.idleMs('ns/chat'), 1000);
    for (const busy of [figures(1, 0, 8), figures(0, 1, 8)]) {
      book.record('ns/chat', 'a', busy);
      assert.equal(book.idleMs('ns/chat'), 0);
      clock.advance(1000);
    }
    book.record('ns/chat', 'a', figures(0, 0, 8));
    clock.advance(500);
    assert.equal(book.idleMs('ns/chat'), 1500);
    book.touch('ns/chat');
    assert.equal(book.idleMs('ns/chat'), 0);
    book.forget('ns/chat');
    assert.equal(book.idleMs('ns/chat'), undefined);
  });
});
