/** What the server hands to the engine and what comes back, token by token. Knows no wire format and no text. */
import type { NvlmError } from '#engine/protocol/errors.ts';

export interface SamplingParameters {
  /** 0: greedy. */
  readonly temperature: number;
  /** 0: off. */
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  /** 64 bits; drawn by the server when the client gives none. */
  readonly seed: bigint;
  readonly logitBias: ReadonlyMap<number, number>;
  /** Only these ids may be drawn; undefined: all. */
  readonly allowedTokenIds: readonly number[] | undefined;
  /** Token id sequences that must not be completed. */
  readonly badWords: readonly (readonly number[])[];
  /** -1: none; 0: the drawn token's log-probability; n: and the n best. */
  readonly logprobs: number;
}

/** The likeliest token at each step, nothing banned or weighed. */
export const GREEDY: SamplingParameters = {
  temperature: 0,
  topK: 0,
  topP: 1,
  minP: 0,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  seed: 0n,
  logitBias: new Map(),
  allowedTokenIds: undefined,
  badWords: [],
  logprobs: -1,
};

/** A picture of a prompt: embeddings that take the place of those of its context tokens. */
export interface PromptImage {
  /** Names its pixels and how they were cut into tiles; what the prefix cache knows it by. */
  readonly digest: string;
  /** Indices of its context tokens in the prompt, ascending. */
  readonly positions: Int32Array;
  /** (positions.length, hidden size); not changed while the request lives. */
  readonly embeddings: Float32Array;
}

export interface GenerationRequest {
  readonly id: string;
  readonly promptIds: Int32Array;
  /** In the order of the prompt; only for models that take them. */
  readonly images?: readonly PromptImage[];
  /** 0 computes the prompt only (warm-up of the prefix cache). */
  readonly maxTokens: number;
  /** End-of-sequence and stop ids are banned until this many tokens are out. */
  readonly minTokens: number;
  /** Ends with reason 'stop', stopReason null. Empty when the client ignores end of sequence. */
  readonly eosTokenIds: readonly number[];
  /** The client's own stop ids: reason 'stop', stopReason the id. */
  readonly stopTokenIds: readonly number[];
  readonly sampling: SamplingParameters;
  /** -1: none; n: log-probabilities of each prompt token and the n best (skips prefix-cache reads). */
  readonly promptLogprobs: number;
  /** Lower runs first; equal: first come, first served. */
  readonly priority: number;
  /** Isolates the prefix cache between tenants. */
  readonly cacheSalt: string | undefined;
  /** Of the server itself: no figure counts it, because nobody asked. */
  readonly isProbe?: boolean;
}

export interface TokenLogprobs {
  readonly logprob: number;
  readonly top: readonly { readonly tokenId: number; readonly logprob: number }[];
}

export interface GenerationUsage {
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly generatedTokens: number;
}

/** Durations in milliseconds, undefined where the phase was not reached. */
export interface GenerationTimings {
  readonly queuedMs: number;
  readonly prefillMs: number | undefined;
  readonly decodeMs: number | undefined;
  readonly timeToFirstTokenMs: number | undefined;
  readonly preemptions: number;
}

export type GenerationEvent =
  /** While waiting: at once when queued, then when the position changes, at most once a second. */
  | { readonly type: 'queued'; readonly position: number; readonly waiting: number }
  /** First scheduled; also after each prefill chunk of a long prompt. */
  | { readonly type: 'prefill'; readonly computedTokens: number; readonly promptTokens: number }
  | { readonly type: 'promptLogprobs'; readonly logprobs: readonly (TokenLogprobs | null)[] }
  | {
      readonly type: 'token';
      readonly tokenId: number;
      readonly logprobs: TokenLogprobs | undefined;
    }
  /** Terminal. The stop token itself, when there is one, came as a 'token' before. */
  | {
      readonly type: 'end';
      readonly reason: 'stop' | 'length' | 'abort';
      readonly stopReason: number | null;
      readonly usage: GenerationUsage;
      readonly timings: GenerationTimings;
    }
  /** Terminal. */
  | {
      readonly type: 'error';
      readonly error: NvlmError;
      readonly usage: GenerationUsage;
      readonly timings: GenerationTimings;
    };

/** Live figures for /metrics, /readyz and the dashboard. Counters only grow. */
export interface EngineStats {
  readonly running: number;
  readonly waiting: number;
  readonly blocksTotal: number;
  readonly blocksUsed: number;
  readonly prefixCacheQueriedTokens: number;
  readonly prefixCacheHitTokens: number;
  readonly preemptions: number;
  readonly promptTokens: number;
  readonly generatedTokens: number;
  readonly steps: number;
  /** performance.now() of the last finished step; 0 before the first. */
  readonly lastStepAt: number;
}

/** Seen by the server. Implemented by engine/scheduler/engine.ts. */
export interface GenerationEngine {
  readonly maxModelLength: number;
  /**
   * Queues a request. Throws NvlmError 'queue_full' | 'shutting_down' | 'context_length_exceeded' at once; everything later
   * arrives as an event. The stream ends after exactly one terminal event. Aborting the signal, or returning from the
   * iteration early, frees the request's blocks within one step. A reader that leaves more than `maxUnreadTokens` events
   * unread pauses its own sequence, and is cut with 'slow_reader' after `slowReaderTimeoutMs`.
   */
  submit(request: GenerationRequest, signal: AbortSignal): AsyncIterable<GenerationEvent>;
  stats(): EngineStats;
  /** Called after every step with its size and duration, for histograms. */
  onStep(
    listener: (step: {
      readonly tokens: number;
      readonly sequences: number;
      readonly durationMs: number;
    }) => void,
  ): void;
  /** Stops accepting, waits for running requests up to the timeout, aborts the rest. */
  drain(timeoutMs: number): Promise<void>;
  resetPrefixCache(): void;
}
