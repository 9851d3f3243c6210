/**
 * Decides which tokens of which sequences the next step computes, and takes in what the step gave. Pure: no I/O, no clock
 * (the time is an argument), no model. The algorithm is a token budget per step: every step lets each sequence's computed
 * tokens catch up with its known ones, whether those are a prompt or the one token sampled before.
 */

import type { StepOutputs } from '#engine/model/forward.ts';
import { NvlmError } from '#engine/protocol/errors.ts';
import { BlockManager } from './block-manager.ts';
import type { BatchPolicy, ModeLimits, QueueView } from './modes/policy.ts';
import { BATCH_MODES, type BatchMode } from './modes/table.ts';
import {
  type Finish,
  type Plan,
  type PlanEntry,
  PROMPT_ROWS_PER_STEP,
  type Progress,
} from './plan.ts';
import type { GenerationRequest, TokenLogprobs } from './request.ts';
import { byRank, Sequence } from './sequence.ts';

export interface SchedulerOptions extends ModeLimits {
  readonly mode: BatchMode;
  /** Tokens of one step, at most; at least the sequences of one step. */
  readonly maxBatchedTokens: number;
  readonly maxModelLength: number;
  readonly blockSize: number;
  readonly blockCount: number;
  readonly prefixCaching: boolean;
}

/** A request of a priority one higher in number is served as if it had arrived so many steps later: nobody starves. */
const STEPS_PER_PRIORITY = 256;
const MAX_PRIORITY_DISTANCE = 1000;

export class Scheduler {
  readonly maxModelLength: number;
  readonly laneCount: number;
  readonly sequencesPerLane: number;
  readonly blocks: BlockManager;
  readonly #options: SchedulerOptions;
  readonly #policy: BatchPolicy;
  /** Both by rank. */
  readonly #waiting: Sequence[] = [];
  readonly #running: Sequence[] = [];
  #arrivals = 0;
  #newcomers = 0;
  #selected = 0;
  #steps = 0;
  #preemptions = 0;

  constructor(options: SchedulerOptions) {
    this.#options = options;
    this.#policy = BATCH_MODES[options.mode];
    this.laneCount = this.#policy.laneCount(options);
    this.sequencesPerLane = this.#policy.sequencesPerLane(options);
    this.blocks = new BlockManager(options);
    if (options.maxBatchedTokens < this.sequencesPerLane) {
      throw new RangeError(
        `maxBatchedTokens (${options.maxBatchedTokens}) must be at least maxSequences (${this.sequencesPerLane}): every running sequence needs one token of a step`,
      );
    }
    // A sequence alone must fit the pool to its end, or it would preempt itself for ever.
    this.maxModelLength = Math.min(
      options.maxModelLength,
      this.blocks.capacity * options.blockSize,
    );
  }

  get waiting(): readonly Sequence[] {
    return this.#waiting;
  }

  get running(): readonly Sequence[] {
    return this.#running;
  }

  get preemptions(): number {
    return this.#preemptions;
  }

  /** Newcomers that could start now if blocks allowed: places that are empty and that the mode lets them take. */
  get freePlaces(): number {
    const places = this.laneCount * this.sequencesPerLane - this.#running.length;
    const anyNumber = {
      newcomers: places,
      selected: this.#selected,
      oldestWaitMs: Number.POSITIVE_INFINITY,
    };
    return Math.min(places, this.#policy.openings(anyNumber, this.#options));
  }

  /** Queues a request. Throws NvlmError 'context_length_exceeded' when it can never run. */
  add(request: GenerationRequest, nowMs: number): Sequence {
    const needed = request.promptIds.length + 1;
    if (needed > this.maxModelLength) {
      const { capacity, blockSize } = this.blocks;
      throw new NvlmError(
        'context_length_exceeded',
        `The prompt has ${request.promptIds.length} tokens; with one token to generate that is ${needed}, ` +
          `and the limit is ${this.maxModelLength}` +
          (this.maxModelLength < this.#options.maxModelLength
            ? ` (${capacity} cache blocks of ${blockSize} tokens). `
            : '. ') +
          'Shorten the prompt.',
        { param: 'prompt' },
      );
    }
    const distance = Math.max(
      -MAX_PRIORITY_DISTANCE,
      Math.min(MAX_PRIORITY_DISTANCE, request.priority),
    );
    const sequence = new Sequence(request, {
      rank: this.#steps + distance * STEPS_PER_PRIORITY,
      arrival: this.#arrivals++,
      arrivedAtMs: nowMs,
    });
    insertByRank(this.#waiting, sequence);
    this.#newcomers++;
    return sequence;
  }

  /** The next step of a lane, or undefined when it has nothing to do. Every plan must be committed or failed. */
  schedule(lane: number, nowMs: number): Plan | undefined {
    this.#select(nowMs);
    const plan: Plan = { lane, entries: [], tokenCount: 0, rowCount: 0 };
    const preemptionsBefore = this.#preemptions;
    this.#planDecodes(plan);
    this.#planChunks(plan);
    if (this.#preemptions === preemptionsBefore) this.#planAdmissions(plan);
    if (plan.entries.length === 0) return undefined;
    this.#steps++;
    return plan;
  }

  /** Takes in a finished step: tokens appended, blocks offered to the prefix cache, ended sequences released. */
  commit(plan: Plan, outputs: StepOutputs): Progress[] {
    const progress: Progress[] = [];
    for (const entry of plan.entries) {
      const { sequence } = entry;
      sequence.isInFlight = false;
      if (sequence.state === 'finished') {
        this.blocks.release(sequence);
        continue;
      }
      sequence.computed = entry.start + entry.count;
      this.blocks.offerComputed(sequence);
      for (let row = 0; row < entry.promptRowCount; row++) {
        sequence.promptLogprobs.push(
          logprobsOf(outputs, entry.firstRow + row, sequence.request.promptLogprobs),
        );
      }
      progress.push(this.#advance(entry, outputs));
    }
    return progress;
  }

  /** Drops the sequences of a step that did not finish; what it wrote is not trusted. Returns those that were still wanted. */
  fail(plan: Plan): Sequence[] {
    const failed: Sequence[] = [];
    for (const { sequence } of plan.entries) {
      sequence.isInFlight = false;
      if (sequence.state === 'finished') {
        this.blocks.release(sequence);
      } else {
        failed.push(sequence);
        this.#end(sequence);
      }
    }
    return failed;
  }

  /** Ends a sequence from outside. Its blocks are free at once, or with the commit of the step it is in. */
  cancel(sequence: Sequence): void {
    if (sequence.state !== 'finished') this.#end(sequence);
  }

  /** Time after which a lane without work is to be asked again though nothing has happened; undefined: never. */
  wakeAfterMs(nowMs: number): number | undefined {
    return this.#policy.wakeAfterMs(this.#view(nowMs), this.#options);
  }

  #view(nowMs: number): QueueView {
    let oldestWaitMs = 0;
    for (const sequence of this.#waiting) {
      if (!sequence.isSelected) {
        oldestWaitMs = Math.max(oldestWaitMs, nowMs - sequence.arrivedAtMs);
      }
    }
    return { newcomers: this.#newcomers, selected: this.#selected, oldestWaitMs };
  }

  #select(nowMs: number): void {
    if (this.#newcomers === 0) return;
    let openings = this.#policy.openings(this.#view(nowMs), this.#options);
    for (const sequence of this.#waiting) {
      if (openings <= 0) break;
      if (sequence.isSelected) continue;
      sequence.isSelected = true;
      openings--;
      this.#newcomers--;
      this.#selected++;
    }
  }

  /** Sequences with one pending token, before all others: a long prompt must not stall those that stream. */
  #planDecodes(plan: Plan): void {
    for (const sequence of [...this.#running]) {
      if (!this.#isReady(sequence, plan.lane) || sequence.pendingTokens !== 1) continue;
      if (this.#makeRoom(sequence)) this.#append(plan, sequence);
    }
  }

  #planChunks(plan: Plan): void {
    for (const sequence of this.#running) {
      if (this.#isReady(sequence, plan.lane) && sequence.pendingTokens > 1) {
        this.#append(plan, sequence);
      }
    }
  }

  #planAdmissions(plan: Plan): void {
    let places = this.sequencesPerLane;
    for (const sequence of this.#running) if (sequence.lane === plan.lane) places--;
    while (places > 0 && plan.tokenCount < this.#options.maxBatchedTokens) {
      const sequence = this.#waiting.find((one) => one.isSelected && !one.isPaused);
      if (sequence === undefined) return;
      // One block for each running sequence stays free, so that an admission is not undone by the next block anyone needs.
      const reserve = this.#running.filter((one) => !one.isPaused).length;
      if (!this.blocks.admit(sequence, reserve)) {
        const victim = this.#victim();
        if (victim === undefined || !victim.isPaused) return;
        if (victim.lane === plan.lane) places++;
        this.#preempt(victim);
        continue;
      }
      if (sequence.cachedTokens < 0) sequence.cachedTokens = sequence.computed;
      sequence.state = 'running';
      sequence.lane = plan.lane;
      remove(this.#waiting, sequence);
      insertByRank(this.#running, sequence);
      places--;
      this.#append(plan, sequence);
    }
  }

  #isReady(sequence: Sequence, lane: number): boolean {
    return (
      sequence.lane === lane &&
      sequence.state === 'running' &&
      !sequence.isPaused &&
      !sequence.isInFlight
    );
  }

  /** Adds as many pending tokens of a sequence as the budgets of the step allow. */
  #append(plan: Plan, sequence: Sequence): void {
    const start = sequence.computed;
    let count = Math.min(sequence.pendingTokens, this.#options.maxBatchedTokens - plan.tokenCount);
    let promptRowStart = 0;
    let promptRowCount = 0;
    if (sequence.wantsPromptRows) {
      promptRowStart = Math.max(start, sequence.promptLogprobs.length - 1);
      const taken = plan.entries.reduce((sum, entry) => sum + entry.promptRowCount, 0);
      count = Math.min(count, promptRowStart + PROMPT_ROWS_PER_STEP - taken - start);
      promptRowCount = Math.max(
        0,
        Math.min(start + count, sequence.promptLength - 1) - promptRowStart,
      );
    }
    if (count <= 0) return;
    const samples = start + count === sequence.length && sequence.request.maxTokens > 0;
    plan.entries.push({
      sequence,
      start,
      count,
      firstRow: plan.rowCount,
      promptRowStart,
      promptRowCount,
      samples,
    });
    plan.tokenCount += count;
    plan.rowCount += promptRowCount + (samples ? 1 : 0);
    sequence.isInFlight = true;
  }

  /** A block for the next token, taken from whoever is served last. False: not now, or the sequence itself was that one. */
  #makeRoom(sequence: Sequence): boolean {
    while (!this.blocks.extend(sequence)) {
      const victim = this.#victim()!;
      if (victim === sequence) {
        // A sequence that is served later may be in another lane's step: its blocks can be had when that step is over.
        const canWait = this.#running.some((one) => one.isInFlight && byRank(one, sequence) > 0);
        if (!canWait) this.#preempt(sequence);
        return false;
      }
      this.#preempt(victim);
    }
    return true;
  }

  /** Who gives blocks back first: those whose readers lag, then the last in rank. Never one whose step is running. */
  #victim(): Sequence | undefined {
    let victim: Sequence | undefined;
    for (const sequence of this.#running) {
      if (sequence.isInFlight) continue;
      if (victim === undefined || sequence.isPaused || !victim.isPaused) victim = sequence;
    }
    return victim;
  }

  /** Back to the queue, to be computed again from prompt and outputs; its rank puts it before all that arrived later. */
  #preempt(sequence: Sequence): void {
    this.blocks.release(sequence);
    remove(this.#running, sequence);
    sequence.state = 'waiting';
    sequence.lane = -1;
    sequence.preemptions++;
    this.#preemptions++;
    insertByRank(this.#waiting, sequence);
  }

  #advance(entry: PlanEntry, outputs: StepOutputs): Progress {
    const { sequence } = entry;
    const { request } = sequence;
    let finish: Finish | undefined;
    let tokenId: number | undefined;
    let logprobs: TokenLogprobs | undefined;
    if (entry.samples) {
      const row = entry.firstRow + entry.promptRowCount;
      tokenId = outputs.tokenIds[row]!;
      if (tokenId < 0) {
        this.#end(sequence);
        finish = { reason: 'undrawable', stopReason: null };
        return { sequence, entry, tokenId: undefined, logprobs, finish };
      }
      if (request.sampling.logprobs >= 0) {
        logprobs = logprobsOf(outputs, row, request.sampling.logprobs);
      }
      sequence.appendToken(tokenId);
      finish = this.#finishOf(sequence, tokenId);
    } else if (sequence.pendingTokens === 0) {
      finish = { reason: 'length', stopReason: null };
    }
    if (finish !== undefined) this.#end(sequence);
    return { sequence, entry, tokenId, logprobs, finish };
  }

  #finishOf({ request, generatedTokens, length }: Sequence, tokenId: number): Finish | undefined {
    if (generatedTokens > request.minTokens) {
      if (request.eosTokenIds.includes(tokenId)) return { reason: 'stop', stopReason: null };
      if (request.stopTokenIds.includes(tokenId)) return { reason: 'stop', stopReason: tokenId };
    }
    if (generatedTokens >= request.maxTokens || length >= this.maxModelLength) {
      return { reason: 'length', stopReason: null };
    }
    return undefined;
  }

  #end(sequence: Sequence): void {
    remove(sequence.state === 'running' ? this.#running : this.#waiting, sequence);
    sequence.state = 'finished';
    if (sequence.isSelected) this.#selected--;
    else this.#newcomers--;
    if (!sequence.isInFlight) this.blocks.release(sequence);
  }
}

function logprobsOf(outputs: StepOutputs, row: number, wanted: number): TokenLogprobs {
  const top = [];
  const base = row * outputs.maxTop;
  for (let index = 0; index < Math.min(wanted, outputs.maxTop); index++) {
    const tokenId = outputs.topIds[base + index]!;
    if (tokenId < 0) break;
    top.push({ tokenId, logprob: outputs.topLogprobs[base + index]! });
  }
  return { logprob: outputs.logprobs[row]!, top };
}

function insertByRank(sequences: Sequence[], sequence: Sequence): void {
  let low = 0;
  let high = sequences.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (byRank(sequences[middle]!, sequence) < 0) low = middle + 1;
    else high = middle;
  }
  sequences.splice(low, 0, sequence);
}

function remove(sequences: Sequence[], sequence: Sequence): void {
  const index = sequences.indexOf(sequence);
  if (index >= 0) sequences.splice(index, 1);
}
