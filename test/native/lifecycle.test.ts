import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Worker } from 'node:worker_threads';
import type { Backend, LoadOptions } from '#kernels/backend.ts';
import { cpuSubjects } from '../kernels/subjects.ts';
import { stepOf } from '../support/steps.ts';
import { tinyProgram } from '../support/tiny-program.ts';

const subject = cpuSubjects().find(({ skip }) => skip === false) ?? cpuSubjects()[0]!;
const blockSize = 16;
const options: LoadOptions = {
  cache: { blockSize, blockCount: 80 },
  computeType: 'float32',
  maxTokens: 1024,
  maxSequences: 4,
  maxPositions: 1024,
};
const program = tinyProgram({ layers: 8 });

/** A step that takes some milliseconds: long enough for something else to happen while it is in flight. */
function longStep() {
  const tokenIds = Array.from({ length: 1000 }, (_, i) => i % 50);
  return stepOf(
    [{ tokenIds, cachedLength: 0, blocks: [...tokenIds.keys()].slice(0, 64) }],
    blockSize,
  );
}

async function loaded(backend: Backend = subject.create()) {
  return backend.load(program, options);
}

function native(name: string, body: () => Promise<void>): void {
  test(name, { skip: subject.skip }, body);
}

native(
  'a second step before the first has ended is refused, and the first is not disturbed',
  async () => {
    const model = await loaded();
    const runner = model.createRunner({ threads: 2 });
    const alone = await runner.run(longStep());
    const first = runner.run(longStep());
    await assert.rejects(runner.run(longStep()), { code: 'KERNEL_BUSY' });
    assert.deepEqual((await first).tokenIds, alone.tokenIds);
    assert.deepEqual((await runner.run(longStep())).tokenIds, alone.tokenIds);
    await model.close();
  },
);

native('closing a runner waits for its step, and may be done twice', async () => {
  const model = await loaded();
  const runner = model.createRunner({ threads: 2 });
  let ended = false;
  const step = runner.run(longStep()).then((outputs) => {
    ended = true;
    return outputs;
  });
  await runner.close();
  assert.equal(ended, true);
  assert.equal((await step).tokenIds.length, 1);
  await runner.close();
  await assert.rejects(runner.run(longStep()), { code: 'KERNEL_CLOSED' });
  await model.close();
  await model.close();
});

native('closing a program closes its runners, and no more can be made', async () => {
  const model = await loaded();
  const runners = [1, 2, 3].map((threads) => model.createRunner({ threads }));
  const steps = runners.map((runner) => runner.run(longStep()));
  await model.close();
  const ids = (await Promise.all(steps)).map(({ tokenIds }) => tokenIds[0]);
  assert.equal(new Set(ids).size, 1, 'steps in flight end as if nothing had happened');
  await assert.rejects(runners[0]!.run(longStep()), { code: 'KERNEL_CLOSED' });
  assert.throws(() => model.createRunner({ threads: 1 }), { code: 'KERNEL_CLOSED' });
});

native('inputs may change as soon as run has returned', async () => {
  const model = await loaded();
  const runner = model.createRunner({ threads: 2 });
  const expected = await runner.run({ ...longStep(), wantLogits: true });
  const step = { ...longStep(), wantLogits: true };
  const outputs = runner.run(step);
  step.tokenIds.fill(49);
  step.blockTables.fill(0);
  step.slotMapping.fill(-1);
  assert.deepEqual((await outputs).logits, expected.logits);
  await model.close();
});

native('runners that nothing refers to are collected, also with a step in flight', async () => {
  setFlagsFromString('--expose-gc');
  const collect: () => void = runInNewContext('gc');
  const model = await loaded();
  for (let i = 0; i < 20; i++) {
    const step = model.createRunner({ threads: 2 }).run(longStep());
    collect();
    assert.equal((await step).tokenIds.length, 1);
    collect();
  }
  await model.close();
});

native('a worker thread runs the backend, and may be ended in the middle of a step', async () => {
  const workerOf = (terminated: boolean) =>
    new Worker(new URL('./step-worker.ts', import.meta.url), { workerData: { terminated } });
  const worker = workerOf(false);
  const [ids] = await new Promise<[number[]]>((resolve, reject) => {
    worker.once('message', (message) => resolve([message]));
    worker.once('error', reject);
  });
  await new Promise((resolve) => worker.once('exit', resolve));
  assert.equal(ids.length, 1);
  const victim = workerOf(true);
  await new Promise((resolve, reject) => {
    victim.once('message', resolve);
    victim.once('error', reject);
  });
  await victim.terminate();
  const model = await loaded();
  assert.deepEqual([...(await model.createRunner({ threads: 1 }).run(longStep())).tokenIds], ids);
  await model.close();
});
