/** The events of one request between the engine that makes them and the one reader that takes them. */
import type { GenerationEvent } from './request.ts';

type Result = IteratorResult<GenerationEvent, undefined>;
const DONE: Result = { done: true, value: undefined };

export class EventStream implements AsyncIterableIterator<GenerationEvent, undefined> {
  #unread: GenerationEvent[] = [];
  /** Index of the next unread event: taking one moves it, so that a long backlog costs no shifting. */
  #head = 0;
  #readers: ((result: Result) => void)[] = [];
  #isClosed = false;
  #isEnded = false;
  readonly #onRead: () => void;
  readonly #onClose: () => void;

  /** @param onRead an event was taken from a backlog. @param onClose the reader left before the terminal event. */
  constructor(onRead: () => void, onClose: () => void) {
    this.#onRead = onRead;
    this.#onClose = onClose;
  }

  get unreadCount(): number {
    return this.#unread.length - this.#head;
  }

  push(event: GenerationEvent): void {
    if (this.#isClosed || this.#isEnded) return;
    this.#isEnded = event.type === 'end' || event.type === 'error';
    const reader = this.#readers.shift();
    if (reader === undefined) this.#unread.push(event);
    else reader({ done: false, value: event });
    if (this.#isEnded) for (const waiting of this.#readers.splice(0)) waiting(DONE);
  }

  next(): Promise<Result> {
    if (this.#head < this.#unread.length) {
      const value = this.#unread[this.#head++]!;
      if (this.#head === this.#unread.length) {
        this.#unread = [];
        this.#head = 0;
      }
      this.#onRead();
      return Promise.resolve({ done: false, value });
    }
    if (this.#isClosed || this.#isEnded) return Promise.resolve(DONE);
    return new Promise((resolve) => this.#readers.push(resolve));
  }

  return(): Promise<Result> {
    this.#close();
    return Promise.resolve(DONE);
  }

  throw(error: unknown): Promise<Result> {
    this.#close();
    return Promise.reject(error);
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#unread = [];
    this.#head = 0;
    for (const waiting of this.#readers.splice(0)) waiting(DONE);
    if (!this.#isEnded) this.#onClose();
  }
}
