/** Which block holds which content, by key. Entries live until their block gets a new owner. */
import type { BlockKey } from './block-key.ts';

export class PrefixCache {
  readonly #blockOf = new Map<BlockKey, number>();
  readonly #keyOf = new Map<number, BlockKey>();

  get size(): number {
    return this.#blockOf.size;
  }

  /** Leading keys that are cached, as block ids in order, at most `limit`. */
  match(keys: readonly BlockKey[], limit: number): number[] {
    const blocks: number[] = [];
    while (blocks.length < limit) {
      const block = this.#blockOf.get(keys[blocks.length]!);
      if (block === undefined) break;
      blocks.push(block);
    }
    return blocks;
  }

  /** Offers a fully computed block. Content that is cached already stays with its first block. */
  insert(key: BlockKey, blockId: number): void {
    if (this.#blockOf.has(key) || this.#keyOf.has(blockId)) return;
    this.#blockOf.set(key, blockId);
    this.#keyOf.set(blockId, key);
  }

  /** The block's content is about to be overwritten. */
  evict(blockId: number): void {
    const key = this.#keyOf.get(blockId);
    if (key === undefined) return;
    this.#keyOf.delete(blockId);
    this.#blockOf.delete(key);
  }

  clear(): void {
    this.#blockOf.clear();
    this.#keyOf.clear();
  }
}
