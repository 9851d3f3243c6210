/**
 * The time of the API server, by which every time in the cluster is written: from the Date of its answers. An operator whose own clock is
 * minutes off, or that follows one whose clock was, counts ages of objects and times that it wrote down as everybody else does.
 */

/** A Date header has whole seconds: the answer was made within the second that it names. */
const resolutionMs = 1000;

export class ServerTime {
  readonly #localNow: () => number;
  #offsetMs = 0;

  /** `localNow`: this machine's clock, in milliseconds since 1970. */
  constructor(localNow: () => number = Date.now) {
    this.#localNow = localNow;
  }

  /** Milliseconds that the API server's clock is ahead of ours; 0 as long as they may be the same. */
  get offsetMs(): number {
    return this.#offsetMs;
  }

  now(): Date {
    return new Date(this.#localNow() + this.#offsetMs);
  }

  /** By our clock, to be given to `answered`. */
  start(): number {
    return this.#localNow();
  }

  /**
   * Notes the Date header of an answer to what was sent at `startedAt`. It was made between then and now, so it bounds the offset from both
   * sides (Cristian 1989); the offset is moved no farther than into those bounds, and not at all by clocks that agree.
   */
  answered(dateHeader: string | undefined, startedAt: number): void {
    const date = Date.parse(dateHeader ?? '');
    if (Number.isNaN(date)) return;
    const least = date - this.#localNow();
    const most = date + resolutionMs - startedAt;
    this.#offsetMs = Math.min(Math.max(this.#offsetMs, least), most);
  }
}
