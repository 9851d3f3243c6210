/** Runs small programs on a backend and compares arrays; what the tests of this folder share. */
import assert from 'node:assert/strict';
import type { Backend, LoadOptions, Runner } from '#kernels/backend.ts';
import type { Program, TensorId } from '#kernels/program.ts';
import type { StepInputs } from '#kernels/step.ts';
import { stepOf } from '../support/steps.ts';
import { ProgramRecorder } from '../support/tiny-program.ts';
import { plainWeight } from '../support/weights.ts';

export const BLOCK_SIZE = 16;

/** Enough for one small step; memory is poisoned so that reading what nothing wrote gives NaN. */
export function loadOptions(overrides: Partial<LoadOptions> = {}): LoadOptions {
  return {
    cache: { blockSize: BLOCK_SIZE, blockCount: 4 },
    computeType: 'float32',
    maxTokens: 64,
    maxSequences: 8,
    maxPositions: 64,
    poison: true,
    ...overrides,
  };
}

/** The program recorded, with the smallest cache and vocabulary unless `overrides` says otherwise. */
export function programOf(record: ProgramRecorder, overrides: Partial<Program> = {}): Program {
  return {
    name: 'test',
    weights: record.weights,
    tensors: record.tensors,
    ops: record.ops,
    heads: 1,
    cache: { layers: 1, kvHeads: 1, headSize: 8 },
    vocabularyRows: 8,
    validTokenCount: 8,
    ...overrides,
  };
}

/** A recorder whose input tensors hold given values: each is the embedding of token t with row t of an f32 table. */
export class OpRecorder extends ProgramRecorder {
  /** A (rows, width) tensor holding `values` when the step's token ids are 0, 1, .. rows - 1. */
  input(name: string, width: number, values: Float32Array): TensorId {
    // A table needs a row even when the step is empty.
    const rows = Math.max(1, values.length / width);
    const table = new Float32Array(rows * width);
    table.set(values);
    const out = this.tensor(name, width);
    this.op({
      op: 'embedding',
      weight: this.weight(plainWeight(`${name}.table`, [rows, width], table)),
      out,
    });
    return out;
  }
}

/** Inputs of a step of tokens 0 .. tokens - 1 that needs no cache. */
export function plainStep(tokens: number, overrides: Partial<StepInputs> = {}): StepInputs {
  const step = stepOf([], BLOCK_SIZE);
  return {
    ...step,
    tokenIds: Int32Array.from({ length: tokens }, (_, t) => t),
    positions: new Int32Array(tokens),
    slotMapping: new Int32Array(tokens).fill(-1),
    cuSeqlensQ: Int32Array.of(0, tokens),
    seqLens: Int32Array.of(tokens),
    blockTables: new Int32Array(Math.ceil(tokens / BLOCK_SIZE)),
    maxBlocksPerSequence: Math.ceil(tokens / BLOCK_SIZE),
    ...overrides,
  };
}

/** Loads a program, hands a runner to `use`, and closes both. */
export async function withRunner<T>(
  backend: Backend,
  program: Program | readonly Program[],
  options: LoadOptions,
  use: (runner: Runner) => Promise<T>,
  threads = 1,
): Promise<T> {
  const loaded = await backend.load(program, options);
  try {
    return await use(loaded.createRunner({ threads }));
  } finally {
    await loaded.close();
  }
}

/** What the tensors `want` hold after one step of tokens 0 .. tokens - 1. */
export async function runTensors(
  backend: Backend,
  record: OpRecorder,
  tokens: number,
  want: readonly TensorId[],
  options: {
    load?: Partial<LoadOptions>;
    step?: Partial<StepInputs>;
    program?: Partial<Program>;
    threads?: number;
  } = {},
): Promise<readonly Float32Array[]> {
  const load = loadOptions({ maxTokens: Math.max(1, tokens), ...options.load });
  const outputs = await withRunner(
    backend,
    programOf(record, options.program),
    load,
    (runner) => runner.run(plainStep(tokens, { wantTensors: want, ...options.step })),
    options.threads,
  );
  assert.equal(outputs.tensors?.length, want.length);
  return outputs.tensors;
}

/**
 * Fails unless every |actual - expected| <= bound, where bound is one number or one per element; says where the worst
 * element is. NaN never passes. `context` names the case and its seed.
 */
export function assertClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  bound: number | ArrayLike<number>,
  context: string,
): void {
  assert.equal(actual.length, expected.length, `${context}: lengths`);
  let worst = -1;
  let worstRatio = 1;
  for (let i = 0; i < expected.length; i++) {
    const limit = typeof bound === 'number' ? bound : bound[i]!;
    const difference = Math.abs(actual[i]! - expected[i]!);
    const ratio = difference === 0 ? 0 : difference / limit;
    if (!(ratio <= worstRatio)) {
      worst = i;
      worstRatio = Number.isNaN(ratio) ? Number.POSITIVE_INFINITY : ratio;
    }
  }
  if (worst >= 0)
    assert.fail(
      `${context}: element ${worst} of ${expected.length} is ${actual[worst]}, expected ${expected[worst]}, ${worstRatio.toFixed(2)} times the tolerance`,
    );
}
