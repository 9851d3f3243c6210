/** Engines over the fake model, requests with defaults, and the tokens that a request must get whatever runs beside it. */
import type { Forward } from '#engine/model/forward.ts';
import { createEngine, type EngineOptions } from '#engine/scheduler/engine.ts';
import {
  type GenerationEngine,
  type GenerationEvent,
  type GenerationRequest,
  GREEDY,
  type SamplingParameters,
} from '#engine/scheduler/request.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { FakeCache, FakeForward, nextFakeToken } from '../../support/fake-forward.ts';

export const VOCABULARY = 50;

export interface RequestOptions extends Partial<Omit<GenerationRequest, 'promptIds' | 'sampling'>> {
  readonly promptIds: readonly number[];
  readonly sampling?: Partial<SamplingParameters>;
}

export function requestOf({ promptIds, sampling, ...rest }: RequestOptions): GenerationRequest {
  return {
    id: 'request',
    promptIds: Int32Array.from(promptIds),
    maxTokens: 8,
    minTokens: 0,
    eosTokenIds: [],
    stopTokenIds: [],
    promptLogprobs: -1,
    priority: 0,
    cacheSalt: undefined,
    ...rest,
    sampling: { ...GREEDY, ...sampling },
  };
}

export const defaultEngineOptions = {
  mode: 'Continuous',
  maxSequences: 4,
  maxBatchedTokens: 16,
  maxModelLength: 64,
  blockSize: 4,
  blockCount: 65,
  vocabularyRows: VOCABULARY,
  maxQueuedRequests: 100,
  queueTimeoutMs: 0,
  prefixCaching: true,
  staticWindowMs: 10,
  slowReaderTimeoutMs: 1000,
  maxUnreadTokens: 10_000,
} as const satisfies Omit<EngineOptions, 'forwards'>;

export interface FakeEngine {
  readonly engine: GenerationEngine;
  readonly forwards: readonly FakeForward[];
  readonly clock: FakeClock;
  readonly options: EngineOptions;
}

export function fakeEngine(
  overrides: Partial<EngineOptions> & { readonly lanes?: number } = {},
): FakeEngine {
  const { lanes = 1, ...rest } = overrides;
  const merged = { ...defaultEngineOptions, ...rest };
  const cache = new FakeCache(merged.blockSize, merged.blockCount);
  const forwards = Array.from({ length: lanes }, () => new FakeForward(cache, VOCABULARY));
  const clock = new FakeClock();
  const options = {
    forwards: forwards as readonly Forward[],
    now: clock.now,
    setTimer: clock.setTimer,
    ...merged,
  };
  return { engine: createEngine(options), forwards, clock, options };
}

/** Every event up to the end of the stream. */
export async function collect(stream: AsyncIterable<GenerationEvent>): Promise<GenerationEvent[]> {
  const events: GenerationEvent[] = [];
  for await (const event of stream) events.push(event);
  return events;
}

export function run(engine: GenerationEngine, options: RequestOptions): Promise<GenerationEvent[]> {
  return collect(engine.submit(requestOf(options), new AbortController().signal));
}

export function tokensOf(events: readonly GenerationEvent[]): number[] {
  return events.flatMap((event) => (event.type === 'token' ? [event.tokenId] : []));
}

export function isTerminal({ type }: GenerationEvent): boolean {
  return type === 'end' || type === 'error';
}

/** Runs tasks and timers until `isDone`; time passes a little with each turn. Throws when nothing more happens. */
export async function turnUntil(clock: FakeClock, isDone: () => boolean, turns = 20_000) {
  for (let turn = 0; !isDone(); turn++) {
    if (turn === turns) throw new Error(`not done after ${turns} turns of the event loop`);
    await new Promise((resolve) => setImmediate(resolve));
    clock.advance(1);
  }
}

export interface Expected {
  readonly tokens: readonly number[];
  readonly reason: 'stop' | 'length';
  readonly stopReason: number | null;
}

/** What the fake model gives a request that is served to its end, written down without blocks, steps or batches. */
export function expectedOutput(request: GenerationRequest, maxModelLength: number): Expected {
  const { maxTokens, minTokens, eosTokenIds, stopTokenIds, sampling } = request;
  const known = [...request.promptIds];
  const tokens: number[] = [];
  const seed = sampling.temperature > 0 ? Number(BigInt.asUintN(32, sampling.seed)) : 0;
  while (tokens.length < maxTokens) {
    let token = nextFakeToken(known, VOCABULARY, seed);
    const isBanned = (id: number) =>
      tokens.length < minTokens && (eosTokenIds.includes(id) || stopTokenIds.includes(id));
    while (isBanned(token)) token = (token + 1) % VOCABULARY;
    known.push(token);
    tokens.push(token);
    if (eosTokenIds.includes(token)) return { tokens, reason: 'stop', stopReason: null };
    if (stopTokenIds.includes(token)) return { tokens, reason: 'stop', stopReason: token };
    if (known.length >= maxModelLength) break;
  }
  return { tokens, reason: 'length', stopReason: null };
}
