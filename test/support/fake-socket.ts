/** A browser WebSocket and timers that a test moves by hand. */
import type { SocketLike } from '#web/connection.ts';

type Listener = (event: { readonly data: unknown }) => void;

export class FakeSocket implements SocketLike {
  readonly sent: Record<string, unknown>[] = [];
  isClosed = false;
  readonly #listeners = new Map<string, Listener[]>();

  addEventListener(type: string, listener: Listener): void {
    this.#listeners.set(type, [...(this.#listeners.get(type) ?? []), listener]);
  }

  send(data: string): void {
    this.sent.push(JSON.parse(data));
  }

  close(): void {
    this.isClosed = true;
  }

  open(): void {
    this.#fire('open', null);
  }

  deliver(event: object): void {
    this.#fire('message', JSON.stringify(event));
  }

  drop(): void {
    this.#fire('close', null);
  }

  #fire(type: string, data: unknown): void {
    for (const listener of this.#listeners.get(type) ?? []) listener({ data });
  }
}

/** Timers that fire when `advance` passes their time. */
export class FakeTimers {
  #now = 0;
  #pending: { at: number; callback: () => void }[] = [];

  readonly setTimer = (callback: () => void, ms: number): (() => void) => {
    const timer = { at: this.#now + ms, callback };
    this.#pending.push(timer);
    return () => {
      this.#pending = this.#pending.filter((other) => other !== timer);
    };
  };

  get pendingCount(): number {
    return this.#pending.length;
  }

  advance(ms: number): void {
    this.#now += ms;
    for (;;) {
      const due = this.#pending.find((timer) => timer.at <= this.#now);
      if (due === undefined) return;
      this.#pending = this.#pending.filter((other) => other !== due);
      due.callback();
    }
  }
}
