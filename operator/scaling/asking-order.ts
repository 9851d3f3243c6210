/** Whose turn it is among engines that are too many to be all asked in a round. */
import type { ScrapeTarget } from './scraper.ts';

export class AskingOrder {
  /** Pods by when they were asked last: a Set keeps the order of insertion, and who is asked again goes to its end. */
  readonly #asked = new Set<string>();

  /** Those that press, and `most` of the others, new ones first, then who was asked longest ago. Takes time in proportion to all that are there. */
  choose(present: readonly ScrapeTarget[], most: number): readonly ScrapeTarget[] {
    const chosen: ScrapeTarget[] = [];
    const asked = new Map<string, ScrapeTarget>();
    let left = most;
    for (const target of present) {
      if (target.isPressing === true) chosen.push(target);
      else if (this.#asked.has(target.pod)) asked.set(target.pod, target);
      else if (left > 0) {
        chosen.push(target);
        left--;
      }
    }
    for (const pod of this.#asked) {
      if (left <= 0) break;
      const target = asked.get(pod);
      if (target === undefined) {
        this.#asked.delete(pod);
      } else {
        chosen.push(target);
        left--;
      }
    }
    for (const { pod } of chosen) {
      this.#asked.delete(pod);
      this.#asked.add(pod);
    }
    return chosen;
  }
}
