/** A request between submit and its terminal event: its stream, its timers, when what happened. */
import type { EventStream } from './event-stream.ts';
import type { GenerationEvent, GenerationTimings, GenerationUsage } from './request.ts';
import type { Sequence } from './sequence.ts';

export type CancelTimer = () => void;

export class ActiveRequest {
  readonly sequence: Sequence;
  readonly stream: EventStream;
  /** Runs at the end, whatever the end is: listeners and timers must not outlive the request. */
  readonly #cleanups = new Set<() => void>();
  cancelQueueTimer: CancelTimer = () => {};
  cancelPauseTimer: CancelTimer = () => {};
  announcedPosition = 0;
  announcedAtMs = Number.NEGATIVE_INFINITY;
  firstScheduledAtMs: number | undefined;
  promptDoneAtMs: number | undefined;
  firstTokenAtMs: number | undefined;

  constructor(sequence: Sequence, stream: EventStream) {
    this.sequence = sequence;
    this.stream = stream;
  }

  onEnd(cleanup: () => void): void {
    this.#cleanups.add(cleanup);
  }

  /** Emits the terminal event. The engine calls it once, when it forgets the request. */
  end(event: GenerationEvent): void {
    this.cancelQueueTimer();
    this.cancelPauseTimer();
    for (const cleanup of this.#cleanups) cleanup();
    this.stream.push(event);
  }

  usage(): GenerationUsage {
    const { sequence } = this;
    return {
      promptTokens: sequence.promptLength,
      cachedTokens: Math.max(0, sequence.cachedTokens),
      generatedTokens: sequence.generatedTokens,
    };
  }

  timings(nowMs: number): GenerationTimings {
    const { arrivedAtMs, preemptions } = this.sequence;
    const scheduled = this.firstScheduledAtMs;
    const promptDone = this.promptDoneAtMs;
    const firstToken = this.firstTokenAtMs;
    return {
      queuedMs: (scheduled ?? nowMs) - arrivedAtMs,
      prefillMs: scheduled === undefined ? undefined : (promptDone ?? nowMs) - scheduled,
      decodeMs: firstToken === undefined ? undefined : nowMs - firstToken,
      timeToFirstTokenMs: firstToken === undefined ? undefined : firstToken - arrivedAtMs,
      preemptions,
    };
  }
}
