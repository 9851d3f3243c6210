import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BATCH_MODES, type BatchMode } from '#engine/scheduler/modes/table.ts';
import { type Plan, PROMPT_ROWS_PER_STEP } from '#engine/scheduler/plan.ts';
import { Scheduler } from '#engine/scheduler/scheduler.ts';
import { byRank, type Sequence } from '#engine/scheduler/sequence.ts';
import { requestOf } from './harness.ts';

const MODES = Object.keys(BATCH_MODES) as BatchMode[];

const setups = fc.record({
  mode: fc.constantFrom(...MODES),
  maxSequences: fc.integer({ min: 1, max: 4 }),
  spareTokens: fc.integer({ min: 0, max: 12 }),
  lanes: fc.integer({ min: 1, max: 3 }),
  blockSize: fc.integer({ min: 1, max: 5 }),
  blockCount: fc.integer({ min: 3, max: 14 }),
  prefixCaching: fc.boolean(),
});
type Setup = typeof setups extends fc.Arbitrary<infer T> ? T : never;

const commands = fc.array(
  fc.oneof(
    {
      weight: 3,
      arbitrary: fc.record({
        kind: fc.constant('submit' as const),
        // A common beginning of some length and an end of some kind: prompts share prefixes often.
        promptIds: fc
          .tuple(fc.integer({ min: 1, max: 12 }), fc.array(fc.constantFrom(1, 2), { maxLength: 3 }))
          .map(([shared, own]) => [...Array.from({ length: shared }, (_, i) => i % 3), ...own]),
        maxTokens: fc.nat(16),
        priority: fc.integer({ min: -2, max: 2 }),
        promptLogprobs: fc.constantFrom(-1, -1, 0),
        cacheSalt: fc.constantFrom(undefined, undefined, 'a'),
        stops: fc.constantFrom(false, false, false, true),
      }),
    },
    {
      weight: 8,
      arbitrary: fc.record({ kind: fc.constant('start' as const), lane: fc.nat(2) }),
    },
    {
      weight: 12,
      arbitrary: fc.record({ kind: fc.constant('finish' as const), lane: fc.nat(2) }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constantFrom(
          'cancel' as const,
          'pause' as const,
          'resume' as const,
          'fail' as const,
        ),
        pick: fc.nat(100),
      }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('reset' as const) }) },
  ),
  { maxLength: 200, size: 'max' },
);

/** Drives a scheduler as the engine does, with a model that is played, and checks its books after every move. */
class Rig {
  readonly scheduler: Scheduler;
  readonly #setup: Setup;
  readonly #inFlight = new Map<number, Plan>();
  /** Everything ever accepted, with how often it was told to have ended. */
  readonly #ends = new Map<Sequence, number>();
  readonly #maxBatchedTokens: number;
  readonly #contents = new Map<number, string>();
  nowMs = 0;

  constructor(setup: Setup) {
    this.#setup = setup;
    this.#maxBatchedTokens = setup.maxSequences + setup.spareTokens;
    this.scheduler = new Scheduler({
      ...setup,
      forwardCount: setup.lanes,
      maxBatchedTokens: this.#maxBatchedTokens,
      maxModelLength: 24,
      staticWindowMs: 3,
    });
  }

  get live(): Sequence[] {
    return [...this.#ends.keys()].filter((one) => one.state !== 'finished');
  }

  get ends(): number {
    return this.#ends.size;
  }

  get hits(): number {
    return [...this.#ends.keys()].filter((one) => one.cachedTokens > 0).length;
  }

  get lanesInFlight(): number[] {
    return [...this.#inFlight.keys()];
  }

  submit(options: Parameters<typeof requestOf>[0]): void {
    if (options.promptIds.length + 1 > this.scheduler.maxModelLength) {
      assert.throws(() => this.scheduler.add(requestOf(options), this.nowMs), {
        code: 'context_length_exceeded',
      });
    } else this.#ends.set(this.scheduler.add(requestOf(options), this.nowMs), 0);
  }

  start(lane: number): boolean {
    if (lane >= this.scheduler.laneCount || this.#inFlight.has(lane)) return false;
    const plan = this.scheduler.schedule(lane, this.nowMs++);
    if (plan === undefined) return false;
    this.#inFlight.set(lane, plan);
    this.#checkPlan(plan);
    return true;
  }

  finish(lane: number): void {
    const plan = this.#inFlight.get(lane);
    if (plan === undefined) return;
    this.#inFlight.delete(lane);
    this.#write(plan);
    const rows = plan.rowCount;
    const tokenIds = new Int32Array(rows);
    for (const entry of plan.entries) {
      // Ones and twos, and a zero now and then, which ends those that stop.
      if (entry.samples)
        tokenIds[entry.firstRow + entry.promptRowCount] = (entry.sequence.length * 7) % 3;
    }
    const before = plan.entries.map(({ sequence }) => sequence.state);
    const progress = this.scheduler.commit(plan, {
      tokenIds,
      logprobs: new Float32Array(rows),
      topIds: new Int32Array(0),
      topLogprobs: new Float32Array(0),
      maxTop: 0,
    });
    assert.deepEqual(
      progress.map(({ sequence }) => sequence),
      plan.entries.flatMap(({ sequence }, i) => (before[i] === 'finished' ? [] : [sequence])),
    );
    for (const { sequence, finish } of progress) {
      assert.equal(finish !== undefined, sequence.state === 'finished');
      if (finish !== undefined) this.#end(sequence);
    }
  }

  fail(lane: number): void {
    const plan = this.#inFlight.get(lane);
    if (plan === undefined) return;
    this.#inFlight.delete(lane);
    for (const sequence of this.scheduler.fail(plan)) this.#end(sequence);
  }

  cancel(sequence: Sequence): void {
    this.scheduler.cancel(sequence);
    this.scheduler.cancel(sequence);
    this.#end(sequence);
  }

  /** Steps until nothing is left; a scheduler that makes no headway fails the test. */
  runToTheEnd(): void {
    for (const sequence of this.live) sequence.isPaused = false;
    for (let turn = 0; this.live.length > 0; turn++) {
      assert.ok(turn < 3000, `${this.live.length} sequences do not end`);
      for (let lane = 0; lane < this.scheduler.laneCount; lane++) this.start(lane);
      this.finish(turn % this.scheduler.laneCount);
      this.checkBooks();
      this.nowMs++;
    }
    for (const lane of this.lanesInFlight) this.finish(lane);
    this.checkBooks();
    const { scheduler } = this;
    assert.equal(scheduler.blocks.freeCount, scheduler.blocks.capacity, 'blocks leaked');
    assert.deepEqual([scheduler.waiting.length, scheduler.running.length], [0, 0]);
    for (const ends of this.#ends.values()) assert.equal(ends, 1);
  }

  checkBooks(): void {
    const { scheduler } = this;
    const { blocks } = scheduler;
    const held = new Map<number, number>();
    for (const sequence of this.#ends.keys()) {
      const table = [...sequence.blockTable.subarray(0, sequence.blockCount)];
      assert.equal(new Set(table).size, table.length, 'a block stands twice in one table');
      for (const block of table) held.set(block, (held.get(block) ?? 0) + 1);
      const isHolder =
        sequence.state === 'running' || (sequence.state === 'finished' && sequence.isInFlight);
      assert.ok(isHolder || table.length === 0, `${sequence.state} sequence holds blocks`);
      assert.ok(sequence.computed <= sequence.blockCount * blocks.blockSize);
      assert.ok(sequence.computed <= sequence.length);
      assert.ok(sequence.length <= scheduler.maxModelLength);
    }
    for (let block = 0; block <= blocks.capacity; block++) {
      assert.equal(blocks.references(block), held.get(block) ?? 0, `references of block ${block}`);
    }
    assert.equal(blocks.freeCount, blocks.capacity - held.size);
    for (const list of [scheduler.waiting, scheduler.running]) {
      assert.deepEqual([...list], [...list].sort(byRank));
    }
    assert.deepEqual(
      new Set([...scheduler.waiting, ...scheduler.running]),
      new Set(this.live),
      'the queues hold those that have not ended, each once',
    );
    for (let lane = 0; lane < scheduler.laneCount; lane++) {
      const count = scheduler.running.filter((one) => one.lane === lane).length;
      assert.ok(count <= scheduler.sequencesPerLane);
    }
  }

  #checkPlan(plan: Plan): void {
    const { blockSize } = this.#setup;
    assert.ok(plan.entries.length <= this.scheduler.sequencesPerLane);
    assert.ok(plan.tokenCount <= this.#maxBatchedTokens);
    assert.equal(
      plan.tokenCount,
      plan.entries.reduce((sum, { count }) => sum + count, 0),
    );
    const promptRows = plan.entries.reduce((sum, { promptRowCount }) => sum + promptRowCount, 0);
    assert.ok(promptRows <= PROMPT_ROWS_PER_STEP);
    let row = 0;
    const written = new Set<number>();
    for (const { sequence, start, count, firstRow, promptRowCount, samples } of plan.entries) {
      assert.equal(sequence.state, 'running');
      assert.ok(!sequence.isPaused && count > 0);
      assert.equal(start, sequence.computed);
      assert.equal(firstRow, row);
      row += promptRowCount + (samples ? 1 : 0);
      for (let position = start; position < start + count; position++) {
        const block = sequence.blockTable[Math.floor(position / blockSize)]!;
        assert.ok(Math.floor(position / blockSize) < sequence.blockCount);
        assert.equal(this.scheduler.blocks.references(block), 1, 'a shared block is written');
        const slot = block * blockSize + (position % blockSize);
        assert.ok(!written.has(slot), 'two tokens are written to one slot');
        written.add(slot);
      }
      this.#checkReads(sequence, start);
    }
    assert.equal(row, plan.rowCount);
    for (const other of this.#inFlight.values()) {
      if (other === plan) continue;
      for (const entry of other.entries) {
        assert.ok(plan.entries.every(({ sequence }) => sequence !== entry.sequence));
      }
    }
  }

  /** What a sequence counts as computed must stand in the cache, under its own salt. */
  #checkReads(sequence: Sequence, length: number): void {
    const { blockSize } = this.#setup;
    for (let position = 0; position < length; position++) {
      const slot =
        sequence.blockTable[Math.floor(position / blockSize)]! * blockSize + (position % blockSize);
      assert.equal(this.#contents.get(slot), contentOf(sequence, position));
    }
  }

  #write(plan: Plan): void {
    const { blockSize } = this.#setup;
    for (const { sequence, start, count } of plan.entries) {
      for (let position = start; position < start + count; position++) {
        const block = sequence.blockTable[Math.floor(position / blockSize)]!;
        this.#contents.set(
          block * blockSize + (position % blockSize),
          contentOf(sequence, position),
        );
      }
    }
  }

  #end(sequence: Sequence): void {
    this.#ends.set(sequence, this.#ends.get(sequence)! + 1);
  }
}

/** Keys and values of a position depend on all tokens up to it, so its content is those; salts must not meet. */
function contentOf(sequence: Sequence, position: number): string {
  return `${sequence.request.cacheSalt ?? ''}:${sequence.tokens.subarray(0, position + 1).join()}`;
}

test('whatever arrives, ends, fails or pauses, no block leaks, is shared while written or is read with other content', (context) => {
  const seen = { preemptions: 0, hits: 0, ends: 0 };
  fc.assert(
    fc.property(setups, commands, (setup, script) => {
      const rig = new Rig(setup);
      for (const command of script) {
        if (command.kind === 'submit') {
          rig.submit({ ...command, stopTokenIds: command.stops ? [0] : [] });
        } else if (command.kind === 'start') rig.start(command.lane % setup.lanes);
        else if (command.kind === 'finish') rig.finish(command.lane % setup.lanes);
        else if (command.kind === 'reset') rig.scheduler.blocks.resetPrefixCache();
        else if (command.kind === 'fail') rig.fail(command.pick % setup.lanes);
        else {
          const { live } = rig;
          const sequence = live[command.pick % live.length];
          if (sequence === undefined) continue;
          if (command.kind === 'cancel') rig.cancel(sequence);
          else sequence.isPaused = command.kind === 'pause';
        }
        rig.checkBooks();
      }
      rig.runToTheEnd();
      seen.preemptions += rig.scheduler.preemptions;
      seen.hits += rig.hits;
      seen.ends += rig.ends;
    }),
    { numRuns: 4000 },
  );
  // The scripts are worth nothing if they do not reach the hard parts.
  context.diagnostic(JSON.stringify(seen));
  assert.ok(seen.preemptions > 1000 && seen.hits > 1000 && seen.ends > 5000, JSON.stringify(seen));
});

test('a request of low priority is served however many of higher priority keep coming', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...MODES),
      fc.integer({ min: 1, max: 3 }),
      fc.integer({ min: 4, max: 12 }),
      fc.integer({ min: 1, max: 3 }),
      (mode, distance, blockCount, perStep) => {
        const scheduler = new Scheduler({
          mode,
          maxSequences: 2,
          maxBatchedTokens: 4,
          forwardCount: 1,
          blockSize: 4,
          blockCount,
          maxModelLength: 12,
          staticWindowMs: 0,
          prefixCaching: true,
        });
        const request = (priority: number) =>
          requestOf({ promptIds: [1, 2, 3, 4, 5], maxTokens: 3, priority });
        const low = scheduler.add(request(distance), 0);
        let steps = 0;
        while (low.state !== 'finished') {
          // Every step brings more work of higher priority than it takes away, as long as the low one still competes with it.
          for (let i = 0; i < perStep; i++) scheduler.add(request(0), steps);
          const plan = scheduler.schedule(0, steps++)!;
          scheduler.commit(plan, {
            tokenIds: new Int32Array(plan.rowCount).fill(9),
            logprobs: new Float32Array(plan.rowCount),
            topIds: new Int32Array(0),
            topLogprobs: new Float32Array(0),
            maxTop: 0,
          });
          // Those that arrived in the first 256 * distance steps go before; each takes at most 6 steps alone.
          assert.ok(steps <= distance * 256 * perStep * 6 + 20, `not served after ${steps} steps`);
        }
      },
    ),
    { numRuns: 12 },
  );
});
