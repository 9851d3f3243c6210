/** How fast requests have ended lately, to tell a refused client when a place may be free. */
const WINDOW = 32;
const LONGEST_SECONDS = 600;

export class CompletionRate {
  readonly #endedAtMs: number[] = [];

  record(nowMs: number): void {
    this.#endedAtMs.push(nowMs);
    if (this.#endedAtMs.length > WINDOW) this.#endedAtMs.shift();
  }

  /** Whole seconds until `waiting` requests have ended at the recent rate; 1 before anything has ended. */
  secondsFor(waiting: number, nowMs: number): number {
    const first = this.#endedAtMs[0];
    if (first === undefined) return 1;
    const secondsEach = (nowMs - first) / 1000 / this.#endedAtMs.length;
    return Math.min(LONGEST_SECONDS, Math.max(1, Math.ceil(waiting * secondsEach)));
  }
}
