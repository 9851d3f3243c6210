import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { TensorId } from '#kernels/program.ts';
import { createReferenceBackend } from '#kernels/reference/backend.ts';
import { stepOf } from '../support/steps.ts';
import { plainWeight } from '../support/weights.ts';
import {
  assertClose,
  BLOCK_SIZE,
  loadOptions,
  OpRecorder,
  programOf,
  runTensors,
  withRunner,
} from './harness.ts';

const reference = createReferenceBackend();
const ULP = 2 ** -23;

test('an embedding copies the rows of its token ids', async () => {
  const record = new OpRecorder();
  const out = record.input('x', 2, Float32Array.of(1, 2, 3, 4, 5, 6));
  const step = { tokenIds: Int32Array.of(2, 0, 2) };
  const [values] = await runTensors(reference, record, 3, [out], { step });
  assert.deepEqual([...values!], [5, 6, 1, 2, 5, 6]);
});

test('a norm divides by the root mean square and multiplies by its weight', async () => {
  const record = new OpRecorder();
  const x = record.input('x', 2, Float32Array.of(3, 4, 0, 0));
  const out = record.tensor('out', 2);
  const weight = record.weight(plainWeight('norm', [2], [1, -10]));
  record.op({ op: 'rmsNorm', x, weight, eps: 0.5, out });
  const [values] = await runTensors(reference, record, 2, [out]);
  const scale = 1 / Math.sqrt(12.5 + 0.5);
  assertClose(values!, [3 * scale, -40 * scale, 0, 0], ULP * 20, 'norm');
});

test('a norm with a residual adds x to it first and leaves the sum there', async () => {
  const record = new OpRecorder();
  const x = record.input('x', 2, Float32Array.of(1, 1));
  const residual = record.input('residual', 2, Float32Array.of(2, 3));
  const out = record.tensor('out', 2);
  const weight = record.weight(plainWeight('norm', [2], [1, 1]));
  record.op({ op: 'rmsNorm', x, residual, weight, eps: 0, out });
  const [values, sum] = await runTensors(reference, record, 1, [out, residual]);
  assert.deepEqual([...sum!], [3, 4]);
  assertClose(values!, [3 / Math.sqrt(12.5), 4 / Math.sqrt(12.5)], ULP * 2, 'norm of the sum');
});

test('a linear stacks its weights, adds biases and then the residual it may overwrite', async () => {
  const record = new OpRecorder();
  const x = record.input('x', 2, Float32Array.of(1, 2, -1, 0));
  const out = record.input('residual', 3, Float32Array.of(1000, 2000, 3000, 4000, 5000, 6000));
  record.op({
    op: 'linear',
    x,
    weights: [
      record.weight(plainWeight('a', [2, 2], [1, 1, 2, 0])),
      record.weight(plainWeight('b', [1, 2], [0, 5])),
    ],
    biases: [
      record.weight(plainWeight('aBias', [2], [100, 200])),
      record.weight(plainWeight('bBias', [1], [300])),
    ],
    epilogue: 'none',
    residual: out,
    out,
  });
  const [values] = await runTensors(reference, record, 2, [out]);
  assert.deepEqual([...values!], [1103, 2202, 3310, 4099, 5198, 6300]);
});

test('siluMul is silu of the gate times up', async () => {
  const record = new OpRecorder();
  const x = record.input('x', 1, Float32Array.of(2));
  const out = record.tensor('out', 2);
  const weights = [
    record.weight(plainWeight('gate', [2, 1], [1, -1])),
    record.weight(plainWeight('up', [2, 1], [3, 5])),
  ];
  record.op({ op: 'linear', x, weights, epilogue: 'siluMul', out });
  const [values] = await runTensors(reference, record, 1, [out]);
  const expected = [(2 / (1 + Math.exp(-2))) * 6, (-2 / (1 + Math.exp(2))) * 10];
  assertClose(values!, expected, ULP * 16, 'siluMul');
});

/** One attention layer over qkv rows of one head of 8, fed by an embedding. */
function attentionRecord(
  rows: Float32Array,
  turn: number,
): { record: OpRecorder; out: TensorId; qkv: TensorId } {
  const record = new OpRecorder();
  const qkv = record.input('qkv', 24, rows);
  const out = record.tensor('out', 8);
  const rope = { inverseFrequencies: Float32Array.of(turn, 0, 0, 0), magnitude: 1 };
  record.op({ op: 'ropeAndCache', qkv, layer: 0, rope });
  record.op({ op: 'attention', qkv, layer: 0, scale: 1, out });
  return { record, out, qkv };
}

/** A qkv row: q, k and v are zero but for the given leading values. */
function qkvRow(q: readonly number[], k: readonly number[], v: readonly number[]): number[] {
  return [q, k, v].flatMap((part) => [...part, ...new Array<number>(8 - part.length).fill(0)]);
}

test('rotation turns the pair (i, i + D/2) of queries and keys by position times frequency', async () => {
  const { record, qkv } = attentionRecord(Float32Array.from(qkvRow([1], [0, 2], [3])), 0.5);
  const step = { positions: Int32Array.of(3), slotMapping: Int32Array.of(0) };
  const [values] = await runTensors(reference, record, 1, [qkv], { step });
  const expected = qkvRow([1], [0, 2], [3]);
  expected[0] = Math.cos(1.5);
  expected[4] = Math.sin(1.5);
  assertClose(values!, expected, ULP, 'rotated q; k has no pair that turns');
});

test('attention weighs the values of earlier keys by softmax, through shuffled blocks and over several steps', async () => {
  const rows = 20;
  const table = new Float32Array(rows * 24);
  for (let t = 0; t < rows; t++) table.set(qkvRow([1], [Math.sin(t)], [t, 1]), t * 24);
  const { record, out } = attentionRecord(table, 0);
  const expected = Array.from({ length: rows }, (_, t) => {
    const weights = Array.from({ length: t + 1 }, (_, j) => Math.exp(Math.sin(j)));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    return weights.reduce((sum, weight, j) => sum + weight * j, 0) / total;
  });
  const ids = Array.from({ length: rows }, (_, t) => t);
  await withRunner(reference, programOf(record), loadOptions(), async (runner) => {
    for (const [from, to] of [
      [0, 1],
      [1, 15],
      [15, 20],
    ] as const) {
      const sequence = { tokenIds: ids.slice(from, to), cachedLength: from, blocks: [3, 1] };
      const { tensors } = await runner.run(stepOf([sequence], BLOCK_SIZE, { wantTensors: [out] }));
      const values = tensors![0]!;
      const first = values.filter((_, i) => i % 8 === 0);
      const ones = values.filter((_, i) => i % 8 === 1);
      assertClose(first, expected.slice(from, to), 20 * ULP, `keys ${from}..${to}`);
      assertClose(
        ones,
        ones.map(() => 1),
        2 * ULP,
        'weights sum to one',
      );
    }
  });
});

test('a token whose slot is -1 leaves the cache as it was', async () => {
  const { record, out } = attentionRecord(Float32Array.from(qkvRow([1], [0], [7])), 0);
  const step = { slotMapping: Int32Array.of(-1) };
  const [values] = await runTensors(reference, record, 1, [out], { step });
  assert.ok(Number.isNaN(values![0]), 'only poison was there to read');
});

test('a bfloat16 linear rounds activations and weights, and tied embedding rows stay as stored', async () => {
  const record = new OpRecorder();
  const fine = 1 + 2 ** -10;
  const x = record.input('x', 1, Float32Array.of(fine));
  const out = record.tensor('out', 1);
  record.op({ op: 'linear', x, weights: [0], epilogue: 'none', out });
  const [stored, product] = await runTensors(reference, record, 1, [x, out], {
    load: { computeType: 'bfloat16' },
  });
  assert.equal(stored![0], Math.fround(fine));
  assert.equal(product![0], 1);
});
