/** The scheduler on real arithmetic: whatever is batched, cut, cached or computed again, log-probabilities keep every bit. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildProgram } from '#engine/model/registry.ts';
import { createEngine, type EngineOptions } from '#engine/scheduler/engine.ts';
import type { EngineStats, TokenLogprobs } from '#engine/scheduler/request.ts';
import { openCheckpoint } from '#engine/weights/open.ts';
import type { Backend, Runner } from '#kernels/backend.ts';
import type { ComputeType } from '#kernels/program.ts';
import { testBackends } from '../../support/backends.ts';
import { readGolden } from '../../support/golden.ts';
import { createRandom } from '../../support/random.ts';
import { collect, defaultEngineOptions, type RequestOptions, requestOf } from './harness.ts';

const BLOCK_SIZE = 16;
const BLOCK_COUNT = 65;
const LANES = 3;
const golden = readGolden('a');
const ENGINE_OPTIONS = {
  ...defaultEngineOptions,
  maxBatchedTokens: 64,
  maxSequences: 5,
  maxModelLength: 128,
  blockSize: BLOCK_SIZE,
  blockCount: BLOCK_COUNT,
  vocabularyRows: golden.vocabularyRows,
  prefixCaching: false,
};

/** Prompts of odd lengths, two of which begin alike for two blocks and a half. */
function makeWork(seed: number): RequestOptions[] {
  const random = createRandom(seed);
  const idsOf = (length: number) =>
    Array.from({ length }, () => random.integer(0, golden.validIds - 1));
  const shared = idsOf(40);
  const prompts = [
    [...golden.textCases[0]!.promptIds],
    [...shared, ...idsOf(7)],
    [...shared, ...idsOf(30)],
    idsOf(1),
    idsOf(33),
  ];
  return prompts.map((promptIds, index) => ({
    promptIds,
    maxTokens: 34 + index * 3,
    promptLogprobs: index === 4 ? 1 : -1,
    sampling: { logprobs: 5, temperature: index % 2, seed: BigInt(index) },
  }));
}

interface Served {
  readonly tokenIds: number[];
  readonly logprobs: (TokenLogprobs | undefined)[];
  readonly prompt: readonly (TokenLogprobs | null)[] | undefined;
  readonly cachedTokens: number;
}

interface Outcome {
  readonly served: Served[];
  readonly stats: EngineStats;
}

type Serve = (
  overrides: Partial<EngineOptions>,
  rounds?: number,
  inTurn?: boolean,
) => Promise<Outcome>;

async function serveAll(
  options: EngineOptions,
  work: readonly RequestOptions[],
  rounds: number,
  inTurn: boolean,
): Promise<Outcome> {
  const engine = createEngine(options);
  const serve = async (request: RequestOptions): Promise<Served> => {
    const events = await collect(engine.submit(requestOf(request), new AbortController().signal));
    const end = events.at(-1)!;
    assert.ok(end.type === 'end', String(end.type === 'error' && end.error.cause));
    const tokens = events.flatMap((event) => (event.type === 'token' ? [event] : []));
    return {
      tokenIds: tokens.map(({ tokenId }) => tokenId),
      logprobs: tokens.map(({ logprobs }) => logprobs),
      prompt: events.find((event) => event.type === 'promptLogprobs')?.logprobs,
      cachedTokens: end.usage.cachedTokens,
    };
  };
  let served: Served[] = [];
  for (let round = 0; round < rounds; round++) {
    served = [];
    if (inTurn) for (const request of work) served.push(await serve(request));
    else served = await Promise.all(work.map(serve));
  }
  await engine.drain(0);
  const stats = engine.stats();
  assert.deepEqual([stats.running, stats.waiting, stats.blocksUsed], [0, 0, 0]);
  return { served, stats };
}

async function withModel(
  backend: Backend,
  computeType: ComputeType,
  work: readonly RequestOptions[],
  use: (serve: Serve, team: Runner) => Promise<void>,
): Promise<void> {
  const { program } = buildProgram(await openCheckpoint(golden.checkpointPath), {
    validTokenCount: golden.validIds,
    part: 'language_model',
  });
  const loaded = await backend.load(program, {
    cache: { blockSize: BLOCK_SIZE, blockCount: BLOCK_COUNT },
    computeType,
    maxTokens: 256,
    maxSequences: 8,
    maxPositions: 128,
    poison: true,
  });
  const team = loaded.createRunner({ threads: 2 });
  const soloists = Array.from({ length: LANES }, () => loaded.createRunner({ threads: 1 }));
  try {
    await use((overrides, rounds = 1, inTurn = false) => {
      const forwards = overrides.mode === 'Threads' ? soloists : [team];
      return serveAll({ ...ENGINE_OPTIONS, forwards, ...overrides }, work, rounds, inTurn);
    }, team);
  } finally {
    await Promise.all([team, ...soloists].map((runner) => runner.close()));
    await loaded.close();
  }
}

function assertSameBits({ served }: Outcome, { served: alone }: Outcome, how: string): void {
  const bits = (results: readonly Served[]) =>
    results.map(({ cachedTokens: _, ...result }) => result);
  assert.deepStrictEqual(bits(served), bits(alone), how);
}

const subjects = testBackends().flatMap(({ name, create, skip }) => {
  const types: readonly ComputeType[] =
    name === 'reference' ? ['float32'] : ['float32', 'bfloat16'];
  return types.map((computeType) => ({ name, create, skip, computeType }));
});

for (const { name, create, skip, computeType } of subjects) {
  test(`${name}, ${computeType}: every mode, chunk size, cache hit and preemption gives the log-probabilities of a request alone, bit for bit`, {
    skip,
  }, async (context) => {
    const seed = 20_241;
    context.diagnostic(`seed ${seed}`);
    const work = makeWork(seed);
    await withModel(create(), computeType, work, async (serve) => {
      const alone = await serve({ mode: 'Sequential', maxBatchedTokens: 256 }, 1, true);
      assert.deepEqual(
        alone.served.map(({ tokenIds }) => tokenIds.length),
        work.map(({ maxTokens }) => maxTokens),
      );
      assert.ok(alone.served[0]!.logprobs.every((one) => one!.top.length === 5));
      for (const mode of ['Continuous', 'Sequential', 'Static', 'Threads'] as const) {
        for (const maxBatchedTokens of [5, 23, 256]) {
          assertSameBits(
            await serve({ mode, maxBatchedTokens }),
            alone,
            `${mode}, ${maxBatchedTokens} tokens a step`,
          );
        }
        const again = await serve({ mode, prefixCaching: true }, 2);
        assertSameBits(again, alone, `${mode}, prompts found in the cache`);
        assert.equal(again.served[2]!.cachedTokens, 64);
        // Eight blocks: one prompt and its output take up to seven.
        const tiny = await serve({ mode, blockCount: 9, prefixCaching: true });
        assertSameBits(tiny, alone, `${mode}, a tiny cache`);
        if (mode === 'Continuous') assert.ok(tiny.stats.preemptions > 0, 'nothing was preempted');
      }
    });
  });
}

for (const { name, create, skip } of testBackends()) {
  test(`${name}: a runner that is closed under its engine ends every request in an error, and later ones too`, {
    skip,
  }, async () => {
    const work = makeWork(1);
    await withModel(create(), 'float32', work, async (_, team) => {
      const engine = createEngine({ ...ENGINE_OPTIONS, forwards: [team] });
      const errorOf = async (request: RequestOptions) => {
        const { signal } = new AbortController();
        const last = (await collect(engine.submit(requestOf(request), signal))).at(-1)!;
        assert.ok(last.type === 'error', last.type);
        assert.equal((last.error.cause as { code: string }).code, 'KERNEL_CLOSED');
        return last.error.code;
      };
      const outcomes = work.map(errorOf);
      await new Promise<void>((resolve) => {
        engine.onStep(({ tokens }) => tokens <= work.length && resolve());
      });
      await team.close();
      for (const outcome of outcomes) assert.equal(await outcome, 'internal_error');
      assert.equal(await errorOf(work[0]!), 'internal_error');
      await engine.drain(0);
      assert.equal(engine.stats().blocksUsed, 0);
    });
  });
}
