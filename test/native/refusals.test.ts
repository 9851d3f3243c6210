import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { LoadOptions } from '#kernels/backend.ts';
import { createCpuBackend } from '#kernels/cpu.ts';
import type { Program, WeightSource } from '#kernels/program.ts';
import type { StepInputs } from '#kernels/step.ts';
import { cpuSubjects } from '../kernels/subjects.ts';
import { stepOf } from '../support/steps.ts';
import { tinyProgram } from '../support/tiny-program.ts';

const subject = cpuSubjects().find(({ skip }) => skip === false) ?? cpuSubjects()[0]!;
const options: LoadOptions = {
  cache: { blockSize: 16, blockCount: 4 },
  computeType: 'auto',
  maxTokens: 32,
  maxSequences: 4,
  maxPositions: 64,
};

function native(name: string, body: () => Promise<void>): void {
  test(name, { skip: subject.skip }, body);
}

test('a missing addon is refused with the ways to get one', () => {
  assert.throws(() => createCpuBackend({ addonPath: '/nonexistent/nvlm.node' }), {
    code: 'KERNEL_ADDON_MISSING',
    message: /no such file[\s\S]*Possible solutions:[\s\S]*npm run build/,
  });
});

native('an instruction set that the machine lacks is refused with those it has', async () => {
  assert.throws(() => createCpuBackend({ isa: 'mmx' }), {
    code: 'KERNEL_ISA_UNAVAILABLE',
    message: /portable.*received mmx/,
  });
});

native(
  'a cache larger than the machine is refused with the numbers, and nothing is allocated',
  async () => {
    const program = tinyProgram({ kvHeads: 4, headSize: 256, heads: 4 });
    const blockCount = 2 ** 26;
    await assert.rejects(
      subject.create().load(program, { ...options, cache: { blockSize: 16, blockCount } }),
      {
        code: 'KERNEL_OUT_OF_MEMORY',
        message: /GiB available.*67108864 blocks.*at most \d+ blocks fits/,
      },
    );
  },
);

/** The program with its weights in files of `directory`, one after another behind an odd offset. */
function inFile(program: Program, path: string): Program {
  const parts: Uint8Array[] = [new Uint8Array(13)];
  let offset = 13;
  const weights = program.weights.map((weight): WeightSource => {
    if (!('data' in weight.bytes)) throw new Error('expected a weight in memory');
    const { data } = weight.bytes;
    parts.push(data);
    offset += data.byteLength;
    return {
      ...weight,
      bytes: { path, offset: offset - data.byteLength, byteLength: data.byteLength },
    };
  });
  writeFileSync(path, Buffer.concat(parts));
  return { ...program, weights };
}

native('weights read from a file give the bits of weights in memory', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'nvlm-'));
  try {
    for (const storage of ['f32', 'bf16', 'q4_1'] as const) {
      const program = tinyProgram({ storage, biases: true });
      const fromFile = inFile(program, join(directory, storage));
      const logits = [];
      for (const source of [program, fromFile]) {
        const fractions: number[] = [];
        const model = await subject
          .create()
          .load(source, { ...options, onProgress: (fraction) => fractions.push(fraction) });
        assert.equal(fractions.at(-1), 1);
        const step = stepOf([{ tokenIds: [1, 2, 3], cachedLength: 0, blocks: [0] }], 16);
        const outputs = await model.createRunner({ threads: 1 }).run({ ...step, wantLogits: true });
        logits.push(outputs.logits);
        await model.close();
      }
      assert.deepEqual(logits[1], logits[0], storage);
    }
  } finally {
    rmSync(directory, { recursive: true });
  }
});

native('a truncated or missing weight file stops the load with its name', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'nvlm-'));
  try {
    const path = join(directory, 'weights');
    const program = inFile(tinyProgram(), path);
    truncateSync(path, 1000);
    await assert.rejects(subject.create().load(program, options), {
      code: 'KERNEL_WEIGHT_INVALID',
      message: /weight .*expected \d+ bytes at offset \d+ of .*1000 bytes; the file is truncated/,
    });
    rmSync(path);
    await assert.rejects(subject.create().load(program, options), {
      code: 'KERNEL_WEIGHT_INVALID',
      message: /cannot be opened: No such file/,
    });
  } finally {
    rmSync(directory, { recursive: true });
  }
});

native('arrays of another element type are refused, and the runner goes on', async () => {
  const model = await subject.create().load(tinyProgram(), options);
  const runner = model.createRunner({ threads: 1 });
  const step = stepOf([{ tokenIds: [1], cachedLength: 0, blocks: [0] }], 16);
  const wrong: Record<string, unknown>[] = [
    { tokenIds: new Float64Array(1) },
    { positions: [0] },
    { sampling: { ...step.sampling, temperature: new Float64Array(1) } },
    { sampling: { ...step.sampling, allowedMask: new Uint8Array(64) } },
  ];
  for (const change of wrong)
    await assert.rejects(runner.run({ ...step, ...change } as StepInputs), {
      code: 'KERNEL_INPUT_INVALID',
    });
  assert.equal((await runner.run(step)).tokenIds.length, 1);
  await model.close();
});
