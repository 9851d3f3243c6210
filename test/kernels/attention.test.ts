import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Backend, LoadOptions } from '#kernels/backend.ts';
import type { CacheType, Program, TensorId } from '#kernels/program.ts';
import { createReferenceBackend } from '#kernels/reference/backend.ts';
import { createRandom, type Random } from '../support/random.ts';
import { type SequenceStep, stepOf } from '../support/steps.ts';
import { assertClose, loadOptions, OpRecorder, programOf, withRunner } from './harness.ts';
import { cpuSubjects } from './subjects.ts';

interface Shape {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  readonly blockSize: number;
  /** Final lengths of the sequences, fed in random chunks. */
  readonly lengths: readonly number[];
}

interface Scenario {
  readonly name: string;
  readonly program: Program;
  readonly out: TensorId;
  readonly load: LoadOptions;
  readonly steps: readonly (readonly SequenceStep[])[];
  readonly blockSize: number;
  readonly expected: readonly Float32Array[];
  readonly bounds: readonly Float32Array[];
}

/** Context lengths around a group of 16, a key block of 64, and one and two partitions of 512 keys. */
const SHAPES: readonly Shape[] = [
  { heads: 1, kvHeads: 1, headSize: 8, blockSize: 16, lengths: [1] },
  { heads: 2, kvHeads: 1, headSize: 16, blockSize: 16, lengths: [1025, 3] },
  { heads: 2, kvHeads: 2, headSize: 64, blockSize: 32, lengths: [513, 512] },
  { heads: 3, kvHeads: 1, headSize: 128, blockSize: 128, lengths: [257] },
  { heads: 4, kvHeads: 2, headSize: 24, blockSize: 48, lengths: [15, 16, 17, 1] },
  { heads: 14, kvHeads: 2, headSize: 64, blockSize: 16, lengths: [63, 64, 65] },
  { heads: 16, kvHeads: 2, headSize: 8, blockSize: 16, lengths: [31, 33, 49, 80] },
  { heads: 8, kvHeads: 8, headSize: 80, blockSize: 16, lengths: [33, 47] },
  { heads: 6, kvHeads: 2, headSize: 96, blockSize: 64, lengths: [70, 5] },
  { heads: 4, kvHeads: 1, headSize: 256, blockSize: 16, lengths: [50, 17] },
  { heads: 5, kvHeads: 5, headSize: 40, blockSize: 16, lengths: [100] },
  { heads: 64, kvHeads: 1, headSize: 16, blockSize: 16, lengths: [20, 40] },
];

/** Random chunks of every sequence, each step with a random share of the sequences that are not done, in random order. */
function randomSteps(random: Random, shape: Shape, blocks: readonly number[][]): SequenceStep[][] {
  const firstRow = shape.lengths.map((_, s) =>
    shape.lengths.slice(0, s).reduce((sum, length) => sum + length, 0),
  );
  const done = shape.lengths.map(() => 0);
  const steps: SequenceStep[][] = [];
  while (done.some((length, s) => length < shape.lengths[s]!)) {
    const order = random.shuffle(shape.lengths.map((_, s) => s));
    const step = order
      .filter((s) => done[s]! < shape.lengths[s]! && random.uniform() < 0.8)
      .map((s) => {
        const left = shape.lengths[s]! - done[s]!;
        // Few long chunks and many short ones; now and then a sequence without a new token.
        const most = random.uniform() < 0.5 ? left : Math.min(left, 19);
        const count = random.uniform() < 0.05 ? 0 : random.integer(1, most);
        const cachedLength = done[s]!;
        done[s]! += count;
        const from = firstRow[s]! + cachedLength;
        const tokenIds = Array.from({ length: count }, (_, i) => from + i);
        return { tokenIds, cachedLength, blocks: blocks[s]! };
      });
    steps.push(step);
  }
  return steps;
}

/** A program that attends over qkv rows given as a table; no rotation, so that rounding of the inputs is the same everywhere. */
function attentionProgram(shape: Shape, table: Float32Array): { program: Program; out: TensorId } {
  const { heads, kvHeads, headSize } = shape;
  const record = new OpRecorder();
  const qkv = record.input('qkv', (heads + 2 * kvHeads) * headSize, table);
  const out = record.tensor('out', heads * headSize);
  const rope = { inverseFrequencies: new Float32Array(headSize / 2), magnitude: 1 };
  record.op({ op: 'ropeAndCache', qkv, layer: 1, rope });
  record.op({ op: 'attention', qkv, layer: 1, scale: headSize ** -0.5, out });
  const cache = { layers: 2, kvHeads, headSize };
  return { program: programOf(record, { heads, cache }), out };
}

async function runSteps(
  backend: Backend,
  scenario: Pick<Scenario, 'program' | 'out' | 'load' | 'steps' | 'blockSize'>,
  threads: number,
): Promise<Float32Array[]> {
  const { program, out, load, steps, blockSize } = scenario;
  return withRunner(
    backend,
    program,
    load,
    async (runner) => {
      const outputs: Float32Array[] = [];
      for (const step of steps) {
        const { tensors } = await runner.run(stepOf(step, blockSize, { wantTensors: [out] }));
        outputs.push(tensors![0]!);
      }
      return outputs;
    },
    threads,
  );
}

async function makeScenario(seed: number, shape: Shape, cacheType: CacheType): Promise<Scenario> {
  const random = createRandom(seed);
  const { heads, kvHeads, headSize, blockSize, lengths } = shape;
  const width = (heads + 2 * kvHeads) * headSize;
  const rows = lengths.reduce((sum, length) => sum + length, 0);
  const table = Float32Array.from({ length: rows * width }, () => 1.3 * random.normal());
  const blockCounts = lengths.map((length) => Math.ceil(length / blockSize));
  const blockCount = blockCounts.reduce((sum, count) => sum + count, 0) + 3;
  const pool = random.shuffle(Array.from({ length: blockCount }, (_, block) => block));
  const blocks = blockCounts.map((count) => pool.splice(0, count));
  const { program, out } = attentionProgram(shape, table);
  const scenario = {
    program,
    out,
    steps: randomSteps(random, shape, blocks),
    blockSize,
    load: loadOptions({
      cache: { blockSize, blockCount },
      cacheType,
      maxTokens: rows,
      maxPositions: Math.max(...lengths),
    }),
  };
  const reference = createReferenceBackend();
  const expected = await runSteps(reference, scenario, 1);
  // The same attention over |v|: what errors of the probabilities are multiplied with.
  const absolute = table.map((value, i) =>
    i % width >= (heads + kvHeads) * headSize ? Math.abs(value) : value,
  );
  const magnitudes = await runSteps(
    reference,
    { ...scenario, program: attentionProgram(shape, absolute).program },
    1,
  );
  // fp32: a score of D products, each about as large as their magnitudes' sum allows, moves a probability by its own error; then
  // some roundings in exp2, the sums and the merge. bfloat16: a probability is rounded to 8 bits before it meets its value. int8: a
  // query is rounded to 16 bits, and of the 64 keys of a block each probability to 16 bits of the largest, which may meet a value
  // far larger than this column's: one as large as any.
  const scoreMagnitude = 1.3 * 1.3 * Math.sqrt(headSize);
  const relative =
    2 ** -24 * (32 + 4 * scoreMagnitude) +
    { float32: 0, bfloat16: 2 ** -8, int8: 2 ** -15 * scoreMagnitude }[cacheType];
  const largest = table.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const absolute8 = cacheType === 'int8' ? 2 ** -16 * Math.sqrt(64) * largest : 0;
  const bounds = magnitudes.map((values) => values.map((value) => relative * value + absolute8));
  const name = `${cacheType} cache, seed ${seed}, ${JSON.stringify(shape)}`;
  return { ...scenario, name, expected, bounds };
}

const made = new Map<string, Promise<Scenario>>();
function scenarioOf(index: number, cacheType: CacheType): Promise<Scenario> {
  const key = `${index} ${cacheType}`;
  const scenario = made.get(key) ?? makeScenario(100 + index, SHAPES[index]!, cacheType);
  made.set(key, scenario);
  return scenario;
}

for (const subject of cpuSubjects())
  for (const cacheType of ['float32', 'bfloat16', 'int8'] as const)
    test(`attention over a cache of ${cacheType} on ${subject.name} agrees with the reference in any mix of chunks, on one thread and on two`, {
      skip: subject.skip,
    }, async () => {
      for (const index of SHAPES.keys()) {
        const scenario = await scenarioOf(index, cacheType);
        const alone = await runSteps(subject.create(), scenario, 1);
        const shared = await runSteps(subject.create(), scenario, 2);
        for (const [step, expected] of scenario.expected.entries()) {
          const context = `${scenario.name}, step ${step}`;
          assertClose(alone[step]!, expected, scenario.bounds[step]!, context);
          assert.deepEqual(shared[step], alone[step], `${context}: two threads change bits`);
        }
      }
    });
