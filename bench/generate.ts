/** Runs generation requests against an engine in this process and measures them. */
import {
  type GenerationEngine,
  type GenerationRequest,
  GREEDY,
} from '#engine/scheduler/request.ts';
import { mean, median } from './statistics.ts';

/** A greedy request that ignores end of sequence. Each gets a cache salt of its own: no run profits from another's prefix. */
export function benchRequest(
  id: string,
  promptIds: readonly number[],
  maxTokens: number,
): GenerationRequest {
  return {
    id,
    promptIds: Int32Array.from(promptIds),
    maxTokens,
    minTokens: 0,
    eosTokenIds: [],
    stopTokenIds: [],
    sampling: GREEDY,
    promptLogprobs: -1,
    priority: 0,
    cacheSalt: id,
  };
}

export interface Measured {
  readonly tokenIds: readonly number[];
  readonly timeToFirstTokenMs: number;
  /** Mean time between tokens after the first. */
  readonly timePerOutputTokenMs: number;
}

/** A request, or what makes one: that takes time then, which counts. */
export type PreparedRequest = GenerationRequest | (() => Promise<GenerationRequest>);

async function measure(engine: GenerationEngine, prepared: PreparedRequest): Promise<Measured> {
  const startedAt = performance.now();
  const request = typeof prepared === 'function' ? await prepared() : prepared;
  let firstAt = Number.NaN;
  let lastAt = Number.NaN;
  const tokenIds: number[] = [];
  for await (const event of engine.submit(request, new AbortController().signal)) {
    if (event.type === 'token') {
      lastAt = performance.now();
      if (tokenIds.length === 0) firstAt = lastAt;
      tokenIds.push(event.tokenId);
    } else if (event.type === 'error') throw event.error;
  }
  return {
    tokenIds,
    timeToFirstTokenMs: firstAt - startedAt,
    timePerOutputTokenMs:
      tokenIds.length > 1 ? (lastAt - firstAt) / (tokenIds.length - 1) : Number.NaN,
  };
}

export interface RunFigures {
  readonly seconds: number;
  readonly timeToFirstTokenMs: number;
  readonly timePerOutputTokenMs: number;
  readonly tokenIds: readonly (readonly number[])[];
}

/** All requests at once; ends when the last has ended. */
export async function runTogether(
  engine: GenerationEngine,
  requests: readonly PreparedRequest[],
): Promise<RunFigures> {
  const startedAt = performance.now();
  const results = await Promise.all(requests.map((request) => measure(engine, request)));
  const seconds = (performance.now() - startedAt) / 1000;
  return {
    seconds,
    timeToFirstTokenMs: mean(results.map((result) => result.timeToFirstTokenMs)),
    timePerOutputTokenMs: median(results.map((result) => result.timePerOutputTokenMs)),
    tokenIds: results.map((result) => result.tokenIds),
  };
}
