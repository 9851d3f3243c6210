/** One answer after the other over the Responses API in WebSocket mode. */
import { on } from 'node:events';
import { WebSocket } from 'ws';
import type { ResponseObject, ResponsesEvent } from '../protocol/responses-event.ts';
import { ChatError } from './chat-error.ts';

export interface Message {
  readonly role: 'user' | 'assistant';
  readonly content: string;
}

export interface AnswerSettings {
  readonly maxTokens: number | undefined;
  readonly temperature: number | undefined;
  readonly topP: number | undefined;
  readonly seed: number | undefined;
}

export interface Question {
  /** All that the engine does not remember by `previousResponseId`. */
  readonly messages: readonly Message[];
  readonly system: string | undefined;
  readonly previousResponseId: string | undefined;
}

export type AnswerEvent =
  /** While it waits: requests ahead, or the percentage of the prompt that was read. */
  | { readonly type: 'waiting'; readonly position: number | null; readonly percent: number | null }
  | { readonly type: 'text'; readonly text: string }
  /** Last. */
  | {
      readonly type: 'end';
      readonly responseId: string;
      readonly reason: 'completed' | 'cancelled' | 'length';
      readonly outputTokens: number;
    };

/** http://host:port, with or without /v1 -> ws://host:port/v1/responses. Throws ChatError for anything else. */
export function socketUrl(url: string): string {
  const parsed = URL.parse(url);
  if (parsed === null || !/^(?:https?|wss?):$/.test(parsed.protocol)) {
    throw new ChatError('invalid_url', `--url: expected http://HOST:PORT, got '${url}'`);
  }
  const path = parsed.pathname.replace(/\/+$/, '').replace(/\/v1(?:\/responses)?$/, '');
  return `${parsed.protocol.replace('http', 'ws')}//${parsed.host}${path}/v1/responses`;
}

export class ResponsesClient {
  readonly #url: string;
  readonly #apiKey: string | undefined;
  readonly #settings: AnswerSettings;
  #socket: WebSocket | undefined;
  #frames: AsyncIterator<unknown[]> | undefined;
  #runningId: string | undefined;
  #isCancelWanted = false;

  /** Connects with the first question, or by `connect`. */
  constructor(url: string, apiKey: string | undefined, settings: AnswerSettings) {
    this.#url = socketUrl(url);
    this.#apiKey = apiKey;
    this.#settings = settings;
  }

  /** Throws ChatError 'connection_refused'. */
  async connect(): Promise<void> {
    if (this.#socket?.readyState === WebSocket.OPEN) return;
    const headers = this.#apiKey === undefined ? {} : { authorization: `Bearer ${this.#apiKey}` };
    const socket = new WebSocket(this.#url, { headers });
    await new Promise<void>((resolve, reject) => {
      socket.once('open', resolve);
      socket.once('error', (error: Error) => {
        const hint = /\b401\b/.test(error.message)
          ? 'the key is missing or wrong; pass --api-key'
          : 'start an engine there with npm run serve, or leave --url out';
        reject(
          new ChatError(
            'connection_refused',
            `cannot talk to ${this.#url}: ${reasonOf(error)}; ${hint}`,
          ),
        );
      });
    });
    // An error is always followed by a close, which ends the frames.
    socket.on('error', () => {});
    this.#socket = socket;
    this.#frames = on(socket, 'message', { close: ['close'] })[Symbol.asyncIterator]();
  }

  /** Throws ChatError with the engine's code, or 'connection_lost'. One at a time. */
  async *answer(question: Question): AsyncGenerator<AnswerEvent, void> {
    await this.connect();
    this.#isCancelWanted = false;
    this.#send({
      type: 'response.create',
      input: question.messages.map((message) => ({ type: 'message', ...message })),
      instructions: question.system,
      previous_response_id: question.previousResponseId,
      max_output_tokens: this.#settings.maxTokens,
      temperature: this.#settings.temperature,
      top_p: this.#settings.topP,
      seed: this.#settings.seed,
    });
    try {
      for (;;) {
        const event = await this.#nextEvent();
        if ('response' in event && this.#runningId === undefined) {
          this.#runningId = event.response.id;
          if (this.#isCancelWanted) this.cancel();
        }
        const told = toAnswerEvent(event);
        if (told !== undefined) yield told;
        if (told?.type === 'end') return;
      }
    } finally {
      this.#runningId = undefined;
    }
  }

  /** The running answer ends as 'cancelled', as soon as the engine hears it. */
  cancel(): void {
    this.#isCancelWanted = true;
    if (this.#runningId === undefined) return;
    this.#send({ type: 'response.cancel', response_id: this.#runningId });
  }

  close(): void {
    const socket = this.#socket;
    socket?.close();
    // An engine that no longer answers must not keep the chat from ending.
    setTimeout(() => socket?.terminate(), 1000).unref();
  }

  #send(frame: object): void {
    this.#socket?.send(JSON.stringify(frame));
  }

  async #nextEvent(): Promise<ResponsesEvent> {
    const next = await this.#frames?.next();
    if (next === undefined || next.done === true) {
      throw new ChatError('connection_lost', 'the connection to the engine was lost');
    }
    return JSON.parse(String(next.value[0])) as ResponsesEvent;
  }
}

function reasonOf(error: Error): string {
  // Node reports several addresses of one name as an error without a message.
  if (error instanceof AggregateError) return String(error.errors[0]?.message ?? error.message);
  return error.message;
}

function toAnswerEvent(event: ResponsesEvent): AnswerEvent | undefined {
  switch (event.type) {
    case 'error':
      throw new ChatError(event.error.code, event.error.message);
    case 'nvlm.progress':
      return { type: 'waiting', position: event.position, percent: event.percent };
    case 'response.output_text.delta':
      return { type: 'text', text: event.delta };
    default:
      return 'response' in event ? toEnd(event.response) : undefined;
  }
}

/** The status tells how a response ended; the event types know no word for 'cancelled'. */
function toEnd({ id, status, error, usage }: ResponseObject): AnswerEvent | undefined {
  if (status === 'queued' || status === 'in_progress') return undefined;
  if (status === 'failed') {
    throw new ChatError(error?.code ?? 'internal_error', error?.message ?? 'the answer failed');
  }
  return {
    type: 'end',
    responseId: id,
    reason: status === 'incomplete' ? 'length' : status,
    outputTokens: usage?.output_tokens ?? 0,
  };
}
