import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { Program, WeightBytes } from '#kernels/program.ts';
import { stepOf } from '../support/steps.ts';
import { tinyProgram } from '../support/tiny-program.ts';
import { BLOCK_SIZE, loadOptions, withRunner } from './harness.ts';
import { allSubjects } from './subjects.ts';

const program = tinyProgram();
const step = stepOf([{ tokenIds: [1, 2, 3], cachedLength: 0, blocks: [0] }], BLOCK_SIZE, {
  wantLogits: true,
});

/** The tiny program with the bytes of its first weight elsewhere. */
function withFirstWeight(bytes: WeightBytes): Program {
  const [first, ...others] = program.weights;
  return { ...program, weights: [{ ...first!, bytes }, ...others] };
}

for (const subject of allSubjects()) {
  const { skip } = subject;

  test(`${subject.name} refuses a second step before the first resolves, and runs it afterwards`, {
    skip,
  }, async () => {
    await withRunner(subject.create(), program, loadOptions(), async (runner) => {
      const first = runner.run(step);
      await assert.rejects(runner.run(step), { name: 'KernelError', code: 'KERNEL_BUSY' });
      const { logits } = await first;
      assert.deepEqual((await runner.run(step)).logits, logits);
    });
  });

  test(`closing a runner on ${subject.name} waits for its step, may be repeated, and refuses steps afterwards`, {
    skip,
  }, async () => {
    await withRunner(subject.create(), program, loadOptions(), async (runner) => {
      let finished = false;
      const running = runner.run(step).then(() => {
        finished = true;
      });
      await runner.close();
      await running;
      assert.ok(finished);
      await runner.close();
      await assert.rejects(runner.run(step), { code: 'KERNEL_CLOSED' });
    });
  });

  test(`closing a program on ${subject.name} with a step in flight finishes the step and refuses new runners`, {
    skip,
  }, async () => {
    const loaded = await subject.create().load(program, loadOptions());
    const runner = loaded.createRunner({ threads: 2 });
    const running = runner.run(step);
    await loaded.close();
    assert.equal((await running).tokenIds.length, 1);
    assert.throws(() => loaded.createRunner({ threads: 1 }), { code: 'KERNEL_CLOSED' });
    await assert.rejects(runner.run(step), { code: 'KERNEL_CLOSED' });
    await loaded.close();
  });

  test(`${subject.name} copies a step's inputs before the call returns`, { skip }, async () => {
    await withRunner(subject.create(), program, loadOptions(), async (runner) => {
      const { logits } = await runner.run(step);
      const inputs = structuredClone(step);
      const running = runner.run(inputs);
      for (const array of [
        inputs.tokenIds,
        inputs.positions,
        inputs.slotMapping,
        inputs.blockTables,
      ])
        array.fill(7);
      assert.deepEqual((await running).logits, logits);
    });
  });

  test(`two runners of a program on ${subject.name} run at the same time on blocks of their own`, {
    skip,
  }, async () => {
    const loaded = await subject.create().load(program, loadOptions());
    const runners = [0, 1].map((block) => ({ block, runner: loaded.createRunner({ threads: 1 }) }));
    const traces = await Promise.all(
      runners.map(async ({ block, runner }) => {
        const rows: number[][] = [];
        for (let i = 0; i < 16; i++) {
          const sequence = { tokenIds: [5 * i], cachedLength: i, blocks: [block] };
          const { logits } = await runner.run(stepOf([sequence], BLOCK_SIZE, { wantLogits: true }));
          rows.push([...logits!]);
        }
        return rows;
      }),
    );
    await loaded.close();
    assert.deepEqual(traces[0], traces[1]);
  });

  test(`a refused step on ${subject.name} leaves the runner usable`, { skip }, async () => {
    await withRunner(subject.create(), program, loadOptions(), async (runner) => {
      const bad = { ...step, tokenIds: Int32Array.of(1, 2, 10_000) };
      await assert.rejects(runner.run(bad), { code: 'KERNEL_INPUT_INVALID', message: /10000/ });
      assert.equal((await runner.run(step)).tokenIds.length, 1);
    });
  });

  test(`an empty step on ${subject.name} gives empty outputs`, { skip }, async () => {
    for (const threads of [1, 2])
      await withRunner(
        subject.create(),
        program,
        loadOptions(),
        async (runner) => {
          const outputs = await runner.run(stepOf([], BLOCK_SIZE, { wantLogits: true }));
          assert.deepEqual([outputs.tokenIds.length, outputs.logits?.length], [0, 0]);
        },
        threads,
      );
  });

  test(`${subject.name} reads weights from ranges of a file and reports its progress up to 1`, {
    skip,
  }, async () => {
    const { bytes } = program.weights[0]!;
    assert.ok('data' in bytes);
    const path = join(tmpdir(), `nvlm-lifecycle-${process.pid}.bin`);
    // An offset that no page and no vector divides.
    const offset = 4099;
    writeFileSync(path, Buffer.concat([Buffer.alloc(offset, 0xff), bytes.data]));
    try {
      const byteLength = bytes.data.byteLength;
      const fractions: number[] = [];
      const options = loadOptions({ onProgress: (fraction) => fractions.push(fraction) });
      const fromFile = withFirstWeight({ path, offset, byteLength });
      const run = (from: Program): Promise<Float32Array> =>
        withRunner(
          subject.create(),
          from,
          options,
          async (runner) => (await runner.run(step)).logits!,
        );
      assert.deepEqual(await run(fromFile), await run(program));
      assert.equal(fractions.at(-1), 1);
      assert.ok(fractions.every((fraction) => fraction >= 0 && fraction <= 1));

      const truncated = withFirstWeight({ path, offset: offset + 1, byteLength });
      await assert.rejects(subject.create().load(truncated, options), {
        code: 'KERNEL_WEIGHT_INVALID',
        message: /embedding.*truncated/,
      });
    } finally {
      rmSync(path);
    }
  });

  test(`${subject.name} refuses a weight file that is not there by its path`, {
    skip,
  }, async () => {
    const missing = withFirstWeight({ path: '/nonexistent/w.bin', offset: 0, byteLength: 40960 });
    await assert.rejects(subject.create().load(missing, loadOptions()), {
      code: 'KERNEL_WEIGHT_INVALID',
      message: /\/nonexistent\/w\.bin/,
    });
  });
}
