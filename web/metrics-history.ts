/** Five minutes of readings of /metrics, and the curves that the dashboard draws from them. */

import {
  type Histogram,
  histogramOf,
  parseMetrics,
  quantileBetween,
  type Sample,
  sumOf,
} from './metrics-text.ts';

export const HISTORY_MS = 5 * 60_000;
/** Rates are taken over the last readings of this span: calm enough to read, quick enough to follow. */
const RATE_SPAN_MS = 5_000;
/** Latency quantiles and hit rates need more observations than one second brings. */
const QUANTILE_SPAN_MS = 30_000;

interface Reading {
  readonly at: number;
  readonly running: number | null;
  readonly waiting: number | null;
  /** 0 to 1. */
  readonly cacheUse: number | null;
  readonly generationTokens: number | null;
  readonly promptTokens: number | null;
  readonly prefixHits: number | null;
  readonly prefixQueries: number | null;
  readonly timeToFirstToken: Histogram | null;
  readonly interTokenLatency: Histogram | null;
}

/** `at` is milliseconds since the epoch; a null value is a gap. */
export interface Point {
  readonly at: number;
  readonly value: number | null;
}

export type CurveName =
  | 'running'
  | 'waiting'
  | 'cacheUse'
  | 'generationRate'
  | 'promptRate'
  | 'prefixHitRate'
  | 'firstTokenP50'
  | 'firstTokenP99'
  | 'interTokenP50'
  | 'interTokenP99';

type Curves = Readonly<Record<CurveName, number | null>>;
type CounterName = 'generationTokens' | 'promptTokens' | 'prefixHits' | 'prefixQueries';

function toReading(at: number, samples: readonly Sample[]): Reading {
  return {
    at,
    running: sumOf(samples, 'vllm:num_requests_running'),
    waiting: sumOf(samples, 'vllm:num_requests_waiting'),
    cacheUse: sumOf(samples, 'vllm:kv_cache_usage_perc'),
    generationTokens: sumOf(samples, 'vllm:generation_tokens_total'),
    promptTokens: sumOf(samples, 'vllm:prompt_tokens_total'),
    prefixHits: sumOf(samples, 'vllm:prefix_cache_hits_total'),
    prefixQueries: sumOf(samples, 'vllm:prefix_cache_queries_total'),
    timeToFirstToken: histogramOf(samples, 'vllm:time_to_first_token_seconds'),
    interTokenLatency: histogramOf(samples, 'vllm:inter_token_latency_seconds'),
  };
}

/** Growth of a counter, or null when it is absent. A fall is a restarted server: growth counts from zero. */
function growth(before: Reading, after: Reading, name: CounterName): number | null {
  const from = before[name];
  const to = after[name];
  if (from === null || to === null) return null;
  return to < from ? to : to - from;
}

function rate(before: Reading, after: Reading, name: CounterName): number | null {
  const seconds = (after.at - before.at) / 1000;
  const grown = growth(before, after, name);
  return grown === null || seconds <= 0 ? null : grown / seconds;
}

export class MetricsHistory {
  readonly #readings: Reading[] = [];
  readonly #points: { at: number; curves: Curves }[] = [];

  /** Takes one answer of /metrics, read at `at`. */
  add(at: number, text: string): void {
    const reading = toReading(at, parseMetrics(text));
    this.#readings.push(reading);
    this.#points.push({ at, curves: this.#curvesAt(reading) });
    this.#forget(at);
  }

  /** Marks that the server did not answer at `at`: a gap in every curve. */
  addGap(at: number): void {
    this.#points.push({ at, curves: NOTHING });
    this.#forget(at);
  }

  curve(name: CurveName): Point[] {
    return this.#points.map(({ at, curves }) => ({ at, value: curves[name] }));
  }

  latest(name: CurveName): number | null {
    return this.#points.at(-1)?.curves[name] ?? null;
  }

  #curvesAt(now: Reading): Curves {
    const recent = this.#readingBefore(now.at - RATE_SPAN_MS);
    const earlier = this.#readingBefore(now.at - QUANTILE_SPAN_MS);
    const hits = growth(earlier, now, 'prefixHits');
    const queries = growth(earlier, now, 'prefixQueries');
    const quantile = (name: 'timeToFirstToken' | 'interTokenLatency', q: number): number | null => {
      const after = now[name];
      return after === null || earlier === now ? null : quantileBetween(earlier[name], after, q);
    };
    return {
      running: now.running,
      waiting: now.waiting,
      cacheUse: now.cacheUse,
      generationRate: rate(recent, now, 'generationTokens'),
      promptRate: rate(recent, now, 'promptTokens'),
      prefixHitRate: hits === null || queries === null || queries === 0 ? null : hits / queries,
      firstTokenP50: quantile('timeToFirstToken', 0.5),
      firstTokenP99: quantile('timeToFirstToken', 0.99),
      interTokenP50: quantile('interTokenLatency', 0.5),
      interTokenP99: quantile('interTokenLatency', 0.99),
    };
  }

  /** The newest reading not younger than needed, or the oldest there is. */
  #readingBefore(at: number): Reading {
    const found = this.#readings.findLast((reading) => reading.at <= at) ?? this.#readings[0];
    if (found === undefined) throw new Error('no reading yet');
    return found;
  }

  #forget(now: number): void {
    const oldest = now - HISTORY_MS;
    while ((this.#points[0]?.at ?? now) < oldest) this.#points.shift();
    while ((this.#readings[0]?.at ?? now) < oldest) this.#readings.shift();
  }
}

const NOTHING: Curves = {
  running: null,
  waiting: null,
  cacheUse: null,
  generationRate: null,
  promptRate: null,
  prefixHitRate: null,
  firstTokenP50: null,
  firstTokenP99: null,
  interTokenP50: null,
  interTokenP99: null,
};
