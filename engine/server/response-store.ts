/** The responses of the last while, bounded by number, bytes and age; running ones are never evicted. */
import type { ResponseRun } from './response-run.ts';

export interface StoreLimits {
  readonly maxStoredResponses: number;
  readonly maxStoredBytes: number;
  readonly maxStoredAgeMs: number;
}

interface Entry {
  readonly run: ResponseRun;
  readonly storedAt: number;
  /** Fixed when the response finished. */
  byteSize: number;
}

export class ResponseStore {
  readonly #limits: StoreLimits;
  readonly #now: () => number;
  /** Oldest first. */
  readonly #entries = new Map<string, Entry>();
  #byteSize = 0;

  /** `now`: milliseconds of any clock that only grows. */
  constructor(limits: StoreLimits, now: () => number = () => performance.now()) {
    this.#limits = limits;
    this.#now = now;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** Of finished responses. */
  get byteSize(): number {
    return this.#byteSize;
  }

  add(run: ResponseRun): void {
    const entry: Entry = { run, storedAt: this.#now(), byteSize: 0 };
    this.#entries.set(run.id, entry);
    this.#evict();
    void run.done.then(() => {
      if (this.#entries.get(run.id) !== entry) return;
      entry.byteSize = run.byteSize;
      this.#byteSize += entry.byteSize;
      this.#evict();
    });
  }

  get(id: string): ResponseRun | undefined {
    this.#evict();
    return this.#entries.get(id)?.run;
  }

  /** Forgets it, cancelling it when it still runs. False when there is none. */
  delete(id: string): boolean {
    const entry = this.#entries.get(id);
    if (entry === undefined) return false;
    this.#remove(entry);
    entry.run.cancel();
    return true;
  }

  *running(): IterableIterator<ResponseRun> {
    for (const { run } of this.#entries.values()) if (!run.isFinished) yield run;
  }

  #remove(entry: Entry): void {
    this.#entries.delete(entry.run.id);
    this.#byteSize -= entry.byteSize;
  }

  #evict(): void {
    const { maxStoredAgeMs, maxStoredBytes, maxStoredResponses } = this.#limits;
    const oldest = this.#now() - maxStoredAgeMs;
    for (const entry of this.#entries.values()) {
      const isOver =
        entry.storedAt < oldest ||
        this.#entries.size > maxStoredResponses ||
        this.#byteSize > maxStoredBytes;
      if (!isOver) break;
      if (entry.run.isFinished) this.#remove(entry);
    }
  }
}
