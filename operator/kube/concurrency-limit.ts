/**
 * How much to do at once, from how long calls take. By Little's law the calls that are under way are their rate times their duration: once
 * a server has no processor left, more calls at once are only longer calls. So the limit grows by one while calls take about as long as
 * the shortest of late did (additive), and falls in proportion when they take a multiple (multiplicative), as TCP Vegas (Brakmo and
 * Peterson, 1994) and adaptive concurrency limits do with round trips; Chiu and Jain, 1989, show that this pair finds a fair share.
 * Where even one at a time is too many, as what it writes makes work for other clients too, the one rests between.
 */
import { type Clock, systemClock } from './clock.ts';

export interface ConcurrencyLimitOptions {
  /** 1 when absent; less is the share of its time that the only one works. */
  readonly min?: number;
  readonly max: number;
  /** Calls that take more than so many times the shortest are a sign of too many. */
  readonly tolerance?: number;
  /** The limit changes at most so often, and not before `minSamples` calls. */
  readonly windowMs?: number;
  readonly minSamples?: number;
  /** For how long the shortest call counts: a server may become slower for good. */
  readonly memoryMs?: number;
  readonly clock?: Clock;
}

/** The shortest duration of a kind of call, over this span of time and the one before. */
interface Baseline {
  current: number;
  previous: number;
}

/** Of the tolerance, for one at a time: the shortest of many calls is shorter than one that waits for nobody is in the mean. */
const restTolerance = 2;
const restStep = 0.1;

export class ConcurrencyLimit {
  readonly #min: number;
  readonly #max: number;
  readonly #tolerance: number;
  readonly #windowMs: number;
  readonly #minSamples: number;
  readonly #memoryMs: number;
  readonly #clock: Clock;
  readonly #baselines = new Map<string, Baseline>();
  #limit: number;
  #epochAt: number;
  #windowAt: number;
  #samples = 0;
  /** Sum of durations as multiples of the shortest. */
  #slowness = 0;
  #mostInUse = 0;

  constructor(options: ConcurrencyLimitOptions) {
    const { min = 1, max, tolerance = 2, windowMs = 250, minSamples = 8 } = options;
    this.#min = min;
    this.#max = Math.max(min, max, 1);
    this.#tolerance = tolerance;
    this.#windowMs = windowMs;
    this.#minSamples = minSamples;
    this.#memoryMs = options.memoryMs ?? 60_000;
    this.#clock = options.clock ?? systemClock;
    this.#limit = Math.max(1, min);
    this.#epochAt = this.#windowAt = this.#clock.now();
  }

  /** A whole number, between 1 and max. */
  get limit(): number {
    return Math.max(1, Math.floor(this.#limit));
  }

  /** How long who worked for `busyMs` rests before the next work. */
  restMs(busyMs: number): number {
    return this.#limit >= 1 ? 0 : busyMs * (1 / this.#limit - 1);
  }

  /** Told how much is under way whenever that grows: a limit that nobody reaches need not grow. */
  use(count: number): void {
    this.#mostInUse = Math.max(this.#mostInUse, count);
  }

  /** A call of some kind has ended. Kinds are calls of about equal work. */
  observe(kind: string, seconds: number): void {
    const now = this.#clock.now();
    if (now - this.#epochAt >= this.#memoryMs) {
      this.#epochAt = now;
      for (const baseline of this.#baselines.values()) {
        baseline.previous = baseline.current;
        baseline.current = Number.POSITIVE_INFINITY;
      }
    }
    const baseline = this.#baselines.get(kind) ?? {
      current: seconds,
      previous: Number.POSITIVE_INFINITY,
    };
    baseline.current = Math.min(baseline.current, seconds);
    this.#baselines.set(kind, baseline);
    const shortest = Math.min(baseline.current, baseline.previous);
    this.#take(shortest > 0 ? seconds / shortest : 1, now);
  }

  /** The server said that it is too much, or did not answer in time. */
  refused(): void {
    this.#take(2 * this.#tolerance * this.#minSamples, this.#clock.now());
  }

  #take(slowness: number, now: number): void {
    this.#samples++;
    this.#slowness += slowness;
    if (this.#samples < this.#minSamples || now - this.#windowAt < this.#windowMs) return;
    const mean = this.#slowness / this.#samples;
    const isOne = this.#limit <= 1;
    // One at a time goes without rest until it is plain that the server has too much to do.
    const tolerance = isOne ? restTolerance * this.#tolerance : this.#tolerance;
    if (mean > tolerance) {
      const least = isOne ? this.#min : Math.max(1, this.#min);
      this.#limit = Math.max(least, this.#limit * Math.max(0.5, tolerance / mean));
    } else if (this.#limit < 1) {
      this.#limit = Math.min(1, this.#limit + restStep);
    } else if (mean <= this.#tolerance && this.#mostInUse >= this.limit) {
      this.#limit = Math.min(this.#max, this.#limit + 1);
    }
    this.#samples = 0;
    this.#slowness = 0;
    this.#mostInUse = 0;
    this.#windowAt = now;
  }
}
