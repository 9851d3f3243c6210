import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createEngine } from '#engine/scheduler/engine.ts';
import { BATCH_MODES, type BatchMode } from '#engine/scheduler/modes/table.ts';
import type { GenerationEvent } from '#engine/scheduler/request.ts';
import {
  collect,
  defaultEngineOptions,
  expectedOutput,
  type FakeEngine,
  fakeEngine,
  isTerminal,
  type RequestOptions,
  requestOf,
  run,
  tokensOf,
  turnUntil,
} from './harness.ts';

const MODES = Object.keys(BATCH_MODES) as BatchMode[];
const never = new AbortController().signal;

const turn = () => new Promise((resolve) => setImmediate(resolve));

async function settled<T>({ clock }: FakeEngine, promise: Promise<T>): Promise<T> {
  let isSettled = false;
  const mark = () => {
    isSettled = true;
  };
  promise.then(mark, mark);
  await turnUntil(clock, () => isSettled);
  return promise;
}

/** Holds the steps of the first runner until told to go on. */
function holdSteps({ forwards }: FakeEngine): { readonly go: () => void } {
  let go = () => {};
  const gate = new Promise<void>((resolve) => {
    go = resolve;
  });
  forwards[0]!.onRun = () => gate;
  return {
    go: () => {
      forwards[0]!.onRun = () => {};
      go();
    },
  };
}

function errorOf(events: readonly GenerationEvent[]): string {
  const last = events.at(-1)!;
  return last.type === 'error' ? last.error.code : last.type;
}

test('a full queue refuses the next request with a time to come back, and takes one again when a place is free', async () => {
  const rig = fakeEngine({ maxSequences: 1, maxQueuedRequests: 2 });
  const hold = holdSteps(rig);
  const accepted = [run(rig.engine, { promptIds: [1] })];
  await turn();
  accepted.push(run(rig.engine, { promptIds: [2] }), run(rig.engine, { promptIds: [3] }));
  assert.equal(rig.engine.stats().waiting, 2);
  assert.throws(
    () => rig.engine.submit(requestOf({ promptIds: [4] }), never),
    (error: { code: string; retryAfterSeconds: number; message: string }) =>
      error.code === 'queue_full' &&
      error.retryAfterSeconds >= 1 &&
      /limit is 2/.test(error.message),
  );
  hold.go();
  for (const events of await settled(rig, Promise.all(accepted))) {
    assert.equal(events.at(-1)!.type, 'end');
  }
  const late = await settled(rig, run(rig.engine, { promptIds: [4] }));
  assert.equal(late.at(-1)!.type, 'end');
});

test('requests of one burst beyond what can run and wait are refused before anything has run', () => {
  const { engine } = fakeEngine({ maxSequences: 2, maxQueuedRequests: 3 });
  for (let i = 0; i < 5; i++) engine.submit(requestOf({ promptIds: [i] }), never);
  assert.throws(() => engine.submit(requestOf({ promptIds: [9] }), never), { code: 'queue_full' });
});

test('a request that waits longer than the queue timeout ends with an error; one that has started does not', async () => {
  const rig = fakeEngine({ maxSequences: 1, queueTimeoutMs: 50 });
  const hold = holdSteps(rig);
  const first = run(rig.engine, { promptIds: [1] });
  await turn();
  const second = run(rig.engine, { promptIds: [2] });
  rig.clock.advance(49);
  assert.equal(rig.engine.stats().waiting, 1);
  rig.clock.advance(1);
  assert.equal(rig.engine.stats().waiting, 0);
  const events = await second;
  assert.equal(errorOf(events), 'queue_timeout');
  assert.ok(events.at(-1)!.type === 'error');
  hold.go();
  assert.equal((await settled(rig, first)).at(-1)!.type, 'end');
  assert.equal(rig.clock.timerCount, 0);
});

test('waiting requests hear their place at once and again, not oftener than once a second, when it changes', async () => {
  const rig = fakeEngine({ maxSequences: 1 });
  const first = new AbortController();
  const hold = holdSteps(rig);
  const streams = [
    rig.engine.submit(requestOf({ promptIds: [1] }), first.signal),
    rig.engine.submit(requestOf({ promptIds: [2] }), never),
    rig.engine.submit(requestOf({ promptIds: [3] }), never),
  ];
  const third: GenerationEvent[] = [];
  const reading = (async () => {
    for await (const event of streams[2]!) third.push(event);
  })();
  await turn();
  assert.deepEqual(third, [{ type: 'queued', position: 2, waiting: 2 }]);
  rig.clock.advance(3000);
  await turn();
  assert.equal(third.length, 1, 'no news, no event');
  await (streams[1] as AsyncIterableIterator<GenerationEvent>).return!();
  rig.clock.advance(600);
  await turn();
  assert.deepEqual(third[1], { type: 'queued', position: 1, waiting: 1 });
  hold.go();
  await settled(rig, Promise.all([collect(streams[0]!), reading]));
  assert.equal(third.at(-1)!.type, 'end');
});

test('a prompt at the model length is refused with both numbers; one token shorter gets one token', async () => {
  const rig = fakeEngine({ maxModelLength: 10 });
  assert.throws(
    () => rig.engine.submit(requestOf({ promptIds: new Array(10).fill(1) }), never),
    (error: { code: string; message: string }) =>
      error.code === 'context_length_exceeded' && /10 tokens.* 11, .*10/.test(error.message),
  );
  const events = await settled(rig, run(rig.engine, { promptIds: new Array(9).fill(1) }));
  assert.equal(tokensOf(events).length, 1);
  const last = events.at(-1)!;
  assert.ok(last.type === 'end' && last.reason === 'length');
});

test('a cache smaller than the model length shortens what a request may have, and says so', () => {
  const { engine } = fakeEngine({ maxModelLength: 64, blockCount: 4, blockSize: 4 });
  assert.equal(engine.maxModelLength, 12);
  assert.throws(
    () => engine.submit(requestOf({ promptIds: new Array(12).fill(1) }), never),
    /3 cache blocks of 4 tokens/,
  );
});

for (const mode of MODES) {
  test(`${mode}: an abort gives the blocks back with the end of the step in flight, and the stream ends with 'abort'`, async () => {
    const rig = fakeEngine({ mode, staticWindowMs: 0 });
    const hold = holdSteps(rig);
    const controller = new AbortController();
    const events = collect(
      rig.engine.submit(requestOf({ promptIds: [1, 2, 3, 4, 5] }), controller.signal),
    );
    await turn();
    await turn();
    assert.equal(rig.engine.stats().blocksUsed, 2);
    controller.abort();
    assert.equal(errorOf(await events), 'end');
    assert.equal(rig.engine.stats().blocksUsed, 2, 'blocks that are being written stay held');
    hold.go();
    const { steps } = rig.engine.stats();
    await turnUntil(rig.clock, () => rig.engine.stats().blocksUsed === 0);
    assert.equal(rig.engine.stats().steps, steps + 1);
    assert.equal(rig.forwards[0]!.steps, 1, 'nothing more was computed for it');
  });

  test(`${mode}: a step that fails ends its requests with internal_error and the engine serves the next`, async () => {
    const rig = fakeEngine({ mode, staticWindowMs: 0 });
    rig.forwards[0]!.onRun = () => {
      throw new Error('KERNEL_FAILED');
    };
    const request = { promptIds: [1, 2, 3], maxTokens: 3 } satisfies RequestOptions;
    const failed = await settled(rig, run(rig.engine, request));
    const last = failed.at(-1)!;
    assert.ok(last.type === 'error' && last.error.code === 'internal_error');
    assert.match(String(last.error.cause), /KERNEL_FAILED/);
    assert.equal(rig.engine.stats().blocksUsed, 0);
    rig.forwards[0]!.onRun = () => {};
    const served = await settled(rig, run(rig.engine, request));
    assert.deepEqual(tokensOf(served), expectedOutput(requestOf(request), 64).tokens);
  });

  test(`${mode}: draining finishes what has been accepted and refuses the rest`, async () => {
    const rig = fakeEngine({ mode });
    const accepted = [1, 2, 3, 4, 5, 6].map((id) => run(rig.engine, { promptIds: [id] }));
    await turn();
    const drained = rig.engine.drain(10_000);
    assert.throws(() => rig.engine.submit(requestOf({ promptIds: [1] }), never), {
      code: 'shutting_down',
    });
    await settled(rig, drained);
    for (const events of await Promise.all(accepted)) {
      assert.equal(tokensOf(events).length, 8);
      assert.equal(events.at(-1)!.type, 'end');
    }
    assert.equal(rig.clock.timerCount, 0);
  });

  test(`${mode}: a drain that takes too long ends every request with shutting_down and waits for the step in flight`, async () => {
    const rig = fakeEngine({ mode, maxSequences: 1, staticWindowMs: 0 });
    const hold = holdSteps(rig);
    const accepted = [1, 2, 3].map((id) => run(rig.engine, { promptIds: [id] }));
    await turn();
    await turn();
    let isDrained = false;
    const drained = rig.engine.drain(100).then(() => {
      isDrained = true;
    });
    rig.clock.advance(100);
    for (const events of await Promise.all(accepted)) {
      assert.equal(errorOf(events), 'shutting_down');
    }
    await turn();
    assert.equal(isDrained, false);
    hold.go();
    await settled(rig, drained);
    assert.equal(rig.engine.stats().blocksUsed, 0);
    assert.equal(rig.clock.timerCount, 0);
  });
}

test('a failed step of one lane leaves the requests of the other lanes alone', async () => {
  const rig = fakeEngine({ mode: 'Threads', lanes: 2 });
  rig.forwards[0]!.onRun = () => {
    throw new Error('KERNEL_FAILED');
  };
  const both = [run(rig.engine, { promptIds: [1] }), run(rig.engine, { promptIds: [2] })];
  const outcomes = (await settled(rig, Promise.all(both))).map(errorOf);
  assert.deepEqual(outcomes, ['internal_error', 'end']);
});

test('a signal that was aborted before, and a reader that leaves at once, hold nothing', async () => {
  const rig = fakeEngine();
  const events = await collect(
    rig.engine.submit(requestOf({ promptIds: [1] }), AbortSignal.abort()),
  );
  assert.deepEqual(
    events.map(({ type }) => type),
    ['end'],
  );
  const left = rig.engine.submit(requestOf({ promptIds: [1] }), never);
  await (left as AsyncIterableIterator<GenerationEvent>).return!();
  await turn();
  const { running, waiting, blocksUsed, steps } = rig.engine.stats();
  assert.deepEqual([running, waiting, blocksUsed, steps], [0, 0, 0, 0]);
  assert.equal(rig.clock.timerCount, 0);
});

test('a reader that lags stops its own sequence only, and is cut off after the timeout', async () => {
  const rig = fakeEngine({ maxUnreadTokens: 3, slowReaderTimeoutMs: 5000, maxModelLength: 64 });
  const slow = rig.engine.submit(requestOf({ promptIds: [1], maxTokens: 30 }), never);
  const quick = run(rig.engine, { promptIds: [2], maxTokens: 30 });
  assert.equal(tokensOf(await settled(rig, quick)).length, 30);
  assert.equal(rig.engine.stats().running, 1);
  rig.clock.advance(5000);
  const events = await collect(slow);
  assert.equal(errorOf(events), 'slow_reader');
  assert.ok(events.length <= 6, `${events.length} events were kept for a reader that reads none`);
  await turn();
  assert.equal(rig.engine.stats().blocksUsed, 0);
});

test('a lagging reader gives its blocks to others and gets the same tokens when it reads on', async () => {
  const rig = fakeEngine({ maxUnreadTokens: 2, blockCount: 7, maxModelLength: 24 });
  const request = { promptIds: [1, 2, 3, 4, 5, 6, 7, 8], maxTokens: 12 };
  const slow = rig.engine.submit(requestOf(request), never);
  await turnUntil(rig.clock, () => rig.clock.now() >= 20);
  const large = run(rig.engine, { promptIds: new Array(20).fill(9), maxTokens: 4 });
  assert.equal(tokensOf(await settled(rig, large)).length, 4);
  assert.equal(rig.engine.stats().preemptions, 1);
  const events = await settled(rig, collect(slow));
  assert.deepEqual(tokensOf(events), expectedOutput(requestOf(request), 24).tokens);
});

test('a step starts before its readers hear of the one before, and they hear of it while that step runs', async () => {
  const rig = fakeEngine();
  const told: number[] = [];
  const toldAtStart: number[] = [];
  const toldAtEnd: number[] = [];
  const forward = rig.forwards[0]!;
  const runStep = forward.run.bind(forward);
  forward.run = async (inputs) => {
    toldAtStart.push(told.length);
    const outputs = await runStep(inputs);
    toldAtEnd.push(told.length);
    return outputs;
  };
  const read = async () => {
    const stream = rig.engine.submit(requestOf({ promptIds: [1], maxTokens: 3 }), never);
    for await (const event of stream) if (event.type === 'token') told.push(event.tokenId);
  };
  await settled(rig, read());
  assert.deepEqual(toldAtStart, [0, 0, 1]);
  assert.deepEqual(toldAtEnd, [0, 1, 2]);
  assert.equal(told.length, 3);
});

test('an abort at any moment around the end of a step ends its request once, and the engine serves on', async () => {
  for (let microtasks = 0; microtasks < 12; microtasks++) {
    const rig = fakeEngine();
    const controller = new AbortController();
    const forward = rig.forwards[0]!;
    const runStep = forward.run.bind(forward);
    forward.run = (inputs) => {
      const outputs = runStep(inputs);
      void outputs.then(async () => {
        for (let left = microtasks; left > 0; left--) await undefined;
        controller.abort();
      });
      return outputs;
    };
    const stream = rig.engine.submit(requestOf({ promptIds: [1] }), controller.signal);
    const events = await settled(rig, collect(stream));
    assert.equal(events.filter(isTerminal).length, 1);
    assert.equal(errorOf(events), 'end');
    const after = await settled(rig, run(rig.engine, { promptIds: [2] }));
    assert.equal(tokensOf(after).length, 8);
    assert.equal(rig.engine.stats().blocksUsed, 0);
  }
});

test('higher priority starts first, whatever arrived first', async () => {
  const rig = fakeEngine({ maxSequences: 1 });
  const order: number[] = [];
  const serve = (id: number, priority: number) =>
    run(rig.engine, { promptIds: [id], priority, maxTokens: 1 }).then(() => order.push(id));
  await settled(rig, Promise.all([serve(1, 1), serve(2, 0), serve(3, -1), serve(4, 0)]));
  assert.deepEqual(order, [3, 2, 4, 1]);
});

test('prompts that begin alike are computed once per salt, and a reset forgets them', async () => {
  const rig = fakeEngine();
  const promptIds = [1, 2, 3, 4, 5, 6, 7, 8];
  const cached = async (cacheSalt?: string) => {
    const events = await settled(rig, run(rig.engine, { promptIds, cacheSalt, maxTokens: 1 }));
    const last = events.at(-1)!;
    return last.type === 'end' ? last.usage.cachedTokens : undefined;
  };
  assert.equal(await cached(), 0);
  assert.equal(await cached(), 4, 'the block of the last token is computed: its logits are wanted');
  assert.equal(await cached('tenant'), 0);
  assert.equal(await cached('tenant'), 4);
  rig.engine.resetPrefixCache();
  assert.equal(await cached(), 0);
  assert.equal(rig.engine.stats().prefixCacheHitTokens, 8);
});

test('options that cannot work together are refused when the engine is made', () => {
  const make = (wrong: object) => () =>
    createEngine({ ...defaultEngineOptions, forwards: fakeEngine().forwards, ...wrong });
  assert.throws(make({ maxBatchedTokens: 3, maxSequences: 4 }), /maxBatchedTokens \(3\).*\(4\)/);
  assert.throws(make({ blockCount: 1 }), /at least 2/);
});
