import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BATCH_MODES, type BatchMode } from '#engine/scheduler/modes/table.ts';
import type { GenerationEvent } from '#engine/scheduler/request.ts';
import {
  collect,
  expectedOutput,
  fakeEngine,
  isTerminal,
  requestOf,
  tokensOf,
  turnUntil,
  VOCABULARY,
} from './harness.ts';

const MODES = Object.keys(BATCH_MODES) as BatchMode[];
const ids = fc.nat(VOCABULARY - 1);

const requests = fc.record({
  promptIds: fc
    .tuple(fc.integer({ min: 1, max: 20 }), fc.array(ids, { maxLength: 4 }))
    .map(([shared, own]) => [...Array.from({ length: shared }, (_, i) => (i * 7) % 11), ...own]),
  maxTokens: fc.nat(24),
  minTokens: fc.nat(3),
  eosTokenIds: fc.array(ids, { maxLength: 2 }),
  stopTokenIds: fc.array(ids, { maxLength: 3 }),
  priority: fc.integer({ min: -1, max: 1 }),
  cacheSalt: fc.constantFrom(undefined, 'tenant'),
  sampling: fc.record({
    temperature: fc.constantFrom(0, 1),
    seed: fc.bigInt({ min: 0n, max: 5n }),
    logprobs: fc.constantFrom(-1, 0, 2),
  }),
});

/** What happens to a request: served to its end, aborted by signal, or left by its reader after so many events. */
const fates = fc.oneof(
  { weight: 4, arbitrary: fc.constant({ kind: 'serve' as const }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('abort' as const), after: fc.nat(20) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('leave' as const), after: fc.nat(10) }),
  },
);

const scenarios = fc.record({
  mode: fc.constantFrom(...MODES),
  lanes: fc.integer({ min: 1, max: 3 }),
  maxSequences: fc.integer({ min: 1, max: 4 }),
  spareTokens: fc.nat(8),
  blockSize: fc.integer({ min: 1, max: 5 }),
  blockCount: fc.integer({ min: 8, max: 24 }),
  prefixCaching: fc.boolean(),
  maxUnreadTokens: fc.constantFrom(1, 3, 1000),
  failEvery: fc.constantFrom(0, 0, 0, 7),
  work: fc.array(fc.record({ request: requests, fate: fates, arrival: fc.nat(30) }), {
    minLength: 1,
    maxLength: 12,
    size: 'max',
  }),
});

function assertWellFormed(events: readonly GenerationEvent[]): void {
  assert.equal(events.filter(isTerminal).length, 1);
  assert.ok(isTerminal(events.at(-1)!), 'the terminal event is the last');
  const kinds = events.map(({ type }) => type);
  const firstToken = kinds.indexOf('token');
  if (firstToken >= 0) {
    assert.ok(kinds.indexOf('prefill') >= 0 && kinds.indexOf('prefill') < firstToken);
    assert.ok(kinds.lastIndexOf('queued') < firstToken);
  }
}

test('in every mode each request gets the tokens it gets alone and one terminal event, and all blocks come back', async (context) => {
  const seen = { preemptions: 0, hits: 0, served: 0, failed: 0 };
  await fc.assert(
    fc.asyncProperty(scenarios, async ({ work, spareTokens, failEvery, ...setup }) => {
      const maxBatchedTokens = setup.maxSequences + spareTokens;
      const { engine, forwards, clock } = fakeEngine({
        ...setup,
        maxBatchedTokens,
        maxModelLength: 40,
        lanes: setup.mode === 'Threads' ? setup.lanes : 1,
      });
      let steps = 0;
      for (const forward of forwards) {
        forward.onRun = ({ tokenIds, seqLens }) => {
          assert.ok(tokenIds.length <= maxBatchedTokens);
          assert.ok(seqLens.length <= (setup.mode === 'Threads' ? 1 : setup.maxSequences));
          if (failEvery > 0 && ++steps % failEvery === 0) throw new Error('the kernel failed');
        };
      }
      let open = 0;
      const outcomes: Promise<void>[] = [];
      const submit = ({ request: options, fate }: (typeof work)[number]): void => {
        const request = requestOf(options);
        if (request.promptIds.length + 1 > engine.maxModelLength) {
          assert.throws(() => engine.submit(request, new AbortController().signal), {
            code: 'context_length_exceeded',
          });
          return;
        }
        const controller = new AbortController();
        const stream = engine.submit(request, controller.signal);
        if (fate.kind === 'abort') clock.setTimer(() => controller.abort(), fate.after);
        open++;
        const served = async () => {
          if (fate.kind === 'leave') {
            let left = fate.after;
            for await (const event of stream) if (left-- === 0 || isTerminal(event)) break;
            return;
          }
          const events = await collect(stream);
          assertWellFormed(events);
          const expected = expectedOutput(request, engine.maxModelLength);
          const tokens = tokensOf(events);
          const last = events.at(-1)!;
          assert.deepEqual(tokens, expected.tokens.slice(0, tokens.length));
          if (last.type === 'error') {
            assert.ok(failEvery > 0 && last.error.code === 'internal_error', String(last.error));
            seen.failed++;
            return;
          }
          assert.ok(last.type === 'end');
          assert.equal(last.usage.generatedTokens, tokens.length);
          assert.equal(last.usage.promptTokens, request.promptIds.length);
          if (last.reason === 'abort') {
            assert.equal(fate.kind, 'abort');
            return;
          }
          seen.served++;
          seen.hits += last.usage.cachedTokens > 0 ? 1 : 0;
          assert.deepEqual(tokens, expected.tokens);
          assert.deepEqual([last.reason, last.stopReason], [expected.reason, expected.stopReason]);
        };
        outcomes.push(served().finally(() => open--));
      };
      for (const item of work) clock.setTimer(() => submit(item), item.arrival);
      await turnUntil(clock, () => clock.now() > 51 && open === 0);
      await Promise.all(outcomes);
      let isDrained = false;
      const drained = engine.drain(1000).then(() => {
        isDrained = true;
      });
      await turnUntil(clock, () => isDrained);
      await drained;
      const stats = engine.stats();
      assert.deepEqual([stats.running, stats.waiting, stats.blocksUsed], [0, 0, 0]);
      assert.equal(clock.timerCount, 0, 'timers outlive the work');
      seen.preemptions += stats.preemptions;
    }),
    { numRuns: 1500 },
  );
  context.diagnostic(JSON.stringify(seen));
  assert.ok(
    seen.preemptions > 50 && seen.hits > 50 && seen.served > 500 && seen.failed > 50,
    JSON.stringify(seen),
  );
});
