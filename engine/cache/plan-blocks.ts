/** How many blocks the paged cache gets: what the wanted memory holds, if that is memory the machine has and serves a request. */

/** Bytes, or a share (0..1) of the memory that is available. */
export type CacheMemory = { readonly bytes: number } | { readonly share: number };

export interface BlockPlanOptions {
  /** Undefined: DEFAULT_SHARE of the available memory, or one full context where that is more. */
  readonly wanted: CacheMemory | undefined;
  /** Bytes of one block, keys and values of all layers. */
  readonly blockBytes: number;
  /** Tokens per block. */
  readonly blockSize: number;
  /** Tokens of one request, at most. */
  readonly maxModelLength: number;
  readonly maxSequences: number;
  /** Bytes the machine, or the process's limit on it, has in all. */
  readonly totalBytes: number;
  /** Bytes it can still give. */
  readonly availableBytes: number;
}

/** Code -> what happened and what to do, a clause each. */
export const CACHE_MEMORY_ERRORS = {
  CACHE_MEMORY_TOO_LARGE: {
    meaning: 'the KV cache asks for more memory than the machine has',
    remedy: 'lower --kv-cache-memory to what the message says',
  },
  CACHE_MEMORY_TOO_SMALL: {
    meaning: 'the KV cache could not hold one request of the longest kind',
    remedy: 'raise --kv-cache-memory, or lower --max-model-length, to what the message says',
  },
} as const;

export type CacheMemoryErrorCode = keyof typeof CACHE_MEMORY_ERRORS;

/** Cache memory that cannot be had, or that no full request fits into. The message carries the number to change. */
export class CacheMemoryError extends Error {
  readonly code: CacheMemoryErrorCode;

  constructor(code: CacheMemoryErrorCode, message: string) {
    super(message);
    this.name = 'CacheMemoryError';
    this.code = code;
  }
}

const DEFAULT_SHARE = 0.3;
const MIB = 2 ** 20;

/**
 * Blocks of the cache, the padding block included; never more than `maxSequences` full contexts use.
 * Throws CacheMemoryError 'CACHE_MEMORY_TOO_LARGE' or 'CACHE_MEMORY_TOO_SMALL'.
 */
export function planBlocks(options: BlockPlanOptions): number {
  const { wanted, blockBytes, blockSize, maxModelLength, totalBytes, availableBytes } = options;
  const blocksPerContext = Math.ceil(maxModelLength / blockSize);
  // One block more than the sequences can use: block 0 is padding.
  const least = blocksPerContext + 1;
  const most = options.maxSequences * blocksPerContext + 1;
  if (wanted !== undefined && 'bytes' in wanted && wanted.bytes > totalBytes) {
    throw new CacheMemoryError(
      'CACHE_MEMORY_TOO_LARGE',
      `--kv-cache-memory asks for ${mebibytes(wanted.bytes)}, and the machine has ${mebibytes(totalBytes)}, of which ` +
        `${mebibytes(availableBytes)} are available. Ask for less.`,
    );
  }
  const bytes =
    wanted === undefined
      ? Math.max(DEFAULT_SHARE * availableBytes, least * blockBytes)
      : 'bytes' in wanted
        ? wanted.bytes
        : wanted.share * availableBytes;
  const affordable = Math.floor(bytes / blockBytes);
  if (affordable < least) {
    const tokens = Math.max(0, affordable - 1) * blockSize;
    const share =
      wanted !== undefined && 'share' in wanted
        ? `${Math.round(wanted.share * 100)}% of ${mebibytes(availableBytes)}, or `
        : '';
    throw new CacheMemoryError(
      'CACHE_MEMORY_TOO_SMALL',
      `--kv-cache-memory of ${share}${mebibytes(bytes)} holds ${tokens} tokens, and one request may have ${maxModelLength}. ` +
        `Set --kv-cache-memory to at least ${mebibytes(least * blockBytes)}` +
        (tokens > 1 ? `, or --max-model-length to at most ${tokens}.` : '.'),
    );
  }
  const blockCount = Math.min(most, affordable);
  if (blockCount * blockBytes > availableBytes) {
    const fitting = Math.max(0, Math.floor(availableBytes / blockBytes) - 1) * blockSize;
    throw new CacheMemoryError(
      'CACHE_MEMORY_TOO_LARGE',
      `The cache would take ${mebibytes(blockCount * blockBytes)}, and ${mebibytes(availableBytes)} are available. ` +
        (wanted === undefined
          ? `Set --max-model-length to at most ${fitting}.`
          : 'Lower --kv-cache-memory, or --max-sequences or --max-model-length with it.'),
    );
  }
  return blockCount;
}

/** Rounded up, so that a number taken from a message is enough. */
function mebibytes(bytes: number): string {
  return `${Math.ceil(bytes / MIB)}MiB`;
}
