/** Gives sequences their cache blocks: new ones, and those whose content is already there. */
import { BlockKeyChain } from '#engine/cache/block-key.ts';
import { BlockPool } from '#engine/cache/block-pool.ts';
import { PrefixCache } from '#engine/cache/prefix-cache.ts';
import { imageKey } from './prompt-images.ts';
import type { Sequence } from './sequence.ts';

export class BlockManager {
  readonly blockSize: number;
  readonly #pool: BlockPool;
  readonly #prefixCache = new PrefixCache();
  readonly #keys: BlockKeyChain;
  readonly #prefixCaching: boolean;

  constructor(options: {
    readonly blockSize: number;
    readonly blockCount: number;
    readonly prefixCaching: boolean;
  }) {
    this.blockSize = options.blockSize;
    this.#prefixCaching = options.prefixCaching;
    this.#keys = new BlockKeyChain(options.blockSize);
    this.#pool = new BlockPool(options.blockCount, (block) => this.#prefixCache.evict(block));
  }

  get capacity(): number {
    return this.#pool.capacity;
  }

  get freeCount(): number {
    return this.#pool.freeCount;
  }

  /** Holders of a block, for tests of the books. */
  references(blockId: number): number {
    return this.#pool.references(blockId);
  }

  /**
   * Blocks for every known token of a sequence that has none, or false and no change when fewer than `reserve` blocks
   * would stay free. Taking them all at once lets a long prompt be computed in chunks that never wait for blocks.
   * Leading blocks found in the prefix cache count as computed; the last known token never does: its logits are wanted.
   */
  admit(sequence: Sequence, reserve: number): boolean {
    // The last token's block is always a new one: without it, spare the look at a prompt of thousands of blocks.
    if (1 + reserve > this.#pool.freeCount) return false;
    const total = Math.ceil(sequence.length / this.blockSize);
    const hits = this.#findPrefix(sequence);
    let needed = total - hits.length;
    for (const block of hits) if (this.#pool.references(block) === 0) needed++;
    if (needed + reserve > this.#pool.freeCount) return false;
    // Hits first: an allocation could otherwise reuse one that stands on the free list.
    for (const block of hits) {
      this.#pool.acquire(block);
      sequence.appendBlock(block);
    }
    while (sequence.blockCount < total) sequence.appendBlock(this.#pool.allocate());
    sequence.computed = hits.length * this.blockSize;
    sequence.keyedBlocks = hits.length;
    return true;
  }

  /** Room for one more token of a sequence; false when that takes a block and none is free. */
  extend(sequence: Sequence): boolean {
    if (sequence.computed < sequence.blockCount * this.blockSize) return true;
    const block = this.#pool.allocate();
    if (block < 0) return false;
    sequence.appendBlock(block);
    return true;
  }

  /** Offers the blocks that became full since the last call to the prefix cache. Only for tokens that were computed. */
  offerComputed(sequence: Sequence): void {
    if (!this.#prefixCaching) return;
    const full = Math.floor(sequence.computed / this.blockSize);
    this.#extendKeys(sequence, full);
    for (; sequence.keyedBlocks < full; sequence.keyedBlocks++) {
      const index = sequence.keyedBlocks;
      this.#prefixCache.insert(sequence.keys[index]!, sequence.blockTable[index]!);
    }
  }

  /** Takes all blocks back; what they hold may still be found until they are reused. */
  release(sequence: Sequence): void {
    this.#pool.free(sequence.blockTable, sequence.blockCount);
    sequence.blockCount = 0;
    sequence.computed = 0;
    sequence.keyedBlocks = 0;
  }

  resetPrefixCache(): void {
    this.#prefixCache.clear();
  }

  #findPrefix(sequence: Sequence): number[] {
    if (!this.#prefixCaching || sequence.wantsPromptRows) return [];
    const limit = Math.floor((sequence.length - 1) / this.blockSize);
    this.#extendKeys(sequence, limit);
    return this.#prefixCache.match(sequence.keys, limit);
  }

  #extendKeys(sequence: Sequence, count: number): void {
    const { keys } = sequence;
    if (keys.length >= count) return;
    let parent = keys.at(-1) ?? this.#keys.root(sequence.request.cacheSalt);
    while (keys.length < count) {
      const start = keys.length * this.blockSize;
      const images = imageKey(sequence.request, start, start + this.blockSize);
      if (images !== undefined) parent = this.#keys.withExtra(parent, images);
      parent = this.#keys.block(parent, sequence.tokens, start);
      keys.push(parent);
    }
  }
}
