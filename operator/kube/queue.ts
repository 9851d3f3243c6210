/**
 * Keys that wait to be worked on. A key is in the queue once however often it is added, is worked on by one worker at a time, and
 * comes back after a failure with a delay that doubles. Urgent keys go before those of a first list, so that a restart does not
 * hold up an edit.
 */
import { type Clock, systemClock } from './clock.ts';

export type Priority = 'urgent' | 'background';

export interface WorkQueueHooks {
  onAdd?(depth: number): void;
  /** `waitedSeconds` since the key was added. */
  onStart?(key: string, waitedSeconds: number, active: number): void;
  onEnd?(key: string, seconds: number, error?: unknown): void;
  onRetry?(key: string, failures: number, delayMs: number): void;
}

export interface WorkQueueOptions {
  /** What to do with a key; the answer asks for another turn after so many milliseconds. */
  readonly work: (key: string, signal: AbortSignal) => Promise<number | undefined>;
  /** Keys that are worked on at once; asked before each start. 4 when absent. */
  readonly workers?: number | (() => number);
  /** How long a worker that was busy for so long rests before it takes the next key; 0 when absent. */
  readonly restMs?: (busyMs: number) => number;
  readonly clock?: Clock;
  /** In [0, 1). */
  readonly random?: () => number;
  readonly hooks?: WorkQueueHooks;
  readonly backoff?: { readonly baseMs: number; readonly maxMs: number };
}

export class WorkQueue {
  readonly #options: WorkQueueOptions;
  readonly #clock: Clock;
  /** Key -> when it was added. Maps keep the order of insertion. */
  readonly #waiting: Record<Priority, Map<string, number>> = {
    urgent: new Map(),
    background: new Map(),
  };
  readonly #working = new Map<string, Promise<void>>();
  /** Added again while it was worked on. */
  readonly #dirty = new Map<string, Priority>();
  readonly #delayed = new Map<string, { readonly atMs: number; readonly cancel: () => void }>();
  readonly #failures = new Map<string, number>();
  #signal: AbortSignal | undefined;
  #resting = 0;

  constructor(options: WorkQueueOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
  }

  /** Keys that wait for a worker. */
  get depth(): number {
    return this.#waiting.urgent.size + this.#waiting.background.size;
  }

  /** Of the key that waits longest; 0 when none does. */
  get oldestAgeMs(): number {
    const times = [...this.#waiting.urgent.values(), ...this.#waiting.background.values()];
    return times.length === 0 ? 0 : this.#clock.now() - Math.min(...times);
  }

  get isIdle(): boolean {
    return this.depth === 0 && this.#working.size === 0 && this.#delayed.size === 0;
  }

  add(key: string, priority: Priority = 'urgent'): void {
    if (this.#working.has(key)) {
      if (this.#dirty.get(key) !== 'urgent') this.#dirty.set(key, priority);
      return;
    }
    const addedAt = this.#waiting.urgent.get(key) ?? this.#waiting.background.get(key);
    if (this.#waiting.urgent.has(key) || (addedAt !== undefined && priority === 'background'))
      return;
    this.#waiting.background.delete(key);
    this.#waiting[priority].set(key, addedAt ?? this.#clock.now());
    this.#options.hooks?.onAdd?.(this.depth);
    this.#pump();
  }

  /** Adds the key later; of two times the earlier one counts. */
  addAfter(key: string, ms: number): void {
    const atMs = this.#clock.now() + ms;
    const pending = this.#delayed.get(key);
    if (pending !== undefined) {
      if (pending.atMs <= atMs) return;
      pending.cancel();
    }
    const cancel = this.#clock.setTimer(() => {
      this.#delayed.delete(key);
      this.add(key);
    }, ms);
    this.#delayed.set(key, { atMs, cancel });
  }

  /**
   * Works until `signal` aborts; resolves when the last worker has ended. Keys that were cut off, or would have come later, wait for
   * the next run.
   */
  async run(signal: AbortSignal): Promise<void> {
    this.#signal = signal;
    this.#pump();
    if (!signal.aborted) {
      await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
    }
    for (const [key, { cancel }] of this.#delayed) {
      cancel();
      this.add(key, 'background');
    }
    this.#delayed.clear();
    await Promise.allSettled(this.#working.values());
    this.#signal = undefined;
  }

  #pump(): void {
    const { workers = 4 } = this.#options;
    const most = typeof workers === 'number' ? () => workers : workers;
    while (this.#signal && !this.#signal.aborted && this.#working.size + this.#resting < most()) {
      const lane = this.#waiting.urgent.size > 0 ? this.#waiting.urgent : this.#waiting.background;
      const next = lane.entries().next();
      if (next.done) return;
      const [key, addedAt] = next.value;
      lane.delete(key);
      const signal = this.#signal;
      // Not before the key is marked as worked on: the work may add it again at once.
      this.#working.set(
        key,
        Promise.resolve().then(() => this.#work(key, addedAt, signal)),
      );
    }
  }

  async #work(key: string, addedAt: number, signal: AbortSignal): Promise<void> {
    const { work, hooks } = this.#options;
    const startedAt = this.#clock.now();
    hooks?.onStart?.(key, (startedAt - addedAt) / 1000, this.#working.size);
    let failure: unknown;
    let again: number | undefined;
    try {
      again = await work(key, signal);
      this.#failures.delete(key);
      if (again !== undefined && !signal.aborted) this.addAfter(key, again);
    } catch (error) {
      failure = error;
      if (!signal.aborted) this.#retry(key);
    }
    const isCut = signal.aborted && (failure !== undefined || again !== undefined);
    const busyMs = this.#clock.now() - startedAt;
    hooks?.onEnd?.(key, busyMs / 1000, failure);
    const restMs = this.#options.restMs?.(busyMs) ?? 0;
    if (restMs > 0) {
      this.#resting++;
      this.#clock.setTimer(() => {
        this.#resting--;
        this.#pump();
      }, restMs);
    }
    this.#working.delete(key);
    const dirty = this.#dirty.get(key);
    this.#dirty.delete(key);
    if (dirty !== undefined || isCut) this.add(key, dirty ?? 'background');
    this.#pump();
  }

  #retry(key: string): void {
    const { backoff = { baseMs: 200, maxMs: 60_000 }, hooks, random = Math.random } = this.#options;
    const failures = (this.#failures.get(key) ?? 0) + 1;
    this.#failures.set(key, failures);
    const limit = Math.min(backoff.maxMs, backoff.baseMs * 2 ** Math.min(failures - 1, 30));
    // Half fixed, half drawn: many keys that fail together do not come back together, and none at once.
    const delayMs = limit / 2 + (random() * limit) / 2;
    hooks?.onRetry?.(key, failures, delayMs);
    this.addAfter(key, delayMs);
  }
}
