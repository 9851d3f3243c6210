/** One pod's /metrics: the gauges and counters of the Prometheus text format that scaling needs. */

export interface EngineFigures {
  readonly waiting: number;
  readonly running: number;
  /** Requests that ended, ever: a change means that somebody asked. */
  readonly finished: number;
}

const names = {
  waiting: 'vllm:num_requests_waiting',
  running: 'vllm:num_requests_running',
  finished: 'vllm:request_success_total',
} as const;

/** Sums each metric over its label sets. Throws when waiting or running is not there: silence is not zero. */
export function readFigures(text: string): EngineFigures {
  const sums = new Map<string, number>();
  for (const line of text.split('\n')) {
    const match = /^([a-zA-Z_:][\w:]*)(?:\{[^}]*\})? (\S+)/.exec(line);
    if (match === null) continue;
    const [, name = '', value] = match;
    sums.set(name, (sums.get(name) ?? 0) + Number(value));
  }
  const read = (name: string): number => {
    const value = sums.get(name);
    if (value === undefined || !Number.isFinite(value)) {
      throw new Error(`Expected the metric ${name}, got ${value ?? 'none'}`);
    }
    return value;
  };
  return {
    waiting: read(names.waiting),
    running: read(names.running),
    finished: sums.get(names.finished) ?? 0,
  };
}

/** Asks one engine. Throws when it does not answer in time, or not with figures. */
export async function scrape(
  url: string,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<EngineFigures> {
  const timeout = AbortSignal.timeout(timeoutMs);
  const response = await fetch(url, {
    signal: signal === undefined ? timeout : AbortSignal.any([signal, timeout]),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${url} answered ${response.status}`);
  return readFigures(text);
}
