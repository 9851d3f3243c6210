/** /metrics: vLLM's names, labels and buckets, so that its dashboards work here; ours beside them under nvlm_. */

import type { Logger } from 'pino';
import { Counter, Gauge, Histogram, Registry } from 'prom-client';
import type { NvlmError } from '#engine/protocol/errors.ts';
import type {
  GenerationEngine,
  GenerationRequest,
  GenerationTimings,
  GenerationUsage,
} from '#engine/scheduler/request.ts';
import type { RequestIdentity } from './context.ts';
import { registerEventLoop } from './event-loop.ts';

const FIRST_TOKEN_SECONDS = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
  160, 640, 2560,
];
const TOKEN_GAP_SECONDS = [
  0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
];
const REQUEST_SECONDS = [
  0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
];
const STEP_TOKENS = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384];

/** 1, 2, 5, 10, 20, 50 ... up to the model's length. */
function tokenCountBuckets(maximum: number): number[] {
  const buckets: number[] = [];
  for (let scale = 1; scale <= maximum; scale *= 10) {
    for (const factor of [1, 2, 5]) if (factor * scale <= maximum) buckets.push(factor * scale);
  }
  return buckets;
}

const NO_TIMINGS: GenerationTimings = {
  queuedMs: 0,
  prefillMs: undefined,
  decodeMs: undefined,
  timeToFirstTokenMs: undefined,
  preemptions: 0,
};

/** One generation from submission to its end. */
export interface GenerationRecord {
  token(): void;
  finish(
    reason: 'stop' | 'length' | 'abort' | 'error',
    usage: GenerationUsage,
    timings: GenerationTimings,
    error?: NvlmError,
  ): void;
  /** What is known without the engine's own figures. */
  soFar(): { readonly usage: GenerationUsage; readonly timings: GenerationTimings };
  /** Counts as aborted unless it was finished before. */
  abandon(): void;
}

export class ServerMetrics {
  readonly registry: Registry;
  readonly #logger: Logger;
  readonly #labels: { readonly model_name: string; readonly engine: string };
  readonly #histograms;
  readonly #finished: Counter<string>;
  readonly #refused: Counter<string>;
  #inFlight = 0;
  #lastFinishedAt = 0;
  /** Moving average of the time between two finished generations while others wait. */
  #finishGapMs: number | undefined;

  constructor(engine: GenerationEngine, modelName: string, logger: Logger, registry?: Registry) {
    this.registry = registry ?? new Registry();
    this.#logger = logger;
    this.#labels = { model_name: modelName, engine: '0' };
    const labelNames = ['model_name', 'engine'];
    const registers = [this.registry];
    const histogram = (name: string, help: string, buckets: number[]) =>
      new Histogram({ name, help, labelNames, buckets, registers });
    const counts = tokenCountBuckets(engine.maxModelLength);
    this.#histograms = {
      firstToken: histogram(
        'vllm:time_to_first_token_seconds',
        'Submission to first token.',
        FIRST_TOKEN_SECONDS,
      ),
      tokenGap: histogram(
        'vllm:inter_token_latency_seconds',
        'Time between two tokens of one request.',
        TOKEN_GAP_SECONDS,
      ),
      perToken: histogram(
        'vllm:request_time_per_output_token_seconds',
        'Mean time per token after the first, per request.',
        TOKEN_GAP_SECONDS,
      ),
      whole: histogram('vllm:e2e_request_latency_seconds', 'Submission to end.', REQUEST_SECONDS),
      queue: histogram('vllm:request_queue_time_seconds', 'Time in the queue.', REQUEST_SECONDS),
      inference: histogram(
        'vllm:request_inference_time_seconds',
        'Prefill and decode.',
        REQUEST_SECONDS,
      ),
      prefill: histogram('vllm:request_prefill_time_seconds', 'Prefill.', REQUEST_SECONDS),
      decode: histogram('vllm:request_decode_time_seconds', 'Decode.', REQUEST_SECONDS),
      promptTokens: histogram('vllm:request_prompt_tokens', 'Prompt tokens.', counts),
      generatedTokens: histogram('vllm:request_generation_tokens', 'Generated tokens.', counts),
      maxTokens: histogram('vllm:request_params_max_tokens', 'Tokens asked for.', counts),
      computedPrompt: histogram(
        'vllm:request_prefill_kv_computed_tokens',
        'Prompt tokens that were not in the prefix cache.',
        counts,
      ),
      stepTokens: histogram('vllm:iteration_tokens_total', 'Tokens of one step.', STEP_TOKENS),
      completions: histogram('vllm:request_params_n', 'Completions asked for.', [1, 2, 5, 10, 20]),
      stepSeconds: histogram(
        'nvlm_step_duration_seconds',
        'Duration of one step.',
        [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5],
      ),
    };
    this.#finished = new Counter({
      name: 'vllm:request_success_total',
      help: 'Requests that ended, by reason.',
      labelNames: [...labelNames, 'finished_reason'],
      registers,
    });
    this.#refused = new Counter({
      name: 'nvlm_errors_total',
      help: 'Errors sent to clients, by code.',
      labelNames: ['code'],
      registers,
    });
    engine.onStep((step) => {
      this.#histograms.stepTokens.observe(this.#labels, step.tokens);
      this.#histograms.stepSeconds.observe(this.#labels, step.durationMs / 1000);
    });
    registerEngineFigures(engine, this.registry, this.#labels);
    registerEventLoop(this.registry);
  }

  /** Generations not yet finished. */
  get inFlight(): number {
    return this.#inFlight;
  }

  countError(code: string): void {
    this.#refused.inc({ code });
  }

  countCompletions(n: number): void {
    this.#histograms.completions.observe(this.#labels, n);
  }

  /** Seconds until a place in the queue is reached, from how fast requests finished lately; undefined before any did. */
  queueEtaSeconds(position: number): number | undefined {
    if (this.#finishGapMs === undefined) return undefined;
    return (this.#finishGapMs * Math.max(1, position)) / 1000;
  }

  startGeneration(request: GenerationRequest, identity: RequestIdentity): GenerationRecord {
    const startedAt = performance.now();
    let lastTokenAt: number | undefined;
    let tokens = 0;
    let open = true;
    this.#inFlight++;
    const soFar = () => ({
      usage: { promptTokens: request.promptIds.length, cachedTokens: 0, generatedTokens: tokens },
      timings: NO_TIMINGS,
    });
    const finish: GenerationRecord['finish'] = (reason, usage, timings, error) => {
      if (!open) return;
      open = false;
      this.#inFlight--;
      this.#observeEnd(reason, request, usage, timings, performance.now() - startedAt);
      this.#log(reason, request, identity, usage, timings, performance.now() - startedAt, error);
    };
    return {
      token: () => {
        const now = performance.now();
        const seconds = (now - (lastTokenAt ?? startedAt)) / 1000;
        const { firstToken, tokenGap } = this.#histograms;
        (lastTokenAt === undefined ? firstToken : tokenGap).observe(this.#labels, seconds);
        lastTokenAt = now;
        tokens++;
      },
      finish,
      soFar,
      abandon: () => {
        const { usage, timings } = soFar();
        finish('abort', usage, timings);
      },
    };
  }

  #observeEnd(
    reason: string,
    request: GenerationRequest,
    usage: GenerationUsage,
    timings: GenerationTimings,
    wholeMs: number,
  ): void {
    const observe = (histogram: Histogram<string>, value: number | undefined): void => {
      if (value !== undefined) histogram.observe(this.#labels, value);
    };
    const seconds = (ms: number | undefined) => (ms === undefined ? undefined : ms / 1000);
    const { prefillMs, decodeMs } = timings;
    const h = this.#histograms;
    this.#finished.inc({ ...this.#labels, finished_reason: reason });
    observe(h.whole, wholeMs / 1000);
    observe(h.queue, timings.queuedMs / 1000);
    observe(h.prefill, seconds(prefillMs));
    observe(h.decode, seconds(decodeMs));
    observe(
      h.inference,
      prefillMs === undefined ? undefined : (prefillMs + (decodeMs ?? 0)) / 1000,
    );
    observe(h.promptTokens, usage.promptTokens);
    observe(h.generatedTokens, usage.generatedTokens);
    observe(h.maxTokens, request.maxTokens);
    observe(h.computedPrompt, usage.promptTokens - usage.cachedTokens);
    if (usage.generatedTokens > 1 && decodeMs !== undefined) {
      observe(h.perToken, decodeMs / 1000 / (usage.generatedTokens - 1));
    }
    const now = performance.now();
    if (this.#lastFinishedAt > 0) {
      const gap = Math.min(now - this.#lastFinishedAt, wholeMs);
      this.#finishGapMs =
        this.#finishGapMs === undefined ? gap : 0.8 * this.#finishGapMs + 0.2 * gap;
    }
    this.#lastFinishedAt = now;
  }

  #log(
    reason: string,
    request: GenerationRequest,
    identity: RequestIdentity,
    usage: GenerationUsage,
    timings: GenerationTimings,
    wholeMs: number,
    error: NvlmError | undefined,
  ): void {
    const round = (ms: number | undefined) => (ms === undefined ? undefined : Math.round(ms));
    const level = error !== undefined && error.status >= 500 ? 'warn' : 'info';
    this.#logger[level](
      {
        requestId: identity.requestId,
        generationId: request.id,
        route: identity.route,
        stream: identity.stream,
        reason,
        ...(error === undefined ? {} : { code: error.code }),
        promptTokens: usage.promptTokens,
        cachedTokens: usage.cachedTokens,
        generatedTokens: usage.generatedTokens,
        queuedMs: round(timings.queuedMs),
        prefillMs: round(timings.prefillMs),
        decodeMs: round(timings.decodeMs),
        firstTokenMs: round(timings.timeToFirstTokenMs),
        totalMs: round(wholeMs),
        preemptions: timings.preemptions,
      },
      'request finished',
    );
  }
}

/** Figures read from the engine when scraped: gauges as they are, counters by their growth since the last scrape. */
function registerEngineFigures(
  engine: GenerationEngine,
  registry: Registry,
  labels: Readonly<Record<string, string>>,
): void {
  const registers = [registry];
  const labelNames = Object.keys(labels);
  type Stats = ReturnType<GenerationEngine['stats']>;
  const gauge = (name: string, help: string, read: (stats: Stats) => number) =>
    new Gauge({
      name,
      help,
      labelNames,
      registers,
      collect() {
        this.set(labels, read(engine.stats()));
      },
    });
  const counter = (name: string, help: string, read: (stats: Stats) => number) => {
    let last = 0;
    return new Counter({
      name,
      help,
      labelNames,
      registers,
      collect() {
        const now = read(engine.stats());
        this.inc(labels, Math.max(0, now - last));
        last = now;
      },
    });
  };
  gauge('vllm:num_requests_running', 'Sequences in the batch.', (stats) => stats.running);
  gauge('vllm:num_requests_waiting', 'Requests in the queue.', (stats) => stats.waiting);
  gauge('vllm:kv_cache_usage_perc', 'Share of cache blocks in use, 0 to 1.', (stats) =>
    stats.blocksTotal === 0 ? 0 : stats.blocksUsed / stats.blocksTotal,
  );
  gauge('nvlm_kv_blocks', 'Cache blocks.', (stats) => stats.blocksTotal);
  counter('vllm:prompt_tokens_total', 'Prompt tokens.', (stats) => stats.promptTokens);
  counter('vllm:generation_tokens_total', 'Generated tokens.', (stats) => stats.generatedTokens);
  counter('vllm:num_preemptions_total', 'Preemptions.', (stats) => stats.preemptions);
  counter(
    'vllm:prefix_cache_queries_total',
    'Tokens looked up in the prefix cache.',
    (stats) => stats.prefixCacheQueriedTokens,
  );
  counter(
    'vllm:prefix_cache_hits_total',
    'Tokens found in the prefix cache.',
    (stats) => stats.prefixCacheHitTokens,
  );
  counter(
    'vllm:prompt_tokens_cached_total',
    'Prompt tokens that were in the prefix cache.',
    (stats) => stats.prefixCacheHitTokens,
  );
  counter('nvlm_steps_total', 'Steps of the engine.', (stats) => stats.steps);
}
