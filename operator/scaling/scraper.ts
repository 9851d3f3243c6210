/** Asks all engines for their figures, again and again: many at a time, each with its own deadline. */
import { setImmediate as otherWork } from 'node:timers/promises';
import { type Clock, pause, systemClock } from '../kube/clock.ts';
import { AskingOrder } from './asking-order.ts';
import { type DepthBook, toldFraction } from './depth.ts';
import { scrape } from './scrape.ts';

export interface ScrapeTarget {
  /** Key of the NVLMDeployment. */
  readonly deployment: string;
  /** Key of the pod. */
  readonly pod: string;
  readonly url: string;
  /** Something is decided by what it says: asked in every round. */
  readonly isPressing?: boolean;
}

export interface ScraperOptions {
  readonly book: DepthBook;
  readonly targets: () => readonly ScrapeTarget[];
  readonly periodMs: number;
  readonly timeoutMs: number;
  /** How many of the others are asked in a second, those that were asked longest ago first; all in every round when absent. */
  readonly restPerSecond?: number;
  readonly clock?: Clock;
  /** After each round, with the deployments whose depth is another than before it, that lost or won all requests, whose engines got on with loading, or whose tokens a second are told anew. */
  readonly onRound?: (deployments: ReadonlySet<string>) => void;
}

/** Connections at once: enough that a few pods that hang hold up nobody. */
const PARALLEL = 256;
/** More engines than this are asked one after the other over half of the period: thousands of answers at once hold up all other work. */
const BURST = 64;
/** Shorter waits are not worth a timer. */
const LEAST_WAIT_MS = 5;

/** Every step of the status that says how far engines are, not every percent. */
const stepsOf = (book: DepthBook, deployment: string): string =>
  [...book.loadingOf(deployment)]
    .map(([pod, loading]) => `${pod} ${loading.phase} ${toldFraction(loading)}`)
    .join();

/**
 * Runs until `signal` aborts. Asks the pressing engines every `periodMs`, the others as often as `restPerSecond` allows. A round takes
 * `timeoutMs` for each 256 engines that hang, at most. What looks at all engines is a few milliseconds for thousands, and lets other work
 * in between: answers of the API server must not wait for it.
 */
export async function runScraper(options: ScraperOptions, signal: AbortSignal): Promise<void> {
  const { book, targets, periodMs, timeoutMs, clock = systemClock, onRound } = options;
  const restPerRound = ((options.restPerSecond ?? Number.POSITIVE_INFINITY) * periodMs) / 1000;
  const most = Math.max(1, Math.floor(restPerRound));
  const order = new AskingOrder();
  while (!signal.aborted) {
    const startedAt = clock.now();
    const present = targets();
    await otherWork();
    const podsOf = new Map<string, Set<string>>();
    for (const { deployment, pod } of present) {
      podsOf.set(deployment, (podsOf.get(deployment) ?? new Set()).add(pod));
    }
    await otherWork();
    const look = (key: string) => ({
      ...book.depthOf(key),
      loading: stepsOf(book, key),
      tokensPerSecond: book.tokensPerSecond(key),
    });
    const chosen = order.choose(present, most);
    const before = new Map(chosen.map(({ deployment }) => [deployment, look(deployment)]));
    await otherWork();
    book.expect(podsOf);
    await otherWork();
    const left = chosen.values();
    const stepMs = chosen.length > BURST ? periodMs / 2 / chosen.length : 0;
    let asked = 0;
    const ask = async (): Promise<void> => {
      for (const { deployment, pod, url } of left) {
        const waitMs = startedAt + asked++ * stepMs - clock.now();
        if (waitMs >= LEAST_WAIT_MS) await pause(clock, waitMs, signal);
        try {
          book.record(deployment, pod, await scrape(url, timeoutMs, signal));
        } catch {
          if (!signal.aborted) book.miss(deployment, pod);
        }
      }
    };
    await Promise.all(Array.from({ length: Math.min(PARALLEL, chosen.length) }, ask));
    const changed = [...before].filter(([key, { waiting, running, loading, tokensPerSecond }]) => {
      const after = look(key);
      const isOther = after.waiting !== waiting || (after.running === 0) !== (running === 0);
      return isOther || after.loading !== loading || after.tokensPerSecond !== tokensPerSecond;
    });
    if (!signal.aborted) onRound?.(new Set(changed.map(([key]) => key)));
    await pause(clock, Math.max(0, periodMs - (clock.now() - startedAt)), signal);
  }
}
