/** The bits of a sequence's logits depend on nothing but the sequence: not on its batch, its chunks or the threads. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Backend } from '#kernels/backend.ts';
import type { StorageType } from '#kernels/program.ts';
import { COMPUTE_TYPES, cpuSubjects } from '../kernels/subjects.ts';
import { createRandom } from '../support/random.ts';
import { type SequenceStep, stepOf } from '../support/steps.ts';
import { tinyProgram } from '../support/tiny-program.ts';

const blockSize = 16;
const vocabularyRows = 160;

/** Logits after each of the sequence's last tokens, fed in the chunks given, beside `company` in every step. */
async function lastLogits(
  backend: Backend,
  settings: {
    readonly storage: StorageType;
    readonly computeType: (typeof COMPUTE_TYPES)[number];
    readonly threads: number;
    readonly prompt: readonly number[];
    readonly chunks: readonly number[];
    readonly company: readonly SequenceStep[];
  },
): Promise<Float32Array> {
  const { storage, computeType, threads, prompt, chunks, company } = settings;
  const program = tinyProgram({
    storage,
    vocabularyRows,
    validTokenCount: vocabularyRows,
    hidden: 96,
  });
  const model = await backend.load(program, {
    cache: { blockSize, blockCount: 64 },
    computeType,
    maxTokens: 512,
    maxSequences: 32,
    maxPositions: 512,
    poison: true,
  });
  try {
    const runner = model.createRunner({ threads });
    let cachedLength = 0;
    let logits: Float32Array | undefined;
    for (const chunk of chunks) {
      const own = {
        tokenIds: prompt.slice(cachedLength, cachedLength + chunk),
        cachedLength,
        blocks: [60, 7, 33, 12],
      };
      const step = stepOf([...company, own], blockSize);
      const outputs = await runner.run({ ...step, wantLogits: true });
      logits = outputs.logits!.slice(-vocabularyRows);
      cachedLength += chunk;
    }
    return logits!;
  } finally {
    await model.close();
  }
}

const storageOf = { float32: 'f32', bfloat16: 'bf16', int8: 'q8_0', int4: 'q4_1' } as const;

for (const subject of cpuSubjects())
  for (const computeType of COMPUTE_TYPES)
    test(`logits in ${computeType} on ${subject.name} have the same bits alone, in company, in chunks and on any number of threads`, {
      skip: subject.skip,
    }, async () => {
      const seed = 11;
      const random = createRandom(seed);
      const ids = (count: number) =>
        Array.from({ length: count }, () => random.integer(0, vocabularyRows - 1));
      const prompt = ids(53);
      const backend = subject.create();
      const run = (threads: number, chunks: readonly number[], company: readonly SequenceStep[]) =>
        lastLogits(backend, {
          storage: storageOf[computeType],
          computeType,
          threads,
          prompt,
          chunks,
          company,
        });
      const expected = await run(1, [53], []);
      assert.ok(expected.every(Number.isFinite), `seed ${seed}`);
      const crowd = [1, 3, 8, 17, 60].map((length, i) => ({
        tokenIds: ids(length),
        cachedLength: 0,
        blocks: [0, 1, 2, 3].map((block) => 34 + 4 * i + block),
      }));
      const cases: [number, number[], SequenceStep[]][] = [
        [2, [53], []],
        [3, [20, 20, 13], []],
        [2, Array.from({ length: 53 }, () => 1), []],
        [2, [48, 1, 1, 1, 1, 1], crowd.slice(0, 1)],
        [2, [7, 46], crowd],
        [5, [52, 1], crowd],
      ];
      for (const [threads, chunks, company] of cases)
        assert.deepEqual(
          await run(threads, chunks, company),
          expected,
          `${threads} threads, chunks ${chunks}, ${company.length} others, seed ${seed}`,
        );
    });
