/** The generation engine: requests in, event streams out, and between them one step loop per lane. */
import type { Forward, StepOutputs } from '#engine/model/forward.ts';
import type { NvlmError } from '#engine/protocol/errors.ts';
import { ActiveRequest, type CancelTimer } from './active-request.ts';
import { CompletionRate } from './completion-rate.ts';
import {
  queueFull,
  queueTimeout,
  shuttingDown,
  slowReader,
  stepFailed,
  undrawable,
} from './engine-errors.ts';
import { EventStream } from './event-stream.ts';
import type { BatchMode } from './modes/table.ts';
import type { Plan, Progress } from './plan.ts';
import type {
  EngineStats,
  GenerationEngine,
  GenerationEvent,
  GenerationRequest,
} from './request.ts';
import { Scheduler } from './scheduler.ts';
import type { Sequence } from './sequence.ts';
import { StepBuilder } from './step-builder.ts';
import { validateRequest } from './validate-request.ts';

export interface EngineOptions {
  /** One runner per lane: Threads uses all of them, the other modes the first. */
  readonly forwards: readonly Forward[];
  readonly mode: BatchMode;
  /** Sequences of one step, at most; in Threads every lane decodes one. */
  readonly maxSequences: number;
  /** Tokens of one step, at most. */
  readonly maxBatchedTokens: number;
  /** Prompt and output of one request, at most; less when the cache has fewer tokens. */
  readonly maxModelLength: number;
  /** Tokens per cache block. */
  readonly blockSize: number;
  /** Blocks of the cache; one of them is padding and holds nothing. */
  readonly blockCount: number;
  /** Rows of the logits, which every token id must be below. */
  readonly vocabularyRows: number;
  /** Requests that may wait beyond those that have a place to run in. */
  readonly maxQueuedRequests: number;
  /** A request that has not started by then ends with 'queue_timeout'; 0: never. */
  readonly queueTimeoutMs: number;
  readonly prefixCaching: boolean;
  /** Static mode: how long the first request of a batch waits for others. */
  readonly staticWindowMs: number;
  /** A reader that has paused its sequence for so long is cut off. */
  readonly slowReaderTimeoutMs: number;
  readonly maxUnreadTokens: number;
  /** Milliseconds; performance.now by default. */
  readonly now?: () => number;
  /** Calls back once after `ms`; the result cancels. setTimeout by default. */
  readonly setTimer?: (callback: () => void, ms: number) => CancelTimer;
}

/** Positions are looked at so often, and told to one request once a second at most. */
const QUEUE_NEWS_CHECK_MS = 500;
const QUEUE_NEWS_INTERVAL_MS = 1000;

/** Starts no step until a request comes. Throws RangeError for options that cannot work together. */
export function createEngine(options: EngineOptions): GenerationEngine {
  return new Engine(options);
}

function setRealTimer(callback: () => void, ms: number): CancelTimer {
  const timer = setTimeout(callback, ms);
  return () => clearTimeout(timer);
}

const countAsked = (sequences: readonly Sequence[]): number =>
  sequences.reduce((count, { request }) => count + (request.isProbe === true ? 0 : 1), 0);

class Engine implements GenerationEngine {
  readonly maxModelLength: number;
  readonly #options: EngineOptions;
  readonly #now: () => number;
  readonly #setTimer: (callback: () => void, ms: number) => CancelTimer;
  readonly #scheduler: Scheduler;
  readonly #builder: StepBuilder;
  readonly #active = new Map<Sequence, ActiveRequest>();
  readonly #busyLanes = new Set<number>();
  readonly #completions = new CompletionRate();
  readonly #stepListeners: Parameters<GenerationEngine['onStep']>[0][] = [];
  #newArrivals: ActiveRequest[] = [];
  #isPumpQueued = false;
  #isDraining = false;
  #idleWaiters: (() => void)[] = [];
  #cancelWakeTimer: CancelTimer | undefined;
  #cancelQueueNews: CancelTimer | undefined;
  #stats = {
    prefixCacheQueriedTokens: 0,
    prefixCacheHitTokens: 0,
    promptTokens: 0,
    generatedTokens: 0,
    steps: 0,
    lastStepAt: 0,
  };

  constructor(options: EngineOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    this.#setTimer = options.setTimer ?? setRealTimer;
    this.#scheduler = new Scheduler({ ...options, forwardCount: options.forwards.length });
    this.#builder = new StepBuilder({
      ...options,
      sequencesPerLane: this.#scheduler.sequencesPerLane,
    });
    this.maxModelLength = this.#scheduler.maxModelLength;
  }

  submit(request: GenerationRequest, signal: AbortSignal): AsyncIterable<GenerationEvent> {
    if (this.#isDraining) throw shuttingDown();
    validateRequest(request, this.#options.vocabularyRows);
    const nowMs = this.#now();
    this.#refuseWhenFull(nowMs);
    const sequence = this.#scheduler.add(request, nowMs);
    const stream = new EventStream(
      () => this.#resumeWhenRead(active),
      () => this.#abort(active),
    );
    const active = new ActiveRequest(sequence, stream);
    this.#active.set(sequence, active);
    if (signal.aborted) {
      this.#abort(active);
      return stream;
    }
    const onAbort = () => this.#abort(active);
    signal.addEventListener('abort', onAbort, { once: true });
    active.onEnd(() => signal.removeEventListener('abort', onAbort));
    if (this.#options.queueTimeoutMs > 0) {
      active.cancelQueueTimer = this.#setTimer(
        () => this.#failQueued(active),
        this.#options.queueTimeoutMs,
      );
    }
    this.#newArrivals.push(active);
    this.#queuePump();
    return stream;
  }

  stats(): EngineStats {
    const { blocks, running, waiting, preemptions } = this.#scheduler;
    return {
      ...this.#stats,
      running: countAsked(running),
      waiting: countAsked(waiting),
      blocksTotal: blocks.capacity,
      blocksUsed: blocks.capacity - blocks.freeCount,
      preemptions,
    };
  }

  /** A listener must not throw: it is called from the step loop. */
  onStep(listener: Parameters<GenerationEngine['onStep']>[0]): void {
    this.#stepListeners.push(listener);
  }

  async drain(timeoutMs: number): Promise<void> {
    this.#isDraining = true;
    const cancelTimer = this.#setTimer(() => {
      for (const active of [...this.#active.values()]) this.#fail(active, shuttingDown());
    }, timeoutMs);
    await this.#untilIdle();
    cancelTimer();
  }

  resetPrefixCache(): void {
    this.#scheduler.blocks.resetPrefixCache();
  }

  /** Starts the lanes that rest, once the present task is over: requests of one burst then share their first step. */
  #queuePump(): void {
    if (this.#isPumpQueued) return;
    this.#isPumpQueued = true;
    queueMicrotask(() => {
      this.#isPumpQueued = false;
      this.#pump();
    });
  }

  #pump(): void {
    for (let lane = 0; lane < this.#scheduler.laneCount; lane++) {
      if (!this.#busyLanes.has(lane)) void this.#runLane(lane);
    }
    const arrivals = this.#newArrivals;
    this.#newArrivals = [];
    const nowMs = this.#now();
    const { waiting } = this.#scheduler;
    for (const active of arrivals) {
      if (active.sequence.state !== 'waiting') continue;
      this.#announcePosition(active, waiting.indexOf(active.sequence) + 1, nowMs);
    }
    this.#settle();
  }

  /** After the lanes have taken what work there is: timers for the rest, and word to those who wait for the end. */
  #settle(): void {
    this.#cancelWakeTimer?.();
    // Lanes at work ask again by themselves; a window that has passed meanwhile must not set a timer of no length for ever.
    const isResting = this.#busyLanes.size < this.#scheduler.laneCount;
    const wakeAfterMs = isResting ? this.#scheduler.wakeAfterMs(this.#now()) : undefined;
    this.#cancelWakeTimer =
      wakeAfterMs === undefined ? undefined : this.#setTimer(() => this.#pump(), wakeAfterMs);
    if (this.#cancelQueueNews === undefined && this.#scheduler.waiting.length > 0) {
      this.#cancelQueueNews = this.#setTimer(() => this.#tellQueueNews(), QUEUE_NEWS_CHECK_MS);
    }
    if (this.#active.size === 0 && this.#busyLanes.size === 0) {
      this.#cancelQueueNews?.();
      this.#cancelQueueNews = undefined;
      for (const resolve of this.#idleWaiters.splice(0)) resolve();
    }
  }

  /**
   * The next step of a lane starts before what the last one gave is told: readers turn tokens into text and frames while the
   * threads compute, instead of making them wait. All of that is one turn of the loop: nobody can end a request between. Never
   * rejects: what a step throws ends the requests of that step and no others.
   */
  async #runLane(lane: number): Promise<void> {
    this.#busyLanes.add(lane);
    let tellLast = (): void => {};
    for (;;) {
      const plan = this.#scheduler.schedule(lane, this.#now());
      if (plan === undefined) break;
      const startedAtMs = this.#now();
      const outputs = this.#start(plan, startedAtMs);
      tellLast();
      let tell: () => void;
      try {
        tell = this.#commit(plan, await outputs);
      } catch (cause) {
        tell = this.#failStep(plan, cause);
      }
      const step = this.#countStep(plan, startedAtMs);
      tellLast = () => {
        tell();
        for (const listener of this.#stepListeners) listener(step);
      };
      // What this step gave back may be what another lane waits for.
      if (this.#scheduler.laneCount > 1) this.#queuePump();
    }
    tellLast();
    this.#busyLanes.delete(lane);
    this.#settle();
  }

  async #start(plan: Plan, nowMs: number): Promise<StepOutputs> {
    for (const entry of plan.entries) this.#noteStart(entry.sequence, entry.start, nowMs);
    return this.#options.forwards[plan.lane]!.run(this.#builder.build(plan));
  }

  /** Takes in what a step gave; the result tells it to those who wait for it. */
  #commit(plan: Plan, outputs: StepOutputs): () => void {
    const progress = this.#scheduler.commit(plan, outputs);
    const endedAtMs = this.#now();
    return () => {
      for (const one of progress) this.#emitProgress(one, endedAtMs);
    };
  }

  #failStep(plan: Plan, cause: unknown): () => void {
    const error = stepFailed(cause);
    const failed = this.#scheduler.fail(plan);
    return () => {
      for (const sequence of failed) {
        const active = this.#active.get(sequence);
        if (active !== undefined) this.#fail(active, error);
      }
    };
  }

  #countStep({ tokenCount, entries }: Plan, startedAtMs: number): Step {
    this.#stats.steps++;
    this.#stats.lastStepAt = this.#now();
    return {
      tokens: tokenCount,
      sequences: entries.length,
      durationMs: this.#stats.lastStepAt - startedAtMs,
    };
  }

  #noteStart(sequence: Sequence, computedTokens: number, nowMs: number): void {
    const active = this.#active.get(sequence)!;
    if (active.firstScheduledAtMs !== undefined) return;
    active.firstScheduledAtMs = nowMs;
    active.cancelQueueTimer();
    const { promptLogprobs, isProbe = false } = sequence.request;
    if (this.#options.prefixCaching && promptLogprobs < 0 && !isProbe) {
      this.#stats.prefixCacheQueriedTokens += sequence.promptLength;
      this.#stats.prefixCacheHitTokens += sequence.cachedTokens;
    }
    active.stream.push({ type: 'prefill', computedTokens, promptTokens: sequence.promptLength });
  }

  #emitProgress({ sequence, entry, tokenId, logprobs, finish }: Progress, nowMs: number): void {
    const active = this.#active.get(sequence)!;
    const { stream } = active;
    const { isProbe = false } = sequence.request;
    const computedTokens = entry.start + entry.count;
    if (active.promptDoneAtMs === undefined) {
      const promptTokens = sequence.promptLength;
      if (computedTokens < promptTokens) {
        stream.push({ type: 'prefill', computedTokens, promptTokens });
      } else {
        active.promptDoneAtMs = nowMs;
        if (!isProbe) this.#stats.promptTokens += promptTokens;
        if (sequence.request.promptLogprobs >= 0) {
          stream.push({ type: 'promptLogprobs', logprobs: sequence.promptLogprobs });
        }
      }
    }
    if (tokenId !== undefined) {
      active.firstTokenAtMs ??= nowMs;
      if (!isProbe) this.#stats.generatedTokens++;
      stream.push({ type: 'token', tokenId, logprobs });
    }
    if (finish === undefined) this.#pauseWhenUnread(active);
    else if (finish.reason === 'undrawable') this.#fail(active, undrawable());
    else
      this.#finish(
        active,
        { type: 'end', reason: finish.reason, stopReason: finish.stopReason },
        nowMs,
      );
  }

  #pauseWhenUnread(active: ActiveRequest): void {
    const { sequence, stream } = active;
    if (sequence.isPaused || stream.unreadCount <= this.#options.maxUnreadTokens) return;
    sequence.isPaused = true;
    active.cancelPauseTimer = this.#setTimer(
      () => this.#fail(active, slowReader(stream.unreadCount, this.#options)),
      this.#options.slowReaderTimeoutMs,
    );
  }

  #resumeWhenRead({ sequence, stream, cancelPauseTimer }: ActiveRequest): void {
    // Half, so that a reader at the limit does not pause and resume with every token.
    if (!sequence.isPaused || stream.unreadCount > this.#options.maxUnreadTokens / 2) return;
    sequence.isPaused = false;
    cancelPauseTimer();
    this.#queuePump();
  }

  #abort(active: ActiveRequest): void {
    this.#finish(active, { type: 'end', reason: 'abort', stopReason: null }, this.#now());
  }

  #fail(active: ActiveRequest, error: NvlmError): void {
    this.#finish(active, { type: 'error', error }, this.#now());
  }

  #failQueued(active: ActiveRequest): void {
    const retryAfterSeconds = this.#secondsToDrainQueue(this.#now());
    this.#fail(active, queueTimeout(this.#options.queueTimeoutMs, retryAfterSeconds));
  }

  /** The one way out of the engine for a request; the second of two ends that meet changes nothing. */
  #finish(active: ActiveRequest, ending: Ending, nowMs: number): void {
    if (!this.#active.delete(active.sequence)) return;
    this.#scheduler.cancel(active.sequence);
    this.#completions.record(nowMs);
    active.end({ ...ending, usage: active.usage(), timings: active.timings(nowMs) });
    this.#queuePump();
  }

  #refuseWhenFull(nowMs: number): void {
    const waiting = this.#scheduler.waiting.length;
    const limit = this.#options.maxQueuedRequests + this.#scheduler.freePlaces;
    if (waiting < limit) return;
    throw queueFull(waiting, this.#options.maxQueuedRequests, this.#secondsToDrainQueue(nowMs));
  }

  #secondsToDrainQueue(nowMs: number): number {
    return this.#completions.secondsFor(this.#scheduler.waiting.length, nowMs);
  }

  #tellQueueNews(): void {
    this.#cancelQueueNews = undefined;
    const nowMs = this.#now();
    for (const [index, sequence] of this.#scheduler.waiting.entries()) {
      this.#announcePosition(this.#active.get(sequence)!, index + 1, nowMs);
    }
    this.#settle();
  }

  /** Tells a waiting request its place in the queue, if that is news; one that was preempted hears nothing. */
  #announcePosition(active: ActiveRequest, position: number, nowMs: number): void {
    if (active.firstScheduledAtMs !== undefined || position === active.announcedPosition) return;
    if (nowMs - active.announcedAtMs < QUEUE_NEWS_INTERVAL_MS) return;
    active.announcedPosition = position;
    active.announcedAtMs = nowMs;
    active.stream.push({ type: 'queued', position, waiting: this.#scheduler.waiting.length });
  }

  #untilIdle(): Promise<void> {
    return new Promise((resolve) => {
      this.#idleWaiters.push(resolve);
      this.#queuePump();
    });
  }
}

type Step = Parameters<Parameters<GenerationEngine['onStep']>[0]>[0];

type Ending =
  | {
      readonly type: 'end';
      readonly reason: 'stop' | 'length' | 'abort';
      readonly stopReason: number | null;
    }
  | { readonly type: 'error'; readonly error: NvlmError };
