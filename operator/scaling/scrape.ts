/** One pod's /metrics: the gauges and counters of the Prometheus text format that scaling needs. */
import { Agent, get } from 'node:http';

export interface EngineFigures {
  readonly waiting: number;
  readonly running: number;
  /** Requests that ended, ever: a change means that somebody asked. */
  readonly finished: number;
  /** Generated, ever; undefined when the engine does not tell. */
  readonly tokens?: number;
  /** Of an engine that answers and has no model yet. */
  readonly loading?: EngineLoading;
}

export interface EngineLoading {
  /** In the engine's words: `downloading`, `extracting`, and what comes after those. */
  readonly phase: string;
  /** 0 to 1 of the phase. */
  readonly fraction: number;
}

const names = {
  waiting: 'vllm:num_requests_waiting',
  running: 'vllm:num_requests_running',
  finished: 'vllm:request_success_total',
  tokens: 'vllm:generation_tokens_total',
} as const;

/** Name, label set and value of a sample; a label's value may hold braces, and quotes that are escaped. */
const sampleLine = /^([a-zA-Z_:][\w:]*)(?:\{(?:[^"}]|"(?:[^"\\]|\\.)*")*\})?[ \t]+(\S+)/;

const loadingLine = /^nvlm_load_fraction\{phase="([^"]*)"\} ([\d.eE+-]+)$/m;

/**
 * Sums each metric over its label sets. Throws when waiting or running is not there: silence is not zero. An engine that loads its model
 * has no requests.
 */
export function readFigures(text: string): EngineFigures {
  const [, phase, fraction] = loadingLine.exec(text) ?? [];
  if (phase !== undefined) {
    return { waiting: 0, running: 0, finished: 0, loading: { phase, fraction: Number(fraction) } };
  }
  const sums = new Map<string, number>();
  for (const line of text.split('\n')) {
    const match = sampleLine.exec(line);
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
  const tokens = sums.get(names.tokens);
  return {
    waiting: read(names.waiting),
    running: read(names.running),
    finished: sums.get(names.finished) ?? 0,
    ...(tokens !== undefined && Number.isFinite(tokens) && { tokens }),
  };
}

/** A connection kept open for each of thousands of pods would be most of the operator's memory. */
const agent = new Agent({ keepAlive: false });
const MAX_BYTES = 4 << 20;

/** Asks one engine. Throws when it does not answer in time, or not with figures. */
export function scrape(
  url: string,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<EngineFigures> {
  return new Promise((resolve, reject) => {
    const request = get(url, { agent, ...(signal && { signal }) }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
        if (text.length > MAX_BYTES) request.destroy(new Error(`${url} answers without an end`));
      });
      response.on('error', reject);
      response.on('end', () => {
        try {
          if (response.statusCode !== 200)
            throw new Error(`${url} answered ${response.statusCode}`);
          resolve(readFigures(text));
        } catch (error) {
          reject(error);
        }
      });
    });
    const timer = setTimeout(
      () => request.destroy(new Error(`${url} has not answered within ${timeoutMs} ms`)),
      timeoutMs,
    );
    request.on('error', reject);
    request.on('close', () => clearTimeout(timer));
  });
}
