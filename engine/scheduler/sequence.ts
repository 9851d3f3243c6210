/** One request's state inside the scheduler: its tokens, its blocks, how far it is. */
import type { BlockKey } from '#engine/cache/block-key.ts';
import { withCapacity } from './growable.ts';
import type { GenerationRequest, TokenLogprobs } from './request.ts';
import { RowSampling } from './row-sampling.ts';

export type SequenceState = 'waiting' | 'running' | 'finished';

export class Sequence {
  readonly request: GenerationRequest;
  readonly promptLength: number;
  /** Place in the order of service: smaller is served first, and preempted last. Never changes. */
  readonly rank: number;
  /** Breaks ties of rank: first come, first served. */
  readonly arrival: number;
  readonly arrivedAtMs: number;
  readonly sampling: RowSampling;

  /** Prompt, then what was generated; valid up to `length`. */
  tokens: Int32Array<ArrayBuffer>;
  length: number;
  /** Leading tokens whose keys and values stand in the cache. */
  computed = 0;
  blockTable = new Int32Array(8);
  blockCount = 0;
  /** Keys of the leading full blocks of `tokens`, as far as they were needed. */
  readonly keys: BlockKey[] = [];
  /** Leading blocks that were matched in, or offered to, the prefix cache. */
  keyedBlocks = 0;

  state: SequenceState = 'waiting';
  /** Taken into a batch by the mode's policy: it may run, now or again after a preemption. */
  isSelected = false;
  /** In a plan that has not been committed: its blocks are being written and must not change hands. */
  isInFlight = false;
  /** Its reader lags: not scheduled until it caught up. */
  isPaused = false;
  lane = -1;
  preemptions = 0;
  /** Prompt tokens found in the prefix cache at first admission; -1 before it. */
  cachedTokens = -1;
  /** Entry p is of prompt token p; the first has no predecessor and is null. */
  readonly promptLogprobs: (TokenLogprobs | null)[] = [null];

  constructor(
    request: GenerationRequest,
    place: { readonly rank: number; readonly arrival: number; readonly arrivedAtMs: number },
  ) {
    this.request = request;
    this.promptLength = request.promptIds.length;
    this.rank = place.rank;
    this.arrival = place.arrival;
    this.arrivedAtMs = place.arrivedAtMs;
    this.tokens = new Int32Array(this.promptLength + Math.min(request.maxTokens, 256));
    this.tokens.set(request.promptIds);
    this.length = this.promptLength;
    this.sampling = new RowSampling(request);
  }

  get generatedTokens(): number {
    return this.length - this.promptLength;
  }

  /** Known tokens that are not in the cache yet. */
  get pendingTokens(): number {
    return this.length - this.computed;
  }

  /** Prompt log-probabilities are wanted and not complete: their rows must be computed, not found in the cache. */
  get wantsPromptRows(): boolean {
    return this.request.promptLogprobs >= 0 && this.promptLogprobs.length < this.promptLength;
  }

  appendToken(tokenId: number): void {
    this.tokens = withCapacity(this.tokens, this.length + 1);
    this.tokens[this.length++] = tokenId;
    this.sampling.countGenerated(tokenId);
  }

  appendBlock(blockId: number): void {
    this.blockTable = withCapacity(this.blockTable, this.blockCount + 1);
    this.blockTable[this.blockCount++] = blockId;
  }
}

/** Negative when `a` is served before `b`. */
export function byRank(a: Sequence, b: Sequence): number {
  return a.rank - b.rank || a.arrival - b.arrival;
}
