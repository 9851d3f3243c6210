import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ComputeType, StorageType, TensorId, WeightSource } from '#kernels/program.ts';
import { createReferenceBackend } from '#kernels/reference/backend.ts';
import { matmulTransposed, silu } from '#kernels/reference/ops.ts';
import { readWeight } from '#kernels/reference/weights.ts';
import { STORAGE_FORMATS } from '#kernels/storage.ts';
import { createRandom, type Random } from '../support/random.ts';
import { randomWeight } from '../support/weights.ts';
import { assertClose, OpRecorder, runTensors } from './harness.ts';
import { COMPUTE_TYPES, cpuSubjects } from './subjects.ts';

const STORAGE_TYPES = Object.keys(STORAGE_FORMATS) as StorageType[];
/** Around the tiles of every path: 2 and 6 rows in registers, 16 rows of an AMX tile, which starts at 32. */
const ROWS = [1, 2, 3, 4, 5, 6, 7, 13, 16, 17, 31, 33, 48, 49];
/** Around the 16 channels of a block and the 32 of a pair. */
const OUTPUTS = [1, 3, 15, 16, 17, 31, 32, 33, 47, 64, 65, 100];

interface LinearCase {
  readonly name: string;
  readonly record: OpRecorder;
  readonly rows: number;
  readonly computeType: ComputeType;
  readonly out: TensorId;
  readonly expected: Float32Array;
  /** Largest error that rounding of the sums can explain, per element. */
  readonly bound: Float32Array;
}

/** Half a unit in the last place of fp32. */
const ROUNDING = 2 ** -24;

/**
 * Error of a sum of K products in fp32, in any order that is not contrived: a few roundings of partial sums, each at most the sum of
 * magnitudes. Codes of quantised activations agree exactly, so int8 and int4 need no more than float32.
 */
const SUM_ROUNDINGS = 16;

/** Sum of |x| |w| over K for every output: (rows, N). */
function magnitudes(x: Float32Array, weight: WeightSource): Float32Array {
  const absolute = (values: Float32Array): Float32Array => values.map(Math.abs);
  return matmulTransposed(absolute(x), absolute(readWeight(weight)), weight.shape[1]!, undefined);
}

/** Rows of the parts side by side: parts[i] is (rows, widths[i]). */
function stack(parts: readonly Float32Array[], rows: number): Float32Array {
  const width = parts.reduce((sum, part) => sum + part.length / rows, 0);
  const out = new Float32Array(rows * width);
  let column = 0;
  for (const part of parts) {
    const partWidth = part.length / rows;
    for (let row = 0; row < rows; row++)
      out.set(part.subarray(row * partWidth, (row + 1) * partWidth), row * width + column);
    column += partWidth;
  }
  return out;
}

async function makeCase(
  random: Random,
  storage: StorageType,
  computeType: ComputeType,
  index: number,
): Promise<LinearCase> {
  const { blockLength } = STORAGE_FORMATS[storage];
  const rows = random.pick(ROWS);
  const width =
    blockLength === 1
      ? random.pick([1, 2, 15, 31, 32, 33, 64, 100, 257])
      : blockLength * random.integer(1, blockLength === 32 ? 9 : 2);
  const gated = index % 3 === 2;
  const record = new OpRecorder();
  const values = Float32Array.from({ length: rows * width }, () => 2 * random.normal());
  const x = record.input('x', width, values);
  const first = random.pick(OUTPUTS);
  const sizes = gated
    ? [first, first]
    : [first, ...(index % 3 === 1 ? [random.pick(OUTPUTS), 8] : [])];
  const sources = sizes.map((size, i) =>
    randomWeight(random, `w${i}`, storage, [size, width], 1 / Math.sqrt(width)),
  );
  const biasSources = sizes.map((size, i) => randomWeight(random, `b${i}`, 'f32', [size]));
  const withBias = random.uniform() < 0.5;
  const outWidth = gated ? first : sizes.reduce((sum, size) => sum + size, 0);
  const weights = sources.map((source) => record.weight(source));
  const biases = withBias ? biasSources.map((source) => record.weight(source)) : undefined;
  const residualValues = Float32Array.from({ length: rows * outWidth }, () => random.normal());
  const residual = record.input('residual', outWidth, residualValues);
  // Every third case adds to a residual in place, every third to another tensor.
  const out = index % 2 === 0 ? residual : record.tensor('out', outWidth);
  const withResidual = index % 2 === 0 || random.uniform() < 0.5;
  // What the reference has before the epilogue, for the bound: gate and up side by side, biases added.
  const sums = record.tensor(
    'sums',
    sizes.reduce((sum, size) => sum + size, 0),
  );
  const linear = { op: 'linear', x, weights, ...(biases && { biases }) } as const;
  record.op({ ...linear, epilogue: 'none', out: sums });
  record.op({
    ...linear,
    epilogue: gated ? 'siluMul' : 'none',
    ...(withResidual && { residual }),
    out,
  });
  const load = { computeType };
  const [expected, before] = await runTensors(createReferenceBackend(), record, rows, [out, sums], {
    load,
  });
  const sumBounds = stack(
    sources.map((source) => magnitudes(values, source)),
    rows,
  ).map((magnitude, i) => ROUNDING * (SUM_ROUNDINGS * magnitude + 2 * Math.abs(before![i]!)));
  const bound = expected!.map((value, i) => {
    const row = Math.floor(i / outWidth);
    const ofResidual = withResidual
      ? ROUNDING * (Math.abs(residualValues[i]!) + Math.abs(value))
      : 0;
    if (!gated) return sumBounds[i]! + ofResidual;
    const gateAt = row * 2 * outWidth + (i % outWidth);
    const upAt = gateAt + outWidth;
    const gate = before![gateAt]!;
    const up = before![upAt]!;
    // The slope of silu is at most 1.1; its exponential and division are good to a few units in the last place.
    return (
      1.1 * sumBounds[gateAt]! * Math.abs(up) +
      Math.abs(silu(gate)) * sumBounds[upAt]! +
      8 * ROUNDING * Math.abs(silu(gate) * up) +
      ofResidual
    );
  });
  const name = `${storage} in ${computeType}, case ${index} of seed ${random.seed}: ${rows} rows, K ${width}, N ${sizes.join(' + ')}${gated ? ' gated' : ''}`;
  return { name, record, rows, computeType, out, expected: expected!, bound };
}

/** Cases of one compute type over all storage types; made once, run on every subject. */
const casesOf = new Map<ComputeType, Promise<LinearCase[]>>();
function cases(computeType: ComputeType): Promise<LinearCase[]> {
  const made = casesOf.get(computeType) ?? makeCases(computeType);
  casesOf.set(computeType, made);
  return made;
}
async function makeCases(computeType: ComputeType): Promise<LinearCase[]> {
  const random = createRandom(2024 + COMPUTE_TYPES.indexOf(computeType));
  const made: LinearCase[] = [];
  for (const storage of STORAGE_TYPES)
    for (let index = 0; index < 6; index++)
      made.push(await makeCase(random, storage, computeType, index));
  return made;
}

for (const subject of cpuSubjects())
  for (const computeType of COMPUTE_TYPES) {
    const title = `linears in ${computeType} on ${subject.name} agree with the reference for every storage type and odd shape`;
    test(title, { skip: subject.skip }, async () => {
      for (const [i, linearCase] of (await cases(computeType)).entries()) {
        const { name, record, rows, out, expected, bound } = linearCase;
        const threads = 1 + (i % 2);
        const [actual] = await runTensors(subject.create(), record, rows, [out], {
          load: { computeType },
          threads,
        });
        assertClose(actual!, expected, bound, `${name}, threads ${threads}`);
      }
    });

    test(`a NaN in one row of a ${computeType} linear on ${subject.name} stays in its row`, {
      skip: subject.skip,
    }, async () => {
      const random = createRandom(5);
      const rows = 9;
      for (const width of [64, 416]) {
        const values = Float32Array.from({ length: rows * width }, () => random.normal());
        values[4 * width - 24] = Number.NaN;
        const record = new OpRecorder();
        const x = record.input('x', width, values);
        const out = record.tensor('out', 20);
        const weights = [record.weight(randomWeight(random, 'w', 'q8_0', [20, width]))];
        record.op({ op: 'linear', x, weights, epilogue: 'none', out });
        const [actual] = await runTensors(subject.create(), record, rows, [out], {
          load: { computeType },
        });
        actual!.forEach((value, i) => {
          assert.equal(
            Number.isNaN(value),
            Math.floor(i / 20) === 3,
            `K ${width}, element ${i} is ${value}`,
          );
        });
      }
    });

    test(`activations that overflow only where they are added make no NaN in a ${computeType} linear on ${subject.name}`, {
      skip: subject.skip,
    }, async () => {
      const values = new Float32Array(32);
      values[3] = values[19] = 3e38;
      values[5] = values[21] = -3e38;
      const record = new OpRecorder();
      const x = record.input('x', 32, values);
      const out = record.tensor('out', 20);
      const weights = [record.weight(randomWeight(createRandom(6), 'w', 'q8_0', [20, 32], 1 / 64))];
      record.op({ op: 'linear', x, weights, epilogue: 'none', out });
      const [actual] = await runTensors(subject.create(), record, 1, [out], {
        load: { computeType },
      });
      actual!.forEach((value, i) => {
        assert.ok(Number.isFinite(value), `element ${i} is ${value}`);
      });
    });

    test(`an empty step of a ${computeType} linear on ${subject.name} writes nothing`, {
      skip: subject.skip,
    }, async () => {
      const record = new OpRecorder();
      const x = record.input('x', 32, new Float32Array(0));
      const out = record.tensor('out', 5);
      const weights = [record.weight(randomWeight(createRandom(1), 'w', 'q4_0', [5, 32]))];
      record.op({ op: 'linear', x, weights, epilogue: 'none', out });
      const [actual] = await runTensors(subject.create(), record, 0, [out], {
        load: { computeType },
      });
      assert.equal(actual!.length, 0);
    });
  }

test('stacked weights of different storage types each keep their own arithmetic under auto', async (context) => {
  for (const subject of cpuSubjects()) {
    await context.test(subject.name, { skip: subject.skip }, async () => {
      const random = createRandom(77);
      const rows = 5;
      const record = new OpRecorder();
      const values = Float32Array.from({ length: rows * 256 }, () => random.normal());
      const x = record.input('x', 256, values);
      const sources = (['q4_k', 'q6_k', 'f32', 'bf16', 'q4_0'] as const).map((type, i) =>
        randomWeight(random, `w${i}`, type, [19, 256], 1 / 16),
      );
      const out = record.tensor('out', 5 * 19);
      const weights = sources.map((source) => record.weight(source));
      record.op({ op: 'linear', x, weights, epilogue: 'none', out });
      const load = { computeType: 'auto' } as const;
      const [expected] = await runTensors(createReferenceBackend(), record, rows, [out], { load });
      const [actual] = await runTensors(subject.create(), record, rows, [out], { load });
      const bound = stack(
        sources.map((source) => magnitudes(values, source)),
        rows,
      ).map((magnitude) => ROUNDING * SUM_ROUNDINGS * magnitude);
      assertClose(actual!, expected!, bound, 'auto');
    });
  }
});

test('rows and biases stored in interleaved rotary order meet the same outputs', async (context) => {
  for (const subject of cpuSubjects()) {
    await context.test(subject.name, { skip: subject.skip }, async () => {
      const random = createRandom(31);
      const rows = 3;
      const rowOrder = { kind: 'interleavedToHalf', headSize: 16 } as const;
      const record = new OpRecorder();
      const values = Float32Array.from({ length: rows * 64 }, () => random.normal());
      const x = record.input('x', 64, values);
      const source = { ...randomWeight(random, 'q', 'q8_0', [48, 64], 1 / 8), rowOrder };
      const weights = [record.weight(source)];
      const biases = [record.weight({ ...randomWeight(random, 'q.bias', 'f32', [48]), rowOrder })];
      const out = record.tensor('out', 48);
      record.op({ op: 'linear', x, weights, biases, epilogue: 'none', out });
      const load = { computeType: 'float32' } as const;
      const [expected] = await runTensors(createReferenceBackend(), record, rows, [out], { load });
      const [actual] = await runTensors(subject.create(), record, rows, [out], { load });
      const bound = magnitudes(values, source).map(
        (magnitude) => ROUNDING * (SUM_ROUNDINGS * magnitude + 8),
      );
      assertClose(actual!, expected!, bound, 'rotary order');
    });
  }
});
