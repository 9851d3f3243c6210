/** Names for the content of cache blocks: equal keys mean equal tokens, all the way back to the start of the sequence. */
import { hash } from 'node:crypto';

/**
 * SHA-256 (as a 32-character latin1 string) because keys decide whose cache a request may read: with a weaker hash, a
 * tenant could look for collisions and read states computed from another's tokens. About 22 us per 1,000 tokens.
 */
export type BlockKey = string;

const BLOCK_TAG = 1;
const EXTRA_TAG = 2;
const ROOT: BlockKey = '\0'.repeat(32);

/** Chains block keys: each covers its parent's key, its own token ids, and extra keys where content is more than tokens. */
export class BlockKeyChain {
  readonly #blockSize: number;
  /** tag (4 bytes), parent key (32), token ids (4 each): fixed length, so that no two inputs read the same. */
  readonly #bytes: Buffer;
  readonly #tokens: Int32Array;

  constructor(blockSize: number) {
    this.#blockSize = blockSize;
    const memory = new ArrayBuffer(36 + blockSize * 4);
    this.#bytes = Buffer.from(memory);
    this.#tokens = new Int32Array(memory, 36);
    this.#bytes.writeUInt32LE(BLOCK_TAG, 0);
  }

  /** Parent of a sequence's first block. Sequences of different salts share no key. */
  root(salt: string | undefined): BlockKey {
    return salt === undefined ? ROOT : this.withExtra(ROOT, salt);
  }

  /** A parent key that also covers `extra`: what a block's content depends on beyond its tokens, an image's digest for one. */
  withExtra(parent: BlockKey, extra: string): BlockKey {
    const head = Buffer.alloc(36);
    head.writeUInt32LE(EXTRA_TAG, 0);
    head.write(parent, 4, 'latin1');
    return hash('sha256', Buffer.concat([head, Buffer.from(extra, 'utf8')]), 'binary');
  }

  /** Key of the full block of `tokens` that starts at index `start`. */
  block(parent: BlockKey, tokens: Int32Array, start: number): BlockKey {
    this.#bytes.write(parent, 4, 'latin1');
    for (let index = 0; index < this.#blockSize; index++) {
      this.#tokens[index] = tokens[start + index]!;
    }
    return hash('sha256', this.#bytes, 'binary');
  }
}
