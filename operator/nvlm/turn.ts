/**
 * The writes of one turn of an NVLMDeployment: one after the other, and for so long that the turns of others, edits among them, come soon.
 * What is left is for the next turn, which decides anew on what these writes made. As each turn has one call under way, the number of
 * workers is the number of writes that the API server has to deal with at once, and the limit of workers limits those.
 */
import { type Clock, systemClock } from '../kube/clock.ts';

/** A write takes 5 to 20 ms of an API server that has time: a few fit, and the one that is on its way at the end. */
const turnMs = 20;

export class Turn {
  /** Aborts when this process does not lead any more. */
  readonly fence: AbortSignal;
  readonly #clock: Clock;
  readonly #startedAt: number;
  #writes = 0;

  constructor(fence: AbortSignal, clock: Clock = systemClock) {
    this.fence = fence;
    this.#clock = clock;
    this.#startedAt = clock.now();
  }

  /** Makes a write that the watch will tell of. */
  write<T>(call: () => Promise<T>): Promise<T> {
    this.#writes++;
    return call();
  }

  get hasWritten(): boolean {
    return this.#writes > 0;
  }

  /** Whether the next write is for another turn. */
  get isOver(): boolean {
    return this.hasWritten && this.#clock.now() - this.#startedAt >= turnMs;
  }
}
