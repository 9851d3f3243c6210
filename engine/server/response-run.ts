/** One response from creation to its last event: runs the generation and keeps its numbered, encoded events. */
import { randomBytes } from 'node:crypto';
import { NvlmError } from '#engine/protocol/errors.ts';
import type {
  LifecycleType,
  LogprobItem,
  OutputMessage,
  OutputText,
  ResponseObject,
  ResponseStatus,
  ResponseUsage,
} from '#engine/protocol/responses-event.ts';
import type { ResponsesRequest } from '#engine/protocol/responses-request.ts';
import type { GenerationUsage } from '#engine/scheduler/request.ts';
import type { RequestIdentity, ServerContext } from './context.ts';
import { generationRequest } from './generation-request.ts';
import { logprobItems, type TokenName, tokenNamer } from './logprobs.ts';
import type { Conversation, ResponsePrompt } from './response-prompt.ts';
import { type GenerationEnd, streamText, type TextEvent } from './text-stream.ts';

const PROGRESS_INTERVAL_MS = 1000;

export const newId = (prefix: string): string => `${prefix}_${randomBytes(16).toString('hex')}`;

const nowSeconds = (): number => Math.floor(Date.now() / 1000);

export interface RunSettings {
  readonly request: ResponsesRequest;
  readonly prompt: ResponsePrompt;
  readonly identity: RequestIdentity;
  /** false: prompt only. */
  readonly generate: boolean;
}

export class ResponseRun {
  readonly id = newId('resp');
  readonly background: boolean;
  readonly prompt: ResponsePrompt;
  /** Resolves after the last event. Never rejects. */
  readonly done: Promise<void>;
  readonly #context: ServerContext;
  readonly #request: ResponsesRequest;
  readonly #generate: boolean;
  readonly #itemId = newId('msg');
  readonly #createdAt = nowSeconds();
  readonly #abort = new AbortController();
  readonly #tokenName: TokenName;
  /** JSON of each event; the index is its sequence_number. */
  readonly #events: string[] = [];
  #eventBytes = 0;
  #appended = Promise.withResolvers<void>();
  #flow: Promise<void> | undefined;
  #status: ResponseStatus = 'in_progress';
  #completedAt: number | null = null;
  #text = '';
  #tokenIds: number[] = [];
  #logprobs: LogprobItem[] = [];
  #usage: ResponseUsage | null = null;
  #error: { readonly code: string; readonly message: string } | null = null;
  #httpError: NvlmError | undefined;
  #cutBy: NvlmError | undefined;
  #end: GenerationEnd | undefined;
  #lastProgressAt = Number.NEGATIVE_INFINITY;
  #prefillStartedAt: number | undefined;

  /** Submits at once. Throws what the request or the engine's queue refuses; nothing was kept then. */
  constructor(context: ServerContext, settings: RunSettings) {
    const { request, prompt, generate } = settings;
    this.#context = context;
    this.#request = request;
    this.prompt = prompt;
    this.#generate = generate;
    this.background = request.background ?? false;
    this.#tokenName = tokenNamer(context.tokenizer, false);
    const wantsLogprobs = request.include?.logprobs === true || request.top_logprobs !== undefined;
    const wishes = {
      id: this.id,
      promptIds: prompt.ids,
      images: prompt.images,
      maxTokens: prompt.maxTokens,
      logprobs: wantsLogprobs ? (request.top_logprobs ?? 0) : -1,
      promptLogprobs: -1,
      index: 0,
    };
    const fields = generate ? request : { ...request, min_tokens: undefined };
    const stream = streamText(
      context,
      generationRequest(context, fields, wishes),
      request,
      settings.identity,
      this.#abort.signal,
    );
    context.metrics.countCompletions(1);
    this.done = this.#run(stream);
  }

  get isFinished(): boolean {
    return this.#status !== 'in_progress' && this.#status !== 'queued';
  }

  get status(): ResponseStatus {
    return this.#status;
  }

  /** The error a client that waits for the whole response gets; undefined unless it failed. */
  get failure(): NvlmError | undefined {
    return this.#httpError;
  }

  get isStored(): boolean {
    return this.#request.store ?? true;
  }

  get eventCount(): number {
    return this.#events.length;
  }

  event(sequenceNumber: number): string {
    return this.#events[sequenceNumber]!;
  }

  /** Resolves when one more event is there, or when there will be none. */
  nextEvent(): Promise<void> {
    return this.#appended.promise;
  }

  /** About what the response holds in memory. */
  get byteSize(): number {
    const ids = this.prompt.ids.length + this.#tokenIds.length;
    const pictures = this.prompt.messages.flatMap(({ images = [] }) => images);
    const pictureBytes = pictures.reduce((sum, { url }) => sum + url.length, 0);
    const textBytes = this.prompt.text.length + 3 * this.#text.length;
    return this.#eventBytes + 8 * ids + textBytes + pictureBytes + 2048;
  }

  /** No further token is pulled from the engine until the promise settles: its reader is behind. */
  holdUntil(drained: Promise<void>): void {
    const settled = drained.then(
      () => undefined,
      () => undefined,
    );
    this.#flow = settled;
  }

  /** Ends it as cancelled, or as failed with the error that cut it. Without effect once finished. */
  cancel(error?: NvlmError): void {
    this.#cutBy ??= error;
    this.#flow = undefined;
    this.#abort.abort();
  }

  /** What the next response of the conversation starts from. */
  conversation(): Conversation {
    const messages = this.#generate
      ? [...this.prompt.messages, { role: 'assistant', content: this.#text }]
      : this.prompt.messages;
    // A stop string was cut off the text but not off the ids, a skipped special token the other way round.
    const { tokenizer, model } = this.#context;
    const endings = new Set([...model.eosTokenIds, ...(this.#request.stop_token_ids ?? [])]);
    const last = this.#tokenIds.at(-1);
    const spoken =
      last !== undefined && endings.has(last) ? this.#tokenIds.slice(0, -1) : this.#tokenIds;
    const isExact = tokenizer.decode(spoken, { skipSpecialTokens: false }) === this.#text;
    return isExact
      ? { messages, text: this.prompt.text + this.#text, ids: [...this.prompt.ids, ...spoken] }
      : { messages, text: '', ids: [] };
  }

  snapshot(): ResponseObject {
    const request = this.#request;
    const { model } = this.#context;
    return {
      id: this.id,
      object: 'response',
      created_at: this.#createdAt,
      completed_at: this.#completedAt,
      status: this.#status,
      access_programs: null,
      background: this.background,
      error: this.#error,
      incomplete_details:
        this.#status === 'incomplete' ? { reason: 'max_output_tokens' as const } : null,
      instructions: request.instructions ?? null,
      max_output_tokens: request.max_output_tokens ?? null,
      metadata: request.metadata ?? {},
      model: model.name,
      output: this.#end === undefined || !this.#generate ? [] : [this.#item()],
      parallel_tool_calls: false,
      previous_response_id: request.previous_response_id ?? null,
      store: this.isStored,
      temperature: request.temperature ?? model.defaults.temperature,
      text: { format: { type: 'text' } },
      tool_choice: 'none',
      tools: [],
      top_logprobs: request.top_logprobs ?? 0,
      top_p: request.top_p ?? model.defaults.topP,
      truncation: 'disabled',
      usage: this.#usage,
      ...(request.return_token_ids === true
        ? { prompt_token_ids: this.prompt.ids, token_ids: this.#tokenIds }
        : {}),
    };
  }

  async #run(stream: AsyncGenerator<TextEvent, void>): Promise<void> {
    this.#lifecycle('response.created');
    try {
      for await (const event of stream) {
        this.#apply(event);
        while (this.#flow !== undefined) {
          const flow = this.#flow;
          await flow;
          if (this.#flow === flow) this.#flow = undefined;
        }
      }
    } catch (cause) {
      this.#context.logger.error({ err: cause, responseId: this.id }, 'response failed');
      this.#fail(new NvlmError('internal_error', 'the server failed', { cause }));
    }
    this.#appended.resolve();
  }

  #apply(event: TextEvent): void {
    switch (event.type) {
      case 'queued':
        if (this.#status !== 'queued' && this.#events.length === 1) {
          this.#status = 'queued';
          this.#lifecycle('response.queued');
        }
        this.#progress('queued', event.position, null, this.#queueEta(event.position));
        break;
      case 'prefill':
        this.#start();
        this.#prefillProgress(event.computedTokens, event.promptTokens);
        break;
      case 'delta':
        this.#start();
        this.#delta(event.text, event.tokens);
        break;
      case 'end':
        this.#start();
        this.#finish(event);
        break;
      case 'error':
        this.#setUsage(event.usage);
        this.#fail(this.#cutBy ?? event.error);
        break;
      case 'promptLogprobs':
        break;
    }
  }

  #isStarted = false;

  #start(): void {
    if (this.#isStarted) return;
    this.#isStarted = true;
    this.#status = 'in_progress';
    this.#lifecycle('response.in_progress');
    if (!this.#generate) return;
    this.#emit('response.output_item.added', { output_index: 0, item: this.#item() });
    this.#emit('response.content_part.added', { ...this.#place(), part: this.#part() });
  }

  #delta(text: string, tokens: readonly { readonly tokenId: number }[]): void {
    for (const token of tokens) this.#tokenIds.push(token.tokenId);
    this.#text += text;
    const items = logprobItems(this.#context.tokenizer, tokens as never, this.#tokenName);
    for (const item of items) this.#logprobs.push(item);
    if (text === '' && items.length === 0 && this.#request.return_token_ids !== true) return;
    // The hot path: one event a token, so only what varies is encoded.
    const ids =
      this.#request.return_token_ids === true
        ? `,"token_ids":${JSON.stringify(tokens.map((token) => token.tokenId))}`
        : '';
    const logprobs = items.length === 0 ? '[]' : JSON.stringify(items);
    this.#append(
      `{"type":"response.output_text.delta","item_id":"${this.#itemId}","output_index":0,"content_index":0,` +
        `"delta":${JSON.stringify(text)},"logprobs":${logprobs}${ids},"sequence_number":${this.#events.length}}`,
    );
  }

  #finish(end: GenerationEnd): void {
    this.#setUsage(end.usage);
    this.#end = end;
    if (end.reason === 'abort' && this.#cutBy !== undefined) {
      this.#fail(this.#cutBy);
      return;
    }
    const isWhole = end.reason === 'stop' || !this.#generate;
    this.#status = end.reason === 'abort' ? 'cancelled' : isWhole ? 'completed' : 'incomplete';
    this.#completedAt = nowSeconds();
    if (this.#generate) {
      this.#emit('response.output_text.done', {
        ...this.#place(),
        text: this.#text,
        logprobs: this.#logprobs,
      });
      this.#emit('response.content_part.done', { ...this.#place(), part: this.#part() });
      this.#emit('response.output_item.done', { output_index: 0, item: this.#item() });
    }
    // The clients know three terminal events and none for "cancelled": the status tells it apart.
    this.#lifecycle(
      isWhole && end.reason !== 'abort' ? 'response.completed' : 'response.incomplete',
    );
  }

  #fail(error: NvlmError): void {
    this.#status = 'failed';
    this.#completedAt = nowSeconds();
    this.#error = { code: error.code, message: error.message };
    this.#httpError = error;
    this.#context.metrics.countError(error.code);
    this.#lifecycle('response.failed');
  }

  #setUsage(usage: GenerationUsage): void {
    this.#usage = {
      input_tokens: usage.promptTokens,
      input_tokens_details: { cached_tokens: usage.cachedTokens, cache_write_tokens: 0 },
      output_tokens: usage.generatedTokens,
      output_tokens_details: { reasoning_tokens: 0 },
      total_tokens: usage.promptTokens + usage.generatedTokens,
    };
  }

  #queueEta(position: number): number | null {
    return this.#context.metrics.queueEtaSeconds(position) ?? null;
  }

  #prefillProgress(computed: number, total: number): void {
    const now = performance.now();
    this.#prefillStartedAt ??= now;
    if (computed === 0 || computed >= total) return;
    const elapsed = now - this.#prefillStartedAt;
    const eta = elapsed === 0 ? null : (elapsed / computed) * ((total - computed) / 1000);
    this.#progress('prefill', null, Math.floor((100 * computed) / total), eta);
  }

  #progress(
    phase: 'queued' | 'prefill',
    position: number | null,
    percent: number | null,
    etaSeconds: number | null,
  ): void {
    const now = performance.now();
    if (now - this.#lastProgressAt < PROGRESS_INTERVAL_MS) return;
    this.#lastProgressAt = now;
    const eta = etaSeconds === null ? null : Math.round(10 * etaSeconds) / 10;
    this.#emit('nvlm.progress', {
      response_id: this.id,
      phase,
      position,
      percent,
      eta_seconds: eta,
    });
  }

  #place() {
    return { item_id: this.#itemId, output_index: 0, content_index: 0 };
  }

  #part(): OutputText {
    return { type: 'output_text', text: this.#text, annotations: [], logprobs: this.#logprobs };
  }

  #item(): OutputMessage {
    const status =
      this.#status === 'completed'
        ? 'completed'
        : this.isFinished
          ? 'incomplete'
          : ('in_progress' as const);
    const content = this.#end === undefined ? [] : [this.#part()];
    return { id: this.#itemId, type: 'message', role: 'assistant', status, content };
  }

  #lifecycle(type: LifecycleType): void {
    this.#emit(type, { response: this.snapshot() });
  }

  #emit(type: string, fields: Readonly<Record<string, unknown>>): void {
    this.#append(JSON.stringify({ type, ...fields, sequence_number: this.#events.length }));
  }

  #append(json: string): void {
    this.#events.push(json);
    this.#eventBytes += json.length;
    const appended = this.#appended;
    this.#appended = Promise.withResolvers<void>();
    appended.resolve();
  }
}
