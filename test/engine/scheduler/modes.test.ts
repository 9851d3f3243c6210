import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { EngineOptions } from '#engine/scheduler/engine.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { fakeEngine, requestOf, run, turnUntil } from './harness.ts';

test('a static batch waits for a step that nobody wants any more without asking the clock again and again', async () => {
  const clock = new FakeClock();
  let timers = 0;
  const { engine, forwards } = fakeEngine({
    mode: 'Static',
    staticWindowMs: 10,
    now: clock.now,
    setTimer: (callback, ms) => {
      assert.ok(++timers < 100, 'a timer of no length sets itself again and again');
      return clock.setTimer(callback, ms);
    },
  });
  let release = () => {};
  forwards[0]!.onRun = () =>
    new Promise((resolve) => {
      release = resolve;
    });
  const controller = new AbortController();
  engine.submit(requestOf({ promptIds: [1] }), controller.signal);
  clock.advance(10);
  await new Promise((resolve) => setImmediate(resolve));
  await new Promise((resolve) => setImmediate(resolve));
  controller.abort();
  const second = run(engine, { promptIds: [2], maxTokens: 1 });
  await new Promise((resolve) => setImmediate(resolve));
  clock.advance(100);
  forwards[0]!.onRun = () => {};
  release();
  let isDone = false;
  void second.then(() => {
    isDone = true;
  });
  await turnUntil(clock, () => isDone);
  assert.equal((await second).at(-1)!.type, 'end');
});

/** Serves requests of these output lengths, submitted at these times; the first prompt ids of each step, per lane and in order. */
async function trace(
  overrides: Partial<EngineOptions> & { readonly lanes?: number },
  work: readonly { readonly maxTokens: number; readonly atMs?: number }[],
): Promise<{ readonly steps: string[]; readonly mostAtOnce: number }> {
  const { engine, forwards, clock } = fakeEngine(overrides);
  const owners = new Map<number, string>();
  const steps: string[] = [];
  let mostAtOnce = 0;
  let atOnce = 0;
  for (const forward of forwards) {
    forward.onRun = async ({
      tokenIds,
      positions,
      cuSeqlensQ,
      blockTables,
      maxBlocksPerSequence,
    }) => {
      const names = Array.from({ length: cuSeqlensQ.length - 1 }, (_, s) => {
        const first = cuSeqlensQ[s]!;
        const block = blockTables[s * maxBlocksPerSequence]!;
        if (positions[first] === 0) owners.set(block, String.fromCharCode(65 + tokenIds[first]!));
        return owners.get(block)!;
      });
      steps.push(names.sort().join(''));
      mostAtOnce = Math.max(mostAtOnce, ++atOnce);
      await new Promise((resolve) => setImmediate(resolve));
      atOnce--;
    };
  }
  let open = work.length;
  for (const [index, { maxTokens, atMs = 0 }] of work.entries()) {
    const submit = () =>
      void run(engine, { promptIds: [index], maxTokens }).then(() => {
        open--;
      });
    if (atMs === 0) submit();
    else clock.setTimer(submit, atMs);
  }
  await turnUntil(clock, () => open === 0);
  return { steps, mostAtOnce };
}

test('Continuous lets a request into the batch at the step after one has left it', async () => {
  const { steps } = await trace({ mode: 'Continuous', maxSequences: 2 }, [
    { maxTokens: 4 },
    { maxTokens: 1 },
    { maxTokens: 2 },
    { maxTokens: 1 },
  ]);
  assert.deepEqual(steps, ['AB', 'AC', 'AC', 'AD']);
});

test('Sequential serves one request to its end before the next', async () => {
  const { steps } = await trace({ mode: 'Sequential', maxSequences: 4 }, [
    { maxTokens: 3 },
    { maxTokens: 1 },
    { maxTokens: 2 },
  ]);
  assert.deepEqual(steps, ['A', 'A', 'A', 'B', 'C', 'C']);
});

test('Static starts when the batch is full and lets nobody in before its longest member has ended', async () => {
  const { steps } = await trace({ mode: 'Static', maxSequences: 2, staticWindowMs: 1e6 }, [
    { maxTokens: 3 },
    { maxTokens: 1 },
    { maxTokens: 1 },
    { maxTokens: 2 },
  ]);
  assert.deepEqual(steps, ['AB', 'A', 'A', 'CD', 'D']);
});

test('Static starts a batch that is not full when its oldest request has waited for the window', async () => {
  const early = await trace({ mode: 'Static', maxSequences: 4, staticWindowMs: 50 }, [
    { maxTokens: 2 },
    { maxTokens: 1, atMs: 45 },
    { maxTokens: 1, atMs: 70 },
  ]);
  assert.deepEqual(early.steps, ['AB', 'A', 'C']);
});

test('Threads gives every worker one request at a time, and the workers run side by side', async () => {
  const { steps, mostAtOnce } = await trace({ mode: 'Threads', lanes: 3, maxSequences: 1 }, [
    { maxTokens: 3 },
    { maxTokens: 3 },
    { maxTokens: 3 },
    { maxTokens: 3 },
    { maxTokens: 3 },
  ]);
  assert.ok(steps.every((names) => names.length === 1));
  assert.equal(mostAtOnce, 3);
  for (const name of 'ABCDE') assert.equal(steps.filter((step) => step === name).length, 3);
  assert.deepEqual(steps.slice(0, 3).sort(), ['A', 'B', 'C']);
});

test('a prompt that is long is cut into chunks, and sequences that stream get a token in every one of those steps', async () => {
  const { engine, forwards, clock } = fakeEngine({ maxBatchedTokens: 8, maxSequences: 2 });
  const sizes: number[][] = [];
  forwards[0]!.onRun = ({ cuSeqlensQ }) => {
    sizes.push(Array.from(cuSeqlensQ.subarray(1), (end, s) => end - cuSeqlensQ[s]!));
  };
  let open = 2;
  const served = () => {
    open--;
  };
  void run(engine, { promptIds: [1], maxTokens: 6 }).then(served);
  void run(engine, { promptIds: new Array(30).fill(2), maxTokens: 1 }).then(served);
  await turnUntil(clock, () => open === 0);
  assert.deepEqual(sizes, [[1, 7], [1, 7], [1, 7], [1, 7], [1, 2], [1]]);
});

test('a place that a static batch leaves empty is no place for a waiting request: the queue limit holds', async () => {
  const rig = fakeEngine({
    mode: 'Static',
    maxSequences: 2,
    maxQueuedRequests: 1,
    staticWindowMs: 0,
  });
  let open = 2;
  const served = () => {
    open--;
  };
  void run(rig.engine, { promptIds: [1], maxTokens: 20 }).then(served);
  void run(rig.engine, { promptIds: [2], maxTokens: 1 }).then(served);
  await turnUntil(rig.clock, () => open === 1);
  const submit = () =>
    rig.engine.submit(requestOf({ promptIds: [3] }), new AbortController().signal);
  submit();
  assert.throws(submit, { code: 'queue_full' });
  await turnUntil(rig.clock, () => open === 0);
});
