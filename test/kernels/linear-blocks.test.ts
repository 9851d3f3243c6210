import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { ComputeType, StorageType, TensorId, WeightSource } from '#kernels/program.ts';
import { createReferenceBackend } from '#kernels/reference/backend.ts';
import { createRandom } from '../support/random.ts';
import { halfBits, randomWeight } from '../support/weights.ts';
import { assertClose, OpRecorder, runTensors } from './harness.ts';
import { cpuSubjects } from './subjects.ts';

/** More than a block of every path has: of rows, of values of K, of channels; a multiple of none of them. */
const ROWS = 103;
const WIDTH = 1120;
const OUTPUTS = [300, 17];

interface Blocks {
  readonly record: OpRecorder;
  readonly out: TensorId;
}

function manyBlocks(
  storage: StorageType,
  epilogue: 'none' | 'siluMul',
  storages: readonly StorageType[] = [storage, storage],
): Blocks {
  const random = createRandom(11);
  const width = storages.some((type) => /_k$/.test(type)) ? 1280 : WIDTH;
  const record = new OpRecorder();
  const values = Float32Array.from({ length: ROWS * width }, () => random.normal());
  const x = record.input('x', width, values);
  const sizes = epilogue === 'siluMul' ? [300, 300] : OUTPUTS;
  const weights = sizes.map((size, i) =>
    record.weight(
      randomWeight(random, `w${i}`, storages[i] as StorageType, [size, width], width ** -0.5),
    ),
  );
  const outWidth = epilogue === 'siluMul' ? 300 : 317;
  const residual = record.input(
    'residual',
    outWidth,
    Float32Array.from({ length: ROWS * outWidth }, () => random.normal()),
  );
  const out = record.tensor('out', outWidth);
  record.op({ op: 'linear', x, weights, epilogue, residual, out });
  return { record, out };
}

const plain: readonly (readonly [ComputeType, StorageType])[] = [
  ['float32', 'f32'],
  ['bfloat16', 'bf16'],
];
const integers: readonly (readonly [ComputeType, StorageType])[] = [
  ['int8', 'q8_0'],
  ['int8', 'q6_k'],
  ['int8', 'q5_1'],
  ['int8', 'q4_0'],
  ['int4', 'q4_1'],
  ['int4', 'q4_0'],
];

for (const subject of cpuSubjects()) {
  for (const [computeType, storage] of plain)
    for (const epilogue of ['none', 'siluMul'] as const)
      test(`a ${computeType} linear (${epilogue}) of many blocks on ${subject.name} agrees with the reference`, {
        skip: subject.skip,
      }, async () => {
        const { record, out } = manyBlocks(storage, epilogue);
        const load = { computeType };
        const [expected] = await runTensors(createReferenceBackend(), record, ROWS, [out], {
          load,
        });
        const [actual] = await runTensors(subject.create(), record, ROWS, [out], {
          load,
          threads: 2,
        });
        // Sums of 1,120 products of deviation 1 / sqrt(1,120): their magnitudes add up to about 21.
        assertClose(actual!, expected!, 2 ** -24 * 16 * 64, `${computeType} ${epilogue}`);
      });

  for (const [computeType, storage] of [...plain, ...integers])
    test(`a row of a ${computeType} linear over ${storage} on ${subject.name} has the same bits among few rows and many`, {
      skip: subject.skip,
    }, async () => {
      const { record, out } = manyBlocks(storage, 'none');
      const run = async (rows: number, threads: number) => {
        const [values] = await runTensors(subject.create(), record, rows, [out], {
          load: { computeType, maxTokens: ROWS },
          threads,
        });
        return values!;
      };
      const many = await run(ROWS, 2);
      for (const rows of [1, 2, 3, 4, 5, 6, 7, 13, 31, 32, 48, 49])
        assert.deepEqual(await run(rows, 1 + (rows % 2)), many.subarray(0, rows * 317), `${rows}`);
    });

  test(`stacked weights of several types keep their own arithmetic in many blocks on ${subject.name}`, {
    skip: subject.skip,
  }, async () => {
    for (const storages of [
      ['bf16', 'f32'],
      ['q8_0', 'bf16'],
      ['f32', 'q4_0'],
    ] as const) {
      const { record, out } = manyBlocks('f32', 'none', storages);
      const load = { computeType: 'auto' } as const;
      const [expected] = await runTensors(createReferenceBackend(), record, ROWS, [out], { load });
      const [actual] = await runTensors(subject.create(), record, ROWS, [out], {
        load,
        threads: 2,
      });
      assertClose(actual!, expected!, 2 ** -24 * 16 * 64, storages.join(' and '));
    }
  });

  test(`dots of the largest codes on ${subject.name} do not saturate`, {
    skip: subject.skip,
  }, async () => {
    // Of 32 values each: a scale of 1, where there is one a minimum of 0, then codes of one byte all over.
    const formats = [
      { type: 'q8_0', scales: [1], code: 0x80 },
      { type: 'q8_0', scales: [1], code: 0x7f },
      { type: 'q4_0', scales: [1], code: 0xff },
      { type: 'q4_0', scales: [1], code: 0x00 },
      { type: 'q4_1', scales: [1, 0], code: 0xff },
      { type: 'q5_0', scales: [1], code: 0xff },
      { type: 'q5_1', scales: [1, 0], code: 0xff },
    ] as const;
    for (const { type, scales, code } of formats)
      for (const sign of [1, -1])
        for (const rows of [1, 2, 33]) {
          const record = new OpRecorder();
          const x = record.input('x', 64, new Float32Array(rows * 64).fill(sign));
          const out = record.tensor('out', 33);
          const weights = [record.weight(filled(type, scales, code, 33, 64))];
          record.op({ op: 'linear', x, weights, epilogue: 'none', out });
          const load = { computeType: 'auto' } as const;
          const [expected] = await runTensors(createReferenceBackend(), record, rows, [out], {
            load,
          });
          const [actual] = await runTensors(subject.create(), record, rows, [out], { load });
          const bound = expected!.map((value) => Math.abs(value) * 2 ** -21);
          assertClose(actual!, expected!, bound, `${type} of ${code}, x ${sign}, ${rows} rows`);
        }
  });
}

/** Blocks of 32 values: halves, then bytes that are all `code`. */
function filled(
  type: 'q8_0' | 'q4_0' | 'q4_1' | 'q5_0' | 'q5_1',
  scales: readonly number[],
  code: number,
  rows: number,
  columns: number,
): WeightSource {
  const blockBytes = { q8_0: 34, q4_0: 18, q4_1: 20, q5_0: 22, q5_1: 24 }[type];
  const data = new Uint8Array((rows * columns * blockBytes) / 32).fill(code);
  const view = new DataView(data.buffer);
  for (let at = 0; at < data.length; at += blockBytes)
    scales.forEach((scale, i) => {
      view.setUint16(at + 2 * i, halfBits(scale), true);
    });
  return { name: type, type, shape: [rows, columns], bytes: { data } };
}
