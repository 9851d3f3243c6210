/** Finds stop strings in streamed text, holding back only what may still become one. */

export class StopText {
  readonly #stops: readonly string[];
  readonly #includeStop: boolean;
  #held = '';

  constructor(stops: readonly string[], includeStop: boolean) {
    this.#stops = stops;
    this.#includeStop = includeStop;
  }

  /** Text that is certain now; `matched` once a stop string is complete (the earliest; of equals the first listed). */
  push(piece: string): { readonly text: string; readonly matched: string | undefined } {
    if (this.#stops.length === 0 || piece === '') return { text: piece, matched: undefined };
    const text = this.#held + piece;
    let matched: string | undefined;
    let at = text.length;
    for (const stop of this.#stops) {
      const found = text.indexOf(stop);
      if (found >= 0 && found < at) [matched, at] = [stop, found];
    }
    if (matched !== undefined) {
      this.#held = '';
      return { text: text.slice(0, at + (this.#includeStop ? matched.length : 0)), matched };
    }
    const keep = this.#beginningOfAStop(text);
    this.#held = text.slice(text.length - keep);
    return { text: text.slice(0, text.length - keep), matched: undefined };
  }

  /** What was held back, once no more text comes. */
  flush(): string {
    const held = this.#held;
    this.#held = '';
    return held;
  }

  /** Length of the longest end of `text` that begins a stop string. */
  #beginningOfAStop(text: string): number {
    let longest = 0;
    for (const stop of this.#stops) {
      for (let size = Math.min(stop.length - 1, text.length); size > longest; size--) {
        if (text.endsWith(stop.slice(0, size))) longest = size;
      }
    }
    return longest;
  }
}
