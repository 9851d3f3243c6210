/**
 * Byte-pair merging over token ids: the pair of lowest rank first, leftmost among equals, until no neighbouring pair has a merge
 * (Sennrich et al. 2016). O(n log n) in the bytes of a piece, so one endless word costs no more per byte than prose.
 */

const EMPTY = -1;
/** Heap keys are rank * 2^32 + position: below 2^53 for every vocabulary there is. */
const POSITION_RANGE = 2 ** 32;

/** (left id, right id) -> (rank, merged id), open addressing in one Int32Array: 4 numbers per slot. */
class MergeTable {
  readonly #slots: Int32Array;
  readonly #mask: number;

  constructor(count: number) {
    const capacity = 2 ** Math.ceil(Math.log2(Math.max(2, count) * 2));
    this.#slots = new Int32Array(capacity * 4).fill(EMPTY);
    this.#mask = capacity - 1;
  }

  /** Offset of the pair's slot, or of the empty slot where it would go. */
  #find(left: number, right: number): number {
    let slot = (Math.imul(left, 0x9e3779b1) ^ Math.imul(right, 0x85ebca6b)) >>> 7;
    for (;;) {
      slot &= this.#mask;
      const at = slot * 4;
      const found = this.#slots[at];
      if (found === EMPTY || (found === left && this.#slots[at + 1] === right)) return at;
      slot++;
    }
  }

  set(left: number, right: number, rank: number, merged: number): void {
    this.#slots.set([left, right, rank, merged], this.#find(left, right));
  }

  /** -1 when the pair never merges. */
  rank(left: number, right: number): number {
    return this.#slots[this.#find(left, right) + 2]!;
  }

  merged(left: number, right: number): number {
    return this.#slots[this.#find(left, right) + 3]!;
  }
}

/** Binary min-heap of numbers. */
class NumberHeap {
  #keys = new Float64Array(64);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  push(key: number): void {
    if (this.#size === this.#keys.length) {
      const grown = new Float64Array(this.#size * 2);
      grown.set(this.#keys);
      this.#keys = grown;
    }
    const keys = this.#keys;
    let at = this.#size++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (keys[parent]! <= key) break;
      keys[at] = keys[parent]!;
      at = parent;
    }
    keys[at] = key;
  }

  pop(): number {
    const keys = this.#keys;
    const least = keys[0]!;
    const last = keys[--this.#size]!;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.#size) break;
      if (child + 1 < this.#size && keys[child + 1]! < keys[child]!) child++;
      if (keys[child]! >= last) break;
      keys[at] = keys[child]!;
      at = child;
    }
    keys[at] = last;
    return least;
  }
}

export interface Merge {
  readonly left: number;
  readonly right: number;
  readonly merged: number;
}

export class BytePairMerger {
  readonly #table: MergeTable;

  /** `merges` by rank, best first. */
  constructor(merges: readonly Merge[]) {
    this.#table = new MergeTable(merges.length);
    merges.forEach(({ left, right, merged }, rank) => {
      this.#table.set(left, right, rank, merged);
    });
  }

  /** Ids of the starting symbols -> ids after all merges. Overwrites `ids`. */
  merge(ids: Int32Array): number[] {
    const count = ids.length;
    // Neighbour links; a symbol merged into its left neighbour has id EMPTY.
    const next = new Int32Array(count);
    const previous = new Int32Array(count);
    const heap = new NumberHeap();
    const offer = (at: number): void => {
      const right = next[at]!;
      if (right >= count) return;
      const rank = this.#table.rank(ids[at]!, ids[right]!);
      if (rank >= 0) heap.push(rank * POSITION_RANGE + at);
    };
    for (let at = 0; at < count; at++) {
      next[at] = at + 1;
      previous[at] = at - 1;
    }
    for (let at = 0; at < count; at++) offer(at);
    while (heap.size > 0) {
      const key = heap.pop();
      const at = key % POSITION_RANGE;
      const right = next[at]!;
      if (ids[at] === EMPTY || right >= count) continue;
      // Entries are never removed: one is stale when the pair at its position has changed since.
      if (this.#table.rank(ids[at]!, ids[right]!) !== (key - at) / POSITION_RANGE) continue;
      ids[at] = this.#table.merged(ids[at]!, ids[right]!);
      ids[right] = EMPTY;
      const after = next[right]!;
      next[at] = after;
      if (after < count) previous[after] = at;
      if (previous[at]! >= 0) offer(previous[at]!);
      offer(at);
    }
    const result: number[] = [];
    for (let at = 0; at < count; at = next[at]!) result.push(ids[at]!);
    return result;
  }
}
