/** Copies a response's events to one reader, at the reader's pace. */
import type { ResponseRun } from './response-run.ts';

/** Where encoded events go: a socket lane or an SSE body. */
export interface EventSink {
  /** False when more is buffered than should be: wait for `drained` before the next. */
  write(json: string): boolean;
  /** Rejects with NvlmError 'slow_reader' when the reader took too long, or when it is gone. */
  drained(): Promise<void>;
  readonly isClosed: boolean;
}

/**
 * Sends the events from `firstEvent` on and returns after the last one. With `holdsRun` the response pulls no tokens while
 * this reader is behind. Throws what `drained` throws.
 */
export async function feedEvents(
  run: ResponseRun,
  sink: EventSink,
  firstEvent: number,
  holdsRun: boolean,
): Promise<void> {
  let next = firstEvent;
  for (;;) {
    while (next < run.eventCount) {
      if (sink.isClosed) return;
      const hasRoom = sink.write(run.event(next));
      next++;
      if (hasRoom) continue;
      const drained = sink.drained();
      if (holdsRun) run.holdUntil(drained);
      await drained;
    }
    if (run.isFinished) return;
    await run.nextEvent();
  }
}
