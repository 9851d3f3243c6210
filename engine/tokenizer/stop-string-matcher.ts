/** Finds stop strings in streamed text; what may still become one is held back, so none ever leaks in part. */

export interface StopMatch {
  /** Text that is certain and may be shown. */
  readonly text: string;
  /** The stop string that ended the stream; undefined while none is complete. */
  readonly matched: string | undefined;
}

/**
 * One state machine over all stop strings (Aho and Corasick 1975): each character is read once, whatever the number of stop
 * strings. The first to be complete wins, of those complete at once the longest: so the result does not depend on how the text
 * was cut into pieces.
 */
export class StopStringMatcher {
  readonly #includeStopString: boolean;
  /** Per state: next state by UTF-16 code unit, along the stop strings only. */
  readonly #children: Map<number, number>[] = [new Map()];
  /** Per state: the longest proper suffix of its text that is a state. */
  readonly #fallbacks: number[] = [0];
  /** Per state: the length of its text. */
  readonly #depths: number[] = [0];
  /** Per state: the longest stop string that its text ends with. */
  readonly #matches: (string | undefined)[] = [undefined];
  #state = 0;
  #held = '';
  #hasEnded = false;

  /** Empty and ill-formed stop strings (half a surrogate pair) are ignored: no text holds them. */
  constructor(
    stopStrings: readonly string[],
    options: { readonly includeStopString?: boolean } = {},
  ) {
    this.#includeStopString = options.includeStopString ?? false;
    for (const stop of stopStrings) if (stop !== '' && stop.isWellFormed()) this.#add(stop);
    this.#linkFallbacks();
  }

  /** After a match the stream has ended: every later push gives ''. */
  push(piece: string): StopMatch {
    if (this.#hasEnded) return { text: '', matched: undefined };
    if (this.#children.length === 1) return { text: piece, matched: undefined };
    const text = this.#held + piece;
    for (let at = this.#held.length; at < text.length; at++) {
      this.#state = this.#step(this.#state, text.charCodeAt(at));
      const matched = this.#matches[this.#state];
      if (matched === undefined) continue;
      this.#hasEnded = true;
      this.#held = '';
      const start = at + 1 - matched.length;
      return {
        text: text.slice(0, this.#includeStopString ? at + 1 : start),
        matched,
      };
    }
    // The state's text is the longest end of the stream that begins a stop string.
    const certain = text.length - (this.#depths[this.#state] as number);
    this.#held = text.slice(certain);
    return { text: text.slice(0, certain), matched: undefined };
  }

  /** What was held back, once no more text comes. */
  flush(): string {
    const held = this.#held;
    this.#held = '';
    this.#state = 0;
    return held;
  }

  #step(from: number, unit: number): number {
    for (let state = from; ; state = this.#fallbacks[state] as number) {
      const next = this.#children[state]?.get(unit);
      if (next !== undefined) return next;
      if (state === 0) return 0;
    }
  }

  #add(stop: string): void {
    let state = 0;
    for (let at = 0; at < stop.length; at++) {
      const siblings = this.#children[state] as Map<number, number>;
      let next = siblings.get(stop.charCodeAt(at));
      if (next === undefined) {
        next = this.#children.push(new Map()) - 1;
        siblings.set(stop.charCodeAt(at), next);
        this.#depths[next] = at + 1;
        this.#fallbacks[next] = 0;
        this.#matches[next] = undefined;
      }
      state = next;
    }
    this.#matches[state] = stop;
  }

  /** Breadth first: a state's fallback is shallower than itself, so it is linked already. */
  #linkFallbacks(): void {
    const queue = [...(this.#children[0] as Map<number, number>).values()];
    for (let head = 0; head < queue.length; head++) {
      const state = queue[head] as number;
      for (const [unit, child] of this.#children[state] as Map<number, number>) {
        this.#fallbacks[child] = this.#step(this.#fallbacks[state] as number, unit);
        queue.push(child);
      }
      this.#matches[state] ??= this.#matches[this.#fallbacks[state] as number];
    }
  }
}
