import { test } from 'node:test';
import type { TensorId, TensorSpec } from '#kernels/program.ts';
import { createReferenceBackend } from '#kernels/reference/backend.ts';
import { createRandom, type Random } from '../support/random.ts';
import { stepOf } from '../support/steps.ts';
import { plainWeight } from '../support/weights.ts';
import { assertClose, BLOCK_SIZE, OpRecorder, runTensors } from './harness.ts';
import { cpuSubjects } from './subjects.ts';

const WIDTHS = [1, 7, 16, 17, 48, 95, 576];
const ROWS = [0, 1, 5, 33];

const normals = (random: Random, count: number, deviation: number): Float32Array =>
  Float32Array.from({ length: count }, () => deviation * random.normal());

/** Within `relative` of each value and `absolute` of all. */
const bounds = (expected: Float32Array, relative: number, absolute: number): Float32Array =>
  expected.map((value) => relative * Math.abs(value) + absolute);

function otherTensor(record: OpRecorder, rows: TensorSpec['rows'], width: number): TensorId {
  return (record.tensors as TensorSpec[]).push({ name: rows, rows, width }) - 1;
}

for (const subject of cpuSubjects()) {
  const { skip } = subject;

  test(`layerNorm on ${subject.name} agrees with the reference at any width`, {
    skip,
  }, async () => {
    const random = createRandom(21);
    for (const width of WIDTHS)
      for (const rows of ROWS)
        for (const threads of [1, 2]) {
          const record = new OpRecorder();
          const x = record.input(
            'x',
            width,
            normals(random, rows * width, 3).map((v) => v + 5),
          );
          const weight = record.weight(plainWeight('w', [width], normals(random, width, 1)));
          const bias = record.weight(plainWeight('b', [width], normals(random, width, 1)));
          const out = record.tensor('out', width);
          record.op({ op: 'layerNorm', x, weight, bias, eps: 1e-6, out });
          const [expected] = await runTensors(createReferenceBackend(), record, rows, [out]);
          const [actual] = await runTensors(subject.create(), record, rows, [out], { threads });
          assertClose(actual!, expected!, bounds(expected!, 4e-6, 2e-5), `${width} x ${rows}`);
        }
  });

  test(`queryKeyNorm on ${subject.name} leaves padding out of the mean and values as they are`, {
    skip,
  }, async () => {
    const random = createRandom(22);
    for (const [heads, kvHeads, headSize, meanWidth] of [
      [1, 1, 8, 8],
      [4, 4, 16, 48],
      [3, 1, 24, 24],
      [5, 5, 16, 77],
    ] as const)
      for (const rows of ROWS)
        for (const threads of [1, 2]) {
          const width = (heads + 2 * kvHeads) * headSize;
          const record = new OpRecorder();
          const qkv = record.input('qkv', width, normals(random, rows * width, 2));
          const weightOf = (name: string, size: number) =>
            record.weight(plainWeight(name, [size], normals(random, size, 1)));
          record.op({
            op: 'queryKeyNorm',
            qkv,
            queryWeight: weightOf('q', heads * headSize),
            keyWeight: weightOf('k', kvHeads * headSize),
            meanWidth,
            eps: 1e-6,
          });
          const program = { heads, cache: { layers: 1, kvHeads, headSize } };
          const [expected] = await runTensors(createReferenceBackend(), record, rows, [qkv], {
            program,
          });
          const [actual] = await runTensors(subject.create(), record, rows, [qkv], {
            program,
            threads,
          });
          assertClose(actual!, expected!, bounds(expected!, 3e-6, 0), `${heads} heads, ${rows}`);
        }
  });

  test(`linear on ${subject.name} applies the exact gelu and a factor per column`, {
    skip,
  }, async () => {
    const random = createRandom(23);
    for (const epilogue of ['none', 'gelu', 'siluMul'] as const)
      for (const hasScale of [false, true])
        for (const outputs of [1, 16, 33, 80])
          for (const rows of ROWS)
            for (const threads of [1, 2]) {
              const inputs = 40;
              const record = new OpRecorder();
              const x = record.input('x', inputs, normals(random, rows * inputs, 1));
              const residual = record.input('r', outputs, normals(random, rows * outputs, 1));
              const matrix = (name: string) =>
                record.weight(
                  plainWeight(name, [outputs, inputs], normals(random, outputs * inputs, 0.4)),
                );
              const vector = (name: string) =>
                record.weight(plainWeight(name, [outputs], normals(random, outputs, 1)));
              const isGated = epilogue === 'siluMul';
              const out = record.tensor('out', outputs);
              record.op({
                op: 'linear',
                x,
                weights: isGated ? [matrix('gate'), matrix('up')] : [matrix('w')],
                biases: isGated ? [vector('bg'), vector('bu')] : [vector('b')],
                epilogue,
                ...(hasScale && { scale: vector('scale') }),
                residual,
                out,
              });
              const [expected] = await runTensors(createReferenceBackend(), record, rows, [out]);
              const [actual] = await runTensors(subject.create(), record, rows, [out], { threads });
              const context = `${epilogue}, scale ${hasScale}, ${outputs} x ${rows}`;
              assertClose(actual!, expected!, bounds(expected!, 1e-5, 4e-5), context);
            }
  });

  test(`the gelu of ${subject.name} keeps its digits where it is small`, { skip }, async () => {
    const values = Float32Array.from({ length: 2001 }, (_, i) => (i - 1000) / 80);
    const record = new OpRecorder();
    const x = record.input('x', 1, values);
    const weight = record.weight(plainWeight('w', [1, 1], Float32Array.of(1)));
    const out = record.tensor('out', 1);
    record.op({ op: 'linear', x, weights: [weight], epilogue: 'gelu', out });
    const rows = values.length;
    const load = { cache: { blockSize: BLOCK_SIZE, blockCount: 256 } };
    const [expected] = await runTensors(createReferenceBackend(), record, rows, [out], { load });
    const [actual] = await runTensors(subject.create(), record, rows, [out], { load });
    // The exponent of the tail is x^2 / 2, and fp32 holds it to 2^-24 of itself: twice, once rounded and once in exp.
    const limits = expected!.map(
      (value, i) => (2e-6 + 2 ** -23 * (values[i]! ** 2 / 2)) * Math.abs(value) + 1e-36,
    );
    assertClose(actual!, expected!, limits, 'gelu');
  });

  test(`rows from outside on ${subject.name} replace or add to the rows they are meant for`, {
    skip,
  }, async () => {
    const random = createRandom(24);
    for (const width of [1, 17, 64])
      for (const targets of [[], [0], [1, 2, 6]])
        for (const add of [false, true])
          for (const threads of [1, 2]) {
            const tokens = 7;
            const record = new OpRecorder();
            const hidden = record.input('hidden', width, normals(random, tokens * width, 1));
            const rows = otherTensor(record, 'inputRows', width);
            record.op({ op: 'input', out: rows });
            record.op({ op: 'scatterRows', x: rows, add, out: hidden });
            const step = {
              inputRows: normals(random, targets.length * width, 1),
              inputTargets: Int32Array.from(targets),
            };
            const want = [hidden, rows];
            const [expected, given] = await runTensors(
              createReferenceBackend(),
              record,
              tokens,
              want,
              { step },
            );
            const [actual, copied] = await runTensors(subject.create(), record, tokens, want, {
              step,
              threads,
            });
            assertClose(actual!, expected!, 0, `${width}, ${targets.length} rows, add ${add}`);
            assertClose(copied!, given!, 0, 'the rows themselves');
          }
  });

  test(`gatherRows on ${subject.name} lays the rows of a square side by side`, {
    skip,
  }, async () => {
    const random = createRandom(25);
    for (const width of [3, 16, 40]) {
      const record = new OpRecorder();
      const x = record.input('x', width, normals(random, 16 * width, 1));
      const out = otherTensor(record, 'logitRows', width * 4);
      record.op({ op: 'gatherRows', x, offsets: [0, 1, 4, 5], out });
      const step = { logitRows: Int32Array.of(0, 2, 8, 10) };
      const [expected] = await runTensors(createReferenceBackend(), record, 16, [out], { step });
      for (const threads of [1, 2]) {
        const [actual] = await runTensors(subject.create(), record, 16, [out], { step, threads });
        assertClose(actual!, expected!, 0, `width ${width}`);
      }
    }
  });

  test(`attention that is not causal on ${subject.name} sees the whole sequence, and nothing of others`, {
    skip,
  }, async () => {
    const random = createRandom(26);
    for (const [heads, kvHeads, headSize, lengths] of [
      [2, 2, 16, [65, 3]],
      [3, 3, 24, [1025]],
      [4, 2, 128, [530, 1, 47]],
    ] as const) {
      const width = (heads + 2 * kvHeads) * headSize;
      const tokens = lengths.reduce((sum, length) => sum + length, 0);
      const record = new OpRecorder();
      const qkv = record.input('qkv', width, normals(random, tokens * width, 1));
      const out = record.tensor('out', heads * headSize);
      record.op({ op: 'ropeAndCache', qkv, layer: 0 });
      record.op({ op: 'attention', qkv, layer: 0, scale: headSize ** -0.5, causal: false, out });
      let token = 0;
      let block = 0;
      const step = stepOf(
        lengths.map((length) => ({
          tokenIds: Array.from({ length }, () => token++),
          cachedLength: 0,
          blocks: Array.from({ length: Math.ceil(length / BLOCK_SIZE) }, () => block++),
        })),
        BLOCK_SIZE,
      );
      const options = {
        step,
        program: { heads, cache: { layers: 1, kvHeads, headSize } },
        load: {
          cache: { blockSize: BLOCK_SIZE, blockCount: block },
          maxTokens: tokens,
          maxPositions: 2048,
        },
      };
      const [expected] = await runTensors(createReferenceBackend(), record, tokens, [out], options);
      for (const threads of [1, 2, 3]) {
        const [actual] = await runTensors(subject.create(), record, tokens, [out], {
          ...options,
          threads,
        });
        assertClose(actual!, expected!, 2e-5, `${heads} heads of ${headSize}, ${threads} threads`);
      }
    }
  });
}
