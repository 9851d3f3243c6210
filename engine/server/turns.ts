/** Requests that arrive together are taken up one per turn of the event loop, so that the sockets and the step loop get theirs in between. */
export class Turns {
  readonly #waiting: (() => void)[] = [];

  /** Resolves in a turn that no other caller has; first come, first served. */
  take(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      if (this.#waiting.length === 1) setImmediate(this.#next);
    });
  }

  readonly #next = (): void => {
    this.#waiting.shift()?.();
    // From within an immediate, this is the next turn.
    if (this.#waiting.length > 0) setImmediate(this.#next);
  };
}
