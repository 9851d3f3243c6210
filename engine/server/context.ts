/** What every route and socket of one server shares. */
import type { Logger } from 'pino';
import type { GenerationEngine } from '#engine/scheduler/request.ts';
import type { ChatTemplate, Tokenizer } from '#engine/tokenizer/tokenizer.ts';
import type { ImageReader } from '#engine/vision/image-reader.ts';
import type { ServerMetrics } from './metrics.ts';
import type { ServerOptions } from './options.ts';
import type { ResponseStore } from './response-store.ts';
import type { Turns } from './turns.ts';

/** The model's own sampling habits, from its generation config. */
export interface SamplingDefaults {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
}

export interface ServedModel {
  /** As listed by /v1/models; requests must name it, or one of the aliases, or none. */
  readonly name: string;
  readonly aliases: readonly string[];
  /** Unix seconds. */
  readonly createdAt: number;
  readonly eosTokenIds: readonly number[];
  readonly defaults: SamplingDefaults;
  readonly version: string;
}

export interface ServerContext {
  readonly engine: GenerationEngine;
  readonly tokenizer: Tokenizer;
  readonly chatTemplate: ChatTemplate;
  /** Absent when the model reads text only. */
  readonly images?: ImageReader;
  readonly model: ServedModel;
  readonly options: ServerOptions;
  readonly logger: Logger;
  readonly metrics: ServerMetrics;
  readonly store: ResponseStore;
  /** Taken before a request is rendered, tokenised and submitted. */
  readonly turns: Turns;
  /** True from the first signal to stop. */
  readonly isClosing: () => boolean;
}

/** Which request a generation belongs to, for its log line. */
export interface RequestIdentity {
  readonly requestId: string;
  readonly route: string;
  readonly stream: boolean;
}
