import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { StorageType } from '#kernels/program.ts';
import { readWeight } from '#kernels/reference/weights.ts';
import { STORAGE_FORMATS } from '#kernels/storage.ts';
import { createRandom } from '../support/random.ts';
import { randomWeight } from '../support/weights.ts';
import { assertClose, OpRecorder, runTensors } from './harness.ts';
import { allSubjects, cpuSubjects } from './subjects.ts';

for (const subject of cpuSubjects())
  test(`embeddings on ${subject.name} are looked up as stored, whatever the compute type`, {
    skip: subject.skip,
  }, async () => {
    const random = createRandom(41);
    for (const storage of Object.keys(STORAGE_FORMATS) as StorageType[]) {
      const width = STORAGE_FORMATS[storage].blockLength * 3;
      const source = randomWeight(random, 'table', storage, [50, width]);
      const record = new OpRecorder();
      const out = record.tensor('out', width);
      record.op({ op: 'embedding', weight: record.weight(source), out });
      const tokenIds = Int32Array.from({ length: 7 }, () => random.integer(0, 49));
      const [actual] = await runTensors(subject.create(), record, 7, [out], {
        load: { computeType: random.pick(['auto', 'float32', 'int4'] as const) },
        step: { tokenIds },
        threads: 2,
      });
      const table = readWeight(source);
      const expected = [...tokenIds].flatMap((id) => [
        ...table.subarray(id * width, (id + 1) * width),
      ]);
      // Kernels round scale times level and the minimum one by one; both are at most the range of a block.
      const range = Math.max(...table.map(Math.abs));
      const exact = STORAGE_FORMATS[storage].blockLength === 1;
      assertClose(
        actual!,
        expected,
        exact ? 0 : 2 ** -22 * range,
        `${storage}, seed ${random.seed}`,
      );
    }
  });

for (const subject of allSubjects())
  test(`gathered rows on ${subject.name} are copies of the rows asked for`, {
    skip: subject.skip,
  }, async () => {
    const random = createRandom(43);
    const values = Float32Array.from({ length: 9 * 37 }, () => random.normal());
    for (const logitRows of [[], [0], [8], [1, 2, 7], [0, 1, 2, 3, 4, 5, 6, 7, 8]]) {
      const record = new OpRecorder();
      const x = record.input('x', 37, values);
      const out = record.tensor('out', 37, 'logitRows');
      record.op({ op: 'gatherRows', x, out });
      const [actual] = await runTensors(subject.create(), record, 9, [out], {
        step: { logitRows: Int32Array.from(logitRows) },
        threads: 2,
      });
      assert.deepEqual(
        [...actual!],
        logitRows.flatMap((row) => [...values.subarray(row * 37, (row + 1) * 37)]),
      );
    }
  });
