/**
 * A stand-in for the engine that the page can talk to: it serves the page, answers over the Responses API in WebSocket mode
 * by a script, keeps each response's events for a resume, and can drop sockets, queue, and fail on purpose.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { type WebSocket, WebSocketServer } from 'ws';
import { buildPage, PAGE_HEADERS, type PageFiles } from './page-files.ts';

export interface Script {
  /** The answer, cut into deltas by `pieces`. */
  readonly text?: string;
  /** Pause between deltas in milliseconds. */
  readonly pauseMs?: number;
  /** Progress events before the first delta, one every `pauseMs`. */
  readonly progress?: readonly object[];
  /** Cut the socket after this many deltas; the answer goes on behind it. */
  readonly dropAfter?: number;
  /** Stop before this delta until `release` is called. */
  readonly holdBefore?: number;
  /** Refuse the request. */
  readonly error?: { readonly code: string; readonly message: string };
  /** End as failed with this error after the deltas. */
  readonly failure?: { readonly code: string; readonly message: string };
}

export interface CreateFrame {
  readonly stream_id: string;
  readonly input: readonly { readonly role: string; readonly content: string }[];
  readonly previous_response_id?: string;
  readonly [field: string]: unknown;
}

interface Run {
  readonly id: string;
  readonly streamId: string;
  readonly events: object[];
  readers: Set<WebSocket>;
  isCancelled: boolean;
}

/** Deltas of about a token each: words with the space before them, line ends apart. */
export function pieces(text: string): string[] {
  return text.match(/\n|[^\S\n]*[^\s]+|[^\S\n]+/g) ?? [];
}

export class FakeResponsesServer {
  /** Chooses what happens to each request. */
  script: (request: CreateFrame) => Script = () => ({ text: 'Hello.' });
  /** Every response.create, resume and cancel frame, in order of arrival. */
  readonly frames: Record<string, unknown>[] = [];
  /** Requests for anything but this server would show up in the browser as refused; those for this one are listed here. */
  readonly paths: string[] = [];
  /** Handshakes and requests are refused without this key. */
  apiKey = '';
  /** While false, new sockets are cut at once. */
  acceptsSockets = true;
  metrics: () => string = () => '';
  readonly #page: PageFiles = buildPage();
  readonly #server = createServer((request, response) => this.#answer(request, response));
  readonly #sockets = new WebSocketServer({ noServer: true });
  readonly #runs = new Map<string, Run>();
  #held: (() => void)[] = [];
  #count = 0;

  /** Listens on a free port; resolves to the page's address. */
  async start(): Promise<string> {
    this.#server.on('upgrade', (request, socket, head) => {
      const offered = request.headers['sec-websocket-protocol'] ?? '';
      const isKnown =
        this.apiKey === '' || offered.includes(`openai-insecure-api-key.${this.apiKey}`);
      if (!this.acceptsSockets || !isKnown || request.url !== '/v1/responses') {
        socket.end('HTTP/1.1 401 Unauthorized\r\nconnection: close\r\n\r\n');
        return;
      }
      this.#sockets.handleUpgrade(request, socket, head, (webSocket) => this.#serve(webSocket));
    });
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/`;
  }

  async stop(): Promise<void> {
    this.release();
    this.dropSockets();
    this.#page.remove();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** Cuts every socket without a closing handshake, as a lost network does. */
  dropSockets(): void {
    for (const socket of this.#sockets.clients) socket.terminate();
  }

  /** Lets answers stopped at `holdBefore` go on. */
  release(): void {
    for (const go of this.#held) go();
    this.#held = [];
  }

  /** Forgets all responses, as a restarted engine. */
  forget(): void {
    this.#runs.clear();
  }

  /** Frames of one type. */
  sent(type: string): Record<string, unknown>[] {
    return this.frames.filter((frame) => frame.type === type);
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const path = (request.url ?? '/').split('?')[0] ?? '/';
    this.paths.push(path);
    const page = this.#page.find(path);
    if (page !== null) {
      response.writeHead(200, { ...PAGE_HEADERS, 'content-type': page.type }).end(page.body);
      return;
    }
    if (this.apiKey !== '' && request.headers.authorization !== `Bearer ${this.apiKey}`) {
      response.writeHead(401).end();
    } else if (path === '/v1/models') {
      const data = [{ id: 'smol-test', object: 'model', max_model_len: 2048 }];
      response.writeHead(200, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ object: 'list', data }));
    } else if (path === '/metrics') {
      response.writeHead(200, { 'content-type': 'text/plain' }).end(this.metrics());
    } else {
      response.writeHead(404).end();
    }
  }

  #serve(socket: WebSocket): void {
    socket.on('message', (data) => {
      const frame = JSON.parse(String(data)) as Record<string, unknown>;
      this.frames.push(frame);
      const streamId = frame.stream_id as string;
      if (frame.type === 'response.create') {
        void this.#create(socket, frame as CreateFrame);
        return;
      }
      const run = this.#runs.get(frame.response_id as string);
      if (run === undefined) {
        const message = `no response ${String(frame.response_id)} is in memory`;
        this.#refuse(socket, streamId, { code: 'response_not_found', message });
      } else if (frame.type === 'response.cancel') {
        run.isCancelled = true;
        this.release();
      } else if (frame.type === 'response.resume') {
        const after = frame.starting_after as number;
        for (const event of run.events.slice(after + 1)) socket.send(JSON.stringify(event));
        run.readers.add(socket);
      }
    });
  }

  #refuse(socket: WebSocket, streamId: string, error: { code: string; message: string }): void {
    socket.send(JSON.stringify({ type: 'error', stream_id: streamId, status: 400, error }));
  }

  async #create(socket: WebSocket, request: CreateFrame): Promise<void> {
    const script = this.script(request);
    const previous = request.previous_response_id;
    if (script.error !== undefined) return this.#refuse(socket, request.stream_id, script.error);
    if (previous !== undefined && !this.#runs.has(previous)) {
      const message = `no response ${previous} is in memory`;
      return this.#refuse(socket, request.stream_id, { code: 'response_not_found', message });
    }
    const run: Run = {
      id: `resp_${++this.#count}`,
      streamId: request.stream_id,
      events: [],
      readers: new Set([socket]),
      isCancelled: false,
    };
    this.#runs.set(run.id, run);
    await this.#play(run, script);
  }

  #emit(run: Run, type: string, fields: object): void {
    const event = { stream_id: run.streamId, type, ...fields, sequence_number: run.events.length };
    run.events.push(event);
    for (const reader of run.readers) reader.send(JSON.stringify(event));
  }

  async #play(run: Run, script: Script): Promise<void> {
    const base = { id: run.id, object: 'response', model: 'smol-test', error: null, output: [] };
    const place = { item_id: 'msg_1', output_index: 0, content_index: 0 };
    const pause = script.pauseMs ?? 0;
    this.#emit(run, 'response.created', { response: { ...base, status: 'queued' } });
    for (const progress of script.progress ?? []) {
      this.#emit(run, 'nvlm.progress', progress);
      await sleep(pause);
    }
    this.#emit(run, 'response.in_progress', { response: { ...base, status: 'in_progress' } });
    let text = '';
    let deltas = 0;
    for (const delta of pieces(script.text ?? '')) {
      if (deltas === script.holdBefore) {
        await new Promise<void>((resolve) => this.#held.push(resolve));
      }
      if (run.isCancelled) break;
      this.#emit(run, 'response.output_text.delta', { ...place, delta, logprobs: [] });
      text += delta;
      deltas += 1;
      if (deltas === script.dropAfter) {
        for (const reader of run.readers) reader.terminate();
        run.readers = new Set();
      }
      await sleep(pause);
    }
    if (!run.isCancelled)
      this.#emit(run, 'response.output_text.done', { ...place, text, logprobs: [] });
    const failure = script.failure ?? null;
    const status = run.isCancelled ? 'cancelled' : failure === null ? 'completed' : 'failed';
    const content = [{ type: 'output_text', text, annotations: [] }];
    const usage = {
      input_tokens: 12,
      input_tokens_details: { cached_tokens: 0 },
      output_tokens: deltas,
      total_tokens: 12 + deltas,
    };
    const output = [{ type: 'message', id: 'msg_1', role: 'assistant', content }];
    this.#emit(run, `response.${status}`, {
      response: { ...base, status, error: failure, output, usage },
    });
  }
}
