import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { DepthBook } from '#operator/scaling/depth.ts';
import { runScraper, type ScrapeTarget } from '#operator/scaling/scraper.ts';

describe('the scraper', () => {
  /** Path of a pod -> what waits; undefined: it never answers. */
  let waiting: Map<string, number | undefined>;
  let server: Server;
  let base: string;
  let book: DepthBook;
  let targets: readonly ScrapeTarget[];
  let rounds: ReadonlySet<string>[];
  let stop: AbortController;
  let ended: Promise<void>;

  beforeEach(async () => {
    waiting = new Map();
    rounds = [];
    book = new DepthBook();
    stop = new AbortController();
    ended = Promise.resolve();
    server = createServer(({ url = '' }, response) => {
      const count = waiting.get(url);
      if (count === undefined) return;
      response.end(`vllm:num_requests_waiting ${count}\nvllm:num_requests_running 0\n`);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  });
  afterEach(async () => {
    stop.abort();
    await ended;
    server.closeAllConnections();
    server.close();
  });

  const target = (deployment: string, pod: string): ScrapeTarget => ({
    deployment,
    pod,
    url: `${base}/${pod}`,
  });
  const start = (timeoutMs = 1000, restPerSecond?: number): void => {
    ended = runScraper(
      {
        book,
        targets: () => targets,
        periodMs: 20,
        timeoutMs,
        ...(restPerSecond !== undefined && { restPerSecond }),
        onRound: (changed) => rounds.push(changed),
      },
      stop.signal,
    );
  };
  const until = async (what: string, check: () => boolean): Promise<void> => {
    for (let i = 0; i < 3000; i++) {
      if (check()) return;
      await sleep(10);
    }
    assert.fail(`not within 30 s: ${what}`);
  };
  const nextRounds = async (count: number): Promise<void> => {
    const before = rounds.length;
    await until(`${count} rounds`, () => rounds.length >= before + count);
  };

  test('one pod that hangs delays nobody: the others are fresh, it is stale with its last value', async () => {
    targets = [target('ns/chat', 'a'), target('ns/chat', 'b'), target('ns/other', 'c')];
    waiting = new Map([
      ['/a', 1],
      ['/b', 2],
      ['/c', 3],
    ]);
    start();
    await nextRounds(1);
    assert.equal(book.depthOf('ns/chat').waiting, 3);
    waiting.set('/a', undefined);
    waiting.set('/b', 5);
    waiting.set('/c', 6);
    await until('c is seen', () => book.depthOf('ns/other').waiting === 6);
    await until('a is stale', () => book.podFigures('ns/chat', 'a')?.isStale === true);
    assert.equal(book.depthOf('ns/chat').waiting, 6);
    assert.equal(book.podFigures('ns/chat', 'b')?.isStale, false);
    waiting.set('/a', 0);
    await until('a is back', () => book.depthOf('ns/chat').waiting === 5);
    assert.equal(book.depthOf('ns/chat').isStale, false);
  });

  test('hundreds at once are asked in one round, some dozens of them silent', async () => {
    const names = Array.from({ length: 400 }, (_, i) => `p${i}`);
    targets = names.map((pod) => target('ns/many', pod));
    for (const [i, pod] of names.entries()) waiting.set(`/${pod}`, i % 10 === 0 ? undefined : 1);
    start(5000);
    await until('a whole round', () => rounds.length >= 1);
    assert.equal(book.depthOf('ns/many').waiting, 360);
    assert.equal(book.depthOf('ns/many').isStale, true);
  });

  test('more than may be asked in a round take turns, but for those whose figures press', async () => {
    const asked: string[] = [];
    server.on('request', ({ url = '' }) => asked.push(url.slice(1)));
    const names = Array.from({ length: 10 }, (_, i) => `p${i}`);
    targets = [
      ...names.map((pod) => target(`ns/${pod}`, pod)),
      { ...target('ns/busy', 'busy'), isPressing: true },
    ];
    for (const { pod } of targets) waiting.set(`/${pod}`, 1);
    // Two in a round of 20 ms.
    start(1000, 100);
    await until('five rounds', () => rounds.length >= 5);
    assert.deepEqual(
      asked.slice(0, 15).filter((pod) => pod !== 'busy'),
      names,
    );
    assert.equal(asked.slice(0, 15).filter((pod) => pod === 'busy').length, 5);
    assert.equal(book.depthOf('ns/p9').isStale, false);
  });

  test('tells which deployments changed: their depth, or whether anything runs', async () => {
    targets = [target('ns/chat', 'a'), target('ns/other', 'b')];
    waiting = new Map([
      ['/a', 0],
      ['/b', 0],
    ]);
    start();
    await nextRounds(2);
    rounds.length = 0;
    waiting.set('/a', 4);
    await until('the change is told', () => rounds.some((changed) => changed.size > 0));
    assert.deepEqual([...rounds.find((changed) => changed.size > 0)!], ['ns/chat']);
  });

  test('a pod that goes takes its waiting requests with it, and that is told', async () => {
    targets = [target('ns/chat', 'a'), target('ns/chat', 'b')];
    waiting = new Map([
      ['/a', 4],
      ['/b', 1],
    ]);
    start();
    await until('both are seen', () => book.depthOf('ns/chat').waiting === 5);
    await nextRounds(1);
    rounds.length = 0;
    targets = [target('ns/chat', 'b')];
    await until('the change is told', () => rounds.some((changed) => changed.has('ns/chat')));
    assert.equal(book.depthOf('ns/chat').waiting, 1);
  });

  test('a pod that never answered is stale, one that is gone is forgotten', async () => {
    targets = [target('ns/chat', 'a'), target('ns/chat', 'b')];
    waiting = new Map([['/a', 1]]);
    start();
    await nextRounds(1);
    assert.equal(book.depthOf('ns/chat').isStale, true);
    targets = [target('ns/chat', 'a')];
    await nextRounds(2);
    assert.deepEqual(
      [book.depthOf('ns/chat').waiting, book.depthOf('ns/chat').isStale],
      [1, false],
    );
  });

  test('ends when told to, in the middle of a round, and blames no pod for it', async () => {
    targets = [target('ns/chat', 'a'), target('ns/chat', 'b')];
    waiting = new Map([
      ['/a', 1],
      ['/b', 2],
    ]);
    start(60_000);
    await nextRounds(1);
    waiting.set('/a', undefined);
    await sleep(100);
    stop.abort();
    await ended;
    assert.equal(book.podFigures('ns/chat', 'a')?.isStale, false);
  });
});
