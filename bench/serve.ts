/**
 * Open-loop load over HTTP and WebSocket: Poisson arrivals at a rate, or all at once, against a running server.
 * Metrics are defined as in vLLM's serving benchmark: TTFT from send to first token, TPOT per request, ITL per gap, goodput under SLOs.
 */
import WebSocket from 'ws';
import type { BenchResult } from './result.ts';
import { figure, mean, percentile } from './statistics.ts';

export type Wire = 'http' | 'websocket';

export interface ServeLoad {
  readonly requests: number;
  /** Requests per second; Infinity sends all at once. */
  readonly rate: number;
  readonly promptTokens: number;
  readonly newTokens: number;
  readonly seed: number;
  readonly slo: { readonly timeToFirstTokenMs: number; readonly timePerOutputTokenMs: number };
}

/** One request as the client saw it; times in milliseconds of `performance.now()`. */
export interface Sample {
  readonly startedAt: number;
  readonly firstAt: number;
  readonly endedAt: number;
  readonly gaps: readonly number[];
  readonly tokens: number;
  readonly failed: boolean;
}

export interface ServeFigures {
  readonly seconds: number;
  readonly completed: number;
  readonly failed: number;
  readonly requestsPerSecond: number;
  readonly outputTokensPerSecond: number;
  readonly goodputPerSecond: number;
  readonly timeToFirstTokenMs: readonly number[];
  readonly timePerOutputTokenMs: readonly number[];
  readonly interTokenMs: readonly number[];
  readonly latencyMs: readonly number[];
  /** Only our own server tells. */
  readonly eventLoop?: EventLoopFigures;
}

/** Longest time that the server's event loop was held up, and the longest by work of its own rather than for want of a core. */
export interface EventLoopFigures {
  readonly heldUpMs: number;
  readonly workMs: number;
}

/** mulberry32: a small seeded generator, so that a load can be repeated. */
function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const delay = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Token ids that no two requests share beyond chance, from the part of the vocabulary that is plain text. */
export function randomPrompts(load: ServeLoad, vocabularySize: number): number[][] {
  const random = seededRandom(load.seed);
  return Array.from({ length: load.requests }, () =>
    Array.from(
      { length: load.promptTokens },
      () => 1000 + Math.floor(random() * (Math.min(vocabularySize, 40000) - 1000)),
    ),
  );
}

/**
 * When each request is sent, in milliseconds from the start: a Poisson process at `rate` per second, or all at 0 when the rate is infinite.
 * The waits are exponential, drawn by inversion, so that one seed always gives one schedule.
 */
export function arrivalTimes(load: Pick<ServeLoad, 'requests' | 'rate' | 'seed'>): number[] {
  const random = seededRandom(load.seed + 1);
  let due = 0;
  return Array.from({ length: load.requests }, () => {
    if (Number.isFinite(load.rate)) due += (-Math.log(1 - random()) / load.rate) * 1000;
    return due;
  });
}

export async function runLoad(
  baseUrl: string,
  model: string,
  wire: Wire,
  load: ServeLoad,
  prompts: readonly (readonly number[])[],
  progress: (fraction: number) => void,
): Promise<ServeFigures> {
  const send =
    wire === 'http' ? sendHttp(baseUrl, model) : await sendWebSocket(baseUrl, model, load);
  const startedAt = performance.now();
  const running: Promise<Sample>[] = [];
  let ended = 0;
  const arrivals = arrivalTimes(load);
  for (const [i, prompt] of prompts.entries()) {
    const wait = startedAt + (arrivals[i] ?? 0) - performance.now();
    if (wait > 0) await delay(wait);
    running.push(
      send(prompt, load.newTokens).finally(() => {
        ended++;
        progress(ended / prompts.length);
      }),
    );
  }
  const samples = await Promise.all(running);
  return summarise(samples, (performance.now() - startedAt) / 1000, load);
}

/** The figures of one load that took `seconds`; failed requests count as failed and in no other figure. */
export function summarise(
  samples: readonly Sample[],
  seconds: number,
  load: ServeLoad,
): ServeFigures {
  const good = samples.filter((sample) => !sample.failed);
  const timeToFirstTokenMs = good.map((sample) => sample.firstAt - sample.startedAt);
  const timePerOutputTokenMs = good.map((sample) =>
    sample.tokens > 1 ? (sample.endedAt - sample.firstAt) / (sample.tokens - 1) : 0,
  );
  const withinSlo = good.filter(
    (_, i) =>
      (timeToFirstTokenMs[i] as number) <= load.slo.timeToFirstTokenMs &&
      (timePerOutputTokenMs[i] as number) <= load.slo.timePerOutputTokenMs,
  );
  return {
    seconds,
    completed: good.length,
    failed: samples.length - good.length,
    requestsPerSecond: good.length / seconds,
    outputTokensPerSecond: good.reduce((sum, sample) => sum + sample.tokens, 0) / seconds,
    goodputPerSecond: withinSlo.length / seconds,
    timeToFirstTokenMs,
    timePerOutputTokenMs,
    interTokenMs: good.flatMap((sample) => sample.gaps),
    latencyMs: good.map((sample) => sample.endedAt - sample.startedAt),
  };
}

/** Collects the times of one stream; tokens are counted from the usage, several may share a chunk. */
class Stopwatch {
  readonly startedAt = performance.now();
  #firstAt = Number.NaN;
  #lastAt = Number.NaN;
  readonly #gaps: number[] = [];

  chunk(): void {
    const now = performance.now();
    if (Number.isNaN(this.#firstAt)) this.#firstAt = now;
    else this.#gaps.push(now - this.#lastAt);
    this.#lastAt = now;
  }

  sample(tokens: number): Sample {
    const failed = tokens === 0;
    return {
      startedAt: this.startedAt,
      firstAt: this.#firstAt,
      endedAt: this.#lastAt,
      gaps: this.#gaps,
      tokens,
      failed,
    };
  }
}

const sendHttp =
  (baseUrl: string, model: string): Send =>
  (prompt, newTokens) =>
    complete(baseUrl, model, prompt, newTokens);

async function complete(
  baseUrl: string,
  model: string,
  prompt: readonly number[],
  newTokens: number,
): Promise<Sample> {
  const watch = new Stopwatch();
  let tokens = 0;
  const response = await fetch(`${baseUrl}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      model,
      prompt,
      max_tokens: newTokens,
      temperature: 0,
      ignore_eos: true,
      stream: true,
      stream_options: { include_usage: true },
    }),
  });
  if (!response.ok || !response.body) return watch.sample(0);
  let rest = '';
  const decoder = new TextDecoder();
  for await (const bytes of response.body) {
    rest += decoder.decode(bytes, { stream: true });
    const lines = rest.split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      if (!line.startsWith('data: ') || line === 'data: [DONE]') continue;
      const chunk = JSON.parse(line.slice(6)) as {
        choices?: { text?: string }[];
        usage?: { completion_tokens?: number } | null;
      };
      if (chunk.choices?.[0]?.text) watch.chunk();
      if (chunk.usage?.completion_tokens) tokens = chunk.usage.completion_tokens;
    }
  }
  return watch.sample(tokens);
}

type Send = (prompt: readonly number[], newTokens: number) => Promise<Sample>;

/** Words that are one token each after a space in every vocabulary met so far; the tokens are counted all the same. */
const words =
  'time people way water word day part sound work place year back thing name sentence man line boy farm end men land home hand picture air animal house page letter point mother answer world food country plant school father tree city earth eye head story example paper group river car feet book science room friend idea fish mountain north base horse face wood list family'.split(
    ' ',
  );

/** The Responses API takes text: as many words as make the prompt as many tokens as asked, chat template included. */
async function sendWebSocket(baseUrl: string, model: string, load: ServeLoad): Promise<Send> {
  const probe = await inputTokens(baseUrl, model, spell([1]));
  const wordCount = Math.max(1, load.promptTokens - probe + 1);
  return (prompt, newTokens) =>
    respond(baseUrl, model, spell(prompt.slice(0, wordCount)), newTokens);
}

const spell = (prompt: readonly number[]): string =>
  prompt.map((id) => words[id % words.length]).join(' ');

async function inputTokens(baseUrl: string, model: string, input: string): Promise<number> {
  const response = await fetch(`${baseUrl}/v1/responses`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model, input, max_output_tokens: 16, store: false }),
  });
  const body = (await response.json()) as { usage: { input_tokens: number } };
  return body.usage.input_tokens;
}

function respond(
  baseUrl: string,
  model: string,
  input: string,
  newTokens: number,
): Promise<Sample> {
  const watch = new Stopwatch();
  return new Promise((resolve) => {
    const socket = new WebSocket(`${baseUrl.replace(/^http/, 'ws')}/v1/responses`);
    const finish = (tokens: number) => {
      socket.close(1000);
      resolve(watch.sample(tokens));
    };
    socket.on('open', () => {
      socket.send(
        JSON.stringify({
          type: 'response.create',
          model,
          input,
          max_output_tokens: newTokens,
          temperature: 0,
          ignore_eos: true,
          store: false,
        }),
      );
    });
    socket.on('message', (data) => {
      const event = JSON.parse(String(data)) as {
        type: string;
        response?: { usage?: { output_tokens?: number } };
      };
      if (event.type === 'response.output_text.delta') watch.chunk();
      else if (event.type === 'response.completed' || event.type === 'response.incomplete')
        finish(event.response?.usage?.output_tokens ?? 0);
      else if (event.type === 'error' || event.type === 'response.failed') finish(0);
    });
    socket.on('error', () => finish(0));
  });
}

export function serveResult(
  runs: readonly { readonly name: string; readonly figures: ServeFigures }[],
  load: ServeLoad,
  note: string,
): BenchResult {
  const cells = (samples: readonly number[]) =>
    [mean(samples), percentile(samples, 50), percentile(samples, 99)].map(figure).join(' / ');
  const reference = runs[0]?.figures.outputTokensPerSecond ?? Number.NaN;
  return {
    name: 'serve',
    tables: [
      {
        title: `${load.requests} requests, ${load.promptTokens} prompt + ${load.newTokens} new tokens, ${Number.isFinite(load.rate) ? `Poisson ${load.rate}/s` : 'all at once'}`,
        columns: [
          'server and wire',
          'output tok/s',
          'requests/s',
          'goodput/s',
          'failed',
          'TTFT ms mean/p50/p99',
          'TPOT ms mean/p50/p99',
          'ITL ms mean/p50/p99',
          'E2E ms mean/p50/p99',
          'loop held up by own work / in all, ms max',
          'ours / this',
        ],
        rows: runs.map(({ name, figures }) => [
          name,
          figure(figures.outputTokensPerSecond),
          figure(figures.requestsPerSecond),
          figure(figures.goodputPerSecond),
          String(figures.failed),
          cells(figures.timeToFirstTokenMs),
          cells(figures.timePerOutputTokenMs),
          cells(figures.interTokenMs),
          cells(figures.latencyMs),
          figures.eventLoop === undefined
            ? '—'
            : `${figure(figures.eventLoop.workMs)} / ${figure(figures.eventLoop.heldUpMs)}`,
          `${figure(reference / figures.outputTokensPerSecond)}x`,
        ]),
        note: `${note} Goodput: requests with TTFT <= ${load.slo.timeToFirstTokenMs} ms and TPOT <= ${load.slo.timePerOutputTokenMs} ms.`,
      },
    ],
    charts: [
      {
        name: 'serve',
        kind: 'bar',
        title: 'Output tokens per second',
        unit: 'tok/s',
        labels: runs.map(({ name }) => name),
        series: [
          {
            name: 'output tok/s',
            values: runs.map(({ figures }) => figures.outputTokensPerSecond),
          },
        ],
      },
      {
        name: 'serve-latency',
        kind: 'line',
        title: 'Time to first token, by percentile',
        xLabel: 'percentile',
        yLabel: 'ms',
        x: [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 100],
        series: runs.map(({ name, figures }) => ({
          name,
          values: [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 100].map((p) =>
            percentile(figures.timeToFirstTokenMs, p),
          ),
        })),
      },
    ],
    figures: Object.fromEntries(runs.map(({ name, figures }) => [name, figures])),
  };
}
