import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Runner } from '#kernels/backend.ts';
import type { ComputeType, StorageType } from '#kernels/program.ts';
import { createRandom, type Random } from '../support/random.ts';
import { type SequenceStep, stepOf } from '../support/steps.ts';
import { tinyProgram } from '../support/tiny-program.ts';
import { BLOCK_SIZE, loadOptions, withRunner } from './harness.ts';
import { allSubjects } from './subjects.ts';

/** Longer than one partition of 512 keys. */
const LENGTH = 531;
const BLOCKS_PER_SEQUENCE = Math.ceil(LENGTH / BLOCK_SIZE);
const VOCABULARY = 160;
const NEIGHBOURS = 3;

/** Rows of logits of a sequence, each joined with the id drawn there, by position. */
type Trace = Float32Array[];

interface Fed {
  readonly tokenIds: readonly number[];
  readonly blocks: readonly number[];
  /** Tokens already in the cache when feeding begins. */
  readonly cachedLength?: number;
}

/**
 * Feeds sequences in steps, each with a chunk of those that `chunk` gives a positive length, until all are done. Returns the
 * trace of the first, from its cached length on.
 */
async function feed(
  runner: Runner,
  sequences: readonly Fed[],
  chunk: (s: number, left: number) => number,
  order: (all: number[]) => number[] = (all) => all,
): Promise<Trace> {
  const done = sequences.map(({ cachedLength = 0 }) => cachedLength);
  const trace: Trace = [];
  while (done.some((length, s) => length < sequences[s]!.tokenIds.length)) {
    const step: SequenceStep[] = [];
    let own = -1;
    for (const s of order(sequences.map((_, index) => index))) {
      const { tokenIds, blocks } = sequences[s]!;
      const left = tokenIds.length - done[s]!;
      const count = left === 0 ? 0 : Math.min(left, chunk(s, left));
      if (count === 0) continue;
      if (s === 0) own = step.length;
      const chunkIds = tokenIds.slice(done[s]!, done[s]! + count);
      const logitRows = s === 0 ? chunkIds.map((_, i) => i) : [count - 1];
      step.push({ tokenIds: chunkIds, cachedLength: done[s]!, blocks, logitRows });
      done[s]! += count;
    }
    const outputs = await runner.run(stepOf(step, BLOCK_SIZE, { wantLogits: true }));
    if (own < 0) continue;
    const before = step.slice(0, own).reduce((sum, { logitRows }) => sum + logitRows!.length, 0);
    for (let i = 0; i < step[own]!.tokenIds.length; i++) {
      const row = before + i;
      const logits = outputs.logits!.subarray(row * VOCABULARY, (row + 1) * VOCABULARY);
      trace.push(Float32Array.of(...logits, outputs.tokenIds[row]!));
    }
  }
  return trace;
}

function randomIds(random: Random, length: number): number[] {
  return Array.from({ length }, () => random.integer(0, VOCABULARY - 1));
}

function firstDifference(a: Trace, b: Trace): string | undefined {
  assert.equal(a.length, b.length);
  for (const [position, row] of a.entries())
    for (const [i, value] of row.entries())
      if (!Object.is(value, b[position]![i]))
        return `position ${position}, element ${i}: ${value} and ${b[position]![i]}`;
  return undefined;
}

const CASES: readonly (readonly [StorageType, ComputeType])[] = [
  ['f32', 'float32'],
  ['bf16', 'bfloat16'],
  ['q6_k', 'int8'],
  ['q5_1', 'int8'],
  ['q4_k', 'int4'],
  ['q4_1', 'int4'],
];

for (const subject of allSubjects())
  for (const [storage, computeType] of CASES) {
    // The reference keeps fp32 values whatever the storage: one storage of each compute type is enough.
    if (subject.name === 'reference' && storage.endsWith('_k')) continue;
    test(`logits of a prompt in ${computeType} from ${storage} on ${subject.name} have the same bits alone, batched, chunked, with a cached prefix, recomputed, on one thread and on two`, {
      skip: subject.skip,
    }, async () => {
      const random = createRandom(600);
      const context = `seed ${random.seed}`;
      // The reference has no tiles: a shorter prompt shows the same and keeps the suite quick.
      const length = subject.name === 'reference' ? 90 : LENGTH;
      const kBlock = storage.endsWith('_k');
      const program = tinyProgram({
        seed: 12,
        storage,
        hidden: kBlock ? 256 : 96,
        headSize: kBlock ? 64 : 24,
        intermediate: kBlock ? 256 : 160,
        vocabularyRows: VOCABULARY,
      });
      const load = loadOptions({
        cache: { blockSize: BLOCK_SIZE, blockCount: (NEIGHBOURS + 2) * BLOCKS_PER_SEQUENCE },
        computeType,
        maxTokens: (NEIGHBOURS + 1) * LENGTH,
        maxPositions: LENGTH,
      });
      const prompt = randomIds(random, length);
      const pool = random.shuffle(
        Array.from({ length: (NEIGHBOURS + 2) * BLOCKS_PER_SEQUENCE }, (_, block) => block),
      );
      const blocksOf = (s: number): number[] =>
        pool.slice(s * BLOCKS_PER_SEQUENCE, (s + 1) * BLOCKS_PER_SEQUENCE);
      const neighbours = Array.from({ length: NEIGHBOURS }, (_, s) => ({
        tokenIds: randomIds(random, random.integer(1, length)),
        blocks: blocksOf(s + 1),
      }));
      const own = { tokenIds: prompt, blocks: blocksOf(0) };
      const all = (_: number, left: number): number => left;

      const backend = subject.create();
      const alone = await withRunner(backend, program, load, (runner) => feed(runner, [own], all));
      assert.ok(
        alone.every((row) => row.every(Number.isFinite)),
        'poison was read',
      );
      const expectSame = (trace: Trace, how: string, from = 0): void => {
        const difference = firstDifference(trace, alone.slice(from));
        assert.equal(difference, undefined, `${how} (${context})`);
      };
      for (const threads of [1, 2])
        await withRunner(
          backend,
          program,
          load,
          async (runner) => {
            const how = (what: string): string => `${what}, threads ${threads}`;
            if (threads > 1) expectSame(await feed(runner, [own], all), how('alone'));
            expectSame(await feed(runner, [own], () => 1), how('token by token'));
            const small = await feed(runner, [own], () => random.integer(1, 40));
            expectSame(small, how('in chunks'));

            const batch = [own, ...neighbours];
            const whole = await feed(runner, batch, all, (order) => random.shuffle(order));
            expectSame(whole, how('in one batch'));
            const mixed = await feed(
              runner,
              batch,
              () =>
                random.uniform() < 0.3 ? 0 : random.uniform() < 0.5 ? 1 : random.integer(1, 70),
              (order) => random.shuffle(order),
            );
            expectSame(mixed, how('in mixed batches'));

            // A second sequence takes over the first blocks of the first and computes only what follows.
            const shared = BLOCK_SIZE * random.integer(1, Math.floor((length - 1) / BLOCK_SIZE));
            const kept = shared / BLOCK_SIZE;
            const blocks = [...own.blocks.slice(0, kept), ...blocksOf(NEIGHBOURS + 1).slice(kept)];
            const suffix = { tokenIds: prompt, blocks, cachedLength: shared };
            const hit = await feed(runner, [suffix, ...neighbours], () => random.integer(1, 200));
            expectSame(hit, how(`with ${shared} tokens cached`), shared);

            // Preempted: others overwrite its blocks, then it is computed again elsewhere.
            await feed(runner, [{ tokenIds: randomIds(random, length), blocks: own.blocks }], all);
            const again = { tokenIds: prompt, blocks: blocksOf(1) };
            const recomputed = await feed(runner, [again], () => random.integer(1, 300));
            expectSame(recomputed, how('recomputed'));
          },
          threads,
        );
    });
  }
