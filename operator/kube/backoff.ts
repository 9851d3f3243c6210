/** Exponential backoff with full jitter: a wait drawn evenly from 0 to the doubled limit, so that clients do not come back in step. */
export interface BackoffOptions {
  readonly baseMs: number;
  readonly maxMs: number;
  /** In [0, 1). */
  readonly random?: () => number;
}

export class Backoff {
  readonly #options: BackoffOptions;
  #failures = 0;

  constructor(options: BackoffOptions) {
    this.#options = options;
  }

  get failures(): number {
    return this.#failures;
  }

  /** Counts a failure; milliseconds to wait before the next attempt. */
  next(): number {
    const { baseMs, maxMs, random = Math.random } = this.#options;
    const limit = Math.min(maxMs, baseMs * 2 ** Math.min(this.#failures, 30));
    this.#failures++;
    return random() * limit;
  }

  reset(): void {
    this.#failures = 0;
  }
}
