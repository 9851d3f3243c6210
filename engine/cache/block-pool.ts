/** Ids of the paged cache's blocks: who holds them and in which order free ones are reused. Knows no tokens. */

/** Never handed out: pads block tables, and closes the free list as its sentinel. */
export const NULL_BLOCK = 0;

/**
 * All blocks exist from the start. Free ones stand in a doubly linked list from least to most recently freed; a free block
 * keeps its content (and may be taken back by `acquire`) until `allocate` hands it to a new owner.
 */
export class BlockPool {
  /** Blocks that can be held; the null block is not one of them. */
  readonly capacity: number;
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #references: Int32Array;
  readonly #onReuse: (blockId: number) => void;
  #freeCount: number;

  /**
   * @param blockCount blocks of the cache, the null block included; at least 2.
   * @param onReuse told each block that `allocate` takes, before its old content is lost.
   */
  constructor(blockCount: number, onReuse: (blockId: number) => void) {
    if (!Number.isInteger(blockCount) || blockCount < 2) {
      throw new RangeError(
        `blockCount must be an integer of at least 2 (one is kept as padding), got ${blockCount}`,
      );
    }
    this.capacity = blockCount - 1;
    this.#freeCount = this.capacity;
    this.#onReuse = onReuse;
    this.#references = new Int32Array(blockCount);
    this.#next = Int32Array.from({ length: blockCount }, (_, block) => (block + 1) % blockCount);
    this.#previous = Int32Array.from(
      { length: blockCount },
      (_, block) => (block + blockCount - 1) % blockCount,
    );
  }

  get freeCount(): number {
    return this.#freeCount;
  }

  references(blockId: number): number {
    return this.#references[blockId]!;
  }

  /** The least recently freed block, now held once; -1 when none is free. */
  allocate(): number {
    if (this.#freeCount === 0) return -1;
    const blockId = this.#next[NULL_BLOCK]!;
    this.#unlink(blockId);
    this.#references[blockId] = 1;
    this.#onReuse(blockId);
    return blockId;
  }

  /** One more holder of a block whose content is wanted as it is; takes it off the free list when it stood there. */
  acquire(blockId: number): void {
    if (this.#references[blockId]!++ === 0) this.#unlink(blockId);
  }

  /**
   * Gives back the first `count` ids of `blocks`, last first: the tail of a sequence is reused before its head, which
   * more requests are likely to share.
   */
  free(blocks: Int32Array, count: number): void {
    for (let index = count - 1; index >= 0; index--) {
      const blockId = blocks[index]!;
      const left = --this.#references[blockId]!;
      if (left < 0) throw new Error(`block ${blockId} was freed more often than it was held`);
      if (left === 0) this.#append(blockId);
    }
  }

  /** Free blocks, next to be reused first. */
  freeList(): number[] {
    const blocks: number[] = [];
    for (let block = this.#next[NULL_BLOCK]!; block !== NULL_BLOCK; block = this.#next[block]!) {
      blocks.push(block);
    }
    return blocks;
  }

  #unlink(blockId: number): void {
    const next = this.#next[blockId]!;
    const previous = this.#previous[blockId]!;
    this.#next[previous] = next;
    this.#previous[next] = previous;
    this.#freeCount--;
  }

  #append(blockId: number): void {
    const last = this.#previous[NULL_BLOCK]!;
    this.#next[last] = blockId;
    this.#previous[blockId] = last;
    this.#next[blockId] = NULL_BLOCK;
    this.#previous[NULL_BLOCK] = blockId;
    this.#freeCount++;
  }
}
