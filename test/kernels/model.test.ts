import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Backend } from '#kernels/backend.ts';
import { createCpuBackend } from '#kernels/cpu.ts';
import type { ComputeType, Program, StorageType } from '#kernels/program.ts';
import { createReferenceBackend } from '#kernels/reference/backend.ts';
import { createRandom } from '../support/random.ts';
import { stepOf } from '../support/steps.ts';
import { tinyProgram } from '../support/tiny-program.ts';
import { assertClose, BLOCK_SIZE, loadOptions, withRunner } from './harness.ts';
import { cpuSubjects } from './subjects.ts';

const PROMPT = 70;

interface Whole {
  readonly logits: Float32Array;
  readonly greedy: Int32Array;
}

/** Logits at every position of a prompt of two sequences fed whole, and the greedy ids there. */
async function runWhole(
  backend: Backend,
  program: Program,
  computeType: ComputeType,
  threads: number,
): Promise<Whole> {
  const random = createRandom(3);
  const sequences = [0, 5].map((firstBlock) => ({
    tokenIds: Array.from({ length: PROMPT }, () => random.integer(0, program.validTokenCount - 1)),
    cachedLength: 0,
    blocks: Array.from({ length: 5 }, (_, i) => firstBlock + i),
    logitRows: Array.from({ length: PROMPT }, (_, i) => i),
  }));
  const load = loadOptions({
    cache: { blockSize: BLOCK_SIZE, blockCount: 10 },
    computeType,
    maxTokens: 2 * PROMPT,
    maxPositions: PROMPT,
  });
  return withRunner(
    backend,
    program,
    load,
    async (runner) => {
      const step = stepOf(sequences, BLOCK_SIZE, { wantLogits: true });
      const { logits, tokenIds } = await runner.run(step);
      return { logits: logits!, greedy: tokenIds };
    },
    threads,
  );
}

/**
 * float32 differs in the order of sums only, so logits that spread by a few units agree to 2e-5. The other types round activations
 * between layers, where a value near a border falls to either side, and the kernels round probabilities to bfloat16, which the
 * reference does not: the difference is about what rounding to bfloat16 once more loses. So it must stay below what the type
 * itself loses against float32; and paths share every rounding,
 * so they differ by a few values that fell to the other side of a border: far less than the type loses.
 */
const CASES: readonly (readonly [StorageType, ComputeType])[] = [
  ['f32', 'float32'],
  ['bf16', 'float32'],
  ['q4_1', 'float32'],
  ['bf16', 'bfloat16'],
  ['q8_0', 'int8'],
  ['q5_1', 'int8'],
  ['q4_0', 'int4'],
];

function rootMeanSquare(a: Float32Array, b: Float32Array): number {
  return Math.sqrt(a.reduce((sum, value, i) => sum + (value - b[i]!) ** 2, 0) / a.length);
}

for (const [storage, computeType] of CASES) {
  const program = tinyProgram({ seed: 9, storage, biases: true, validTokenCount: 150 });
  let references: Promise<{ own: Whole; exact: Whole }> | undefined;
  const reference = (): Promise<{ own: Whole; exact: Whole }> => {
    references ??= (async () => ({
      own: await runWhole(createReferenceBackend(), program, computeType, 1),
      exact: await runWhole(createReferenceBackend(), program, 'float32', 1),
    }))();
    return references;
  };
  for (const subject of cpuSubjects())
    test(`a whole model of ${storage} weights in ${computeType} on ${subject.name} gives the reference's logits`, {
      skip: subject.skip,
    }, async () => {
      const { own, exact } = await reference();
      const actual = await runWhole(subject.create(), program, computeType, 2);
      if (computeType === 'float32') {
        assertClose(actual.logits, own.logits, 2e-5, 'logits');
        assert.deepEqual(actual.greedy, own.greedy);
        return;
      }
      const loss = rootMeanSquare(own.logits, exact.logits);
      const difference = rootMeanSquare(actual.logits, own.logits);
      assert.ok(loss > 1e-4, `the type rounds nothing: ${loss}`);
      assert.ok(difference < loss, `differs by ${difference}, the type itself loses ${loss}`);
      const portable = await runWhole(
        createCpuBackend({ isa: 'portable' }),
        program,
        computeType,
        1,
      );
      const between = rootMeanSquare(actual.logits, portable.logits);
      assert.ok(between < 0.25 * loss, `portable differs by ${between}, the type loses ${loss}`);
    });
}
