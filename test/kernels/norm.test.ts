import { test } from 'node:test';
import { createReferenceBackend } from '#kernels/reference/backend.ts';
import { createRandom } from '../support/random.ts';
import { plainWeight } from '../support/weights.ts';
import { assertClose, OpRecorder, runTensors } from './harness.ts';
import { cpuSubjects } from './subjects.ts';

/** Widths around every vector length, and an empty step. */
const WIDTHS = [1, 2, 7, 15, 16, 17, 31, 33, 64, 95, 576, 1025];
const ROWS = [0, 1, 2, 5];

for (const subject of cpuSubjects()) {
  test(`rmsNorm on ${subject.name} agrees with the reference at any width`, {
    skip: subject.skip,
  }, async () => {
    const random = createRandom(11);
    for (const width of WIDTHS)
      for (const rows of ROWS)
        for (const withResidual of [false, true]) {
          const normals = (count: number, deviation: number): Float32Array =>
            Float32Array.from({ length: count }, () => deviation * random.normal());
          const record = new OpRecorder();
          const x = record.input('x', width, normals(rows * width, 3));
          const residual = record.input('residual', width, normals(rows * width, 2));
          const weight = record.weight(plainWeight('norm', [width], normals(width, 1)));
          const out = record.tensor('out', width);
          const op = { op: 'rmsNorm', x, weight, eps: 1e-5, out } as const;
          record.op(withResidual ? { ...op, residual } : op);
          const want = [out, residual];
          const [expected, sum] = await runTensors(createReferenceBackend(), record, rows, want);
          for (const threads of [1, 2]) {
            const context = `width ${width}, rows ${rows}, residual ${withResidual}, threads ${threads}`;
            const [actual, actualSum] = await runTensors(subject.create(), record, rows, want, {
              threads,
            });
            // The sum is one fp32 addition; the norm has the rounding of a sum of squares in lanes, a root and two products.
            assertClose(actualSum!, sum!, 0, `${context}, residual`);
            assertClose(
              actual!,
              expected!,
              expected!.map((value) => 2e-6 * Math.abs(value)),
              context,
            );
          }
        }
  });
}
