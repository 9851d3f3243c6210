import { test } from 'node:test';
import { createReferenceBackend } from '#kernels/reference/backend.ts';
import { createRandom } from '../support/random.ts';
import { assertClose, OpRecorder, runTensors } from './harness.ts';
import { cpuSubjects } from './subjects.ts';

const MAX_POSITIONS = 5000;

for (const subject of cpuSubjects())
  test(`rotation on ${subject.name} agrees with the reference for every head size and position, and leaves values alone`, {
    skip: subject.skip,
  }, async () => {
    const random = createRandom(31);
    for (const headSize of [8, 16, 24, 40, 64, 80, 96, 128, 192, 256]) {
      const kvHeads = random.integer(1, 3);
      const heads = kvHeads * random.integer(1, 4);
      const rows = random.integer(1, 9);
      const width = (heads + 2 * kvHeads) * headSize;
      const values = Float32Array.from({ length: rows * width }, () => random.normal());
      const record = new OpRecorder();
      const qkv = record.input('qkv', width, values);
      const inverseFrequencies = Float32Array.from(
        { length: headSize / 2 },
        (_, i) => 10000 ** ((-2 * i) / headSize),
      );
      const magnitude = 1 + random.uniform();
      record.op({ op: 'ropeAndCache', qkv, layer: 0, rope: { inverseFrequencies, magnitude } });
      const positions = Int32Array.from({ length: rows }, () =>
        random.integer(0, MAX_POSITIONS - 1),
      );
      positions[0] = MAX_POSITIONS - 1;
      const options = {
        load: { maxPositions: MAX_POSITIONS },
        program: { heads, cache: { layers: 1, kvHeads, headSize } },
        step: { positions, slotMapping: Int32Array.from({ length: rows }, (_, t) => t - 1) },
      };
      const [expected] = await runTensors(createReferenceBackend(), record, rows, [qkv], options);
      // Cosine, sine, the factor on them, two products and a sum: six roundings of numbers no larger than the pair they turn.
      const bound = values.map((value, i) => {
        const at = i % headSize;
        const partner = values[at < headSize / 2 ? i + headSize / 2 : i - headSize / 2]!;
        const rotated = i % width < (heads + kvHeads) * headSize;
        return rotated ? 6 * 2 ** -24 * magnitude * (Math.abs(value) + Math.abs(partner)) : 0;
      });
      for (const threads of [1, 2]) {
        const [actual] = await runTensors(subject.create(), record, rows, [qkv], {
          ...options,
          threads,
        });
        assertClose(
          actual!,
          expected!,
          bound,
          `seed ${random.seed}, head size ${headSize}, threads ${threads}`,
        );
      }
    }
  });
