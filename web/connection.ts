/**
 * One WebSocket to /v1/responses, shared by all running responses (one lane each, keyed by stream_id). It is opened when a
 * lane needs it. When it drops under a running lane it is opened again with growing pauses, and each lane goes on after the
 * last event it saw, so that no event is lost or delivered twice. Knows no DOM: socket, timers and randomness are handed in.
 */

import {
  type CreateRequest,
  type ErrorEvent,
  isTerminal,
  parseServerEvent,
  type ServerEvent,
} from './protocol.ts';

/** The part of a browser WebSocket that is used. */
export interface SocketLike {
  addEventListener(type: 'open' | 'close', listener: () => void): void;
  addEventListener(type: 'message', listener: (event: { readonly data: unknown }) => void): void;
  send(data: string): void;
  close(code?: number): void;
}

export type ConnectionState =
  | { readonly phase: 'idle' | 'connecting' | 'open' }
  | {
      readonly phase: 'waiting';
      /** Failed attempts in a row. */
      readonly attempt: number;
      readonly delayMs: number;
      /** False when the server could not be reached or refused the handshake. */
      readonly wasOpen: boolean;
    };

export interface ConnectionDependencies {
  /** May throw, for instance on a key that is no legal subprotocol. */
  openSocket(): SocketLike;
  /** Calls back once after `ms`; returns a function that cancels. */
  setTimer(callback: () => void, ms: number): () => void;
  /** Uniform in [0, 1). */
  random(): number;
  onEvent(streamId: string | null, event: ServerEvent): void;
  onState(state: ConnectionState): void;
}

interface Lane {
  request: CreateRequest | null;
  responseId: string | null;
  lastSequence: number;
  isCancelling: boolean;
}

/** A live response says something at least this often (progress while queued, tokens after); longer silence is a dead socket. */
const SILENCE_LIMIT_MS = 30_000;
const FIRST_DELAY_MS = 250;
const LONGEST_DELAY_MS = 15_000;

/** Pause before the next attempt: doubling, capped, the upper half random so that many pages do not come back at once. */
export function backoffMs(attempt: number, random: number): number {
  const ceiling = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** (attempt - 1));
  return Math.round((ceiling / 2) * (1 + random));
}

export class Connection {
  readonly #dependencies: ConnectionDependencies;
  readonly #lanes = new Map<string, Lane>();
  #socket: SocketLike | null = null;
  #isOpen = false;
  #attempt = 0;
  #cancelRetry: (() => void) | null = null;
  #cancelWatchdog: (() => void) | null = null;

  constructor(dependencies: ConnectionDependencies) {
    this.#dependencies = dependencies;
  }

  /** Starts a response on its own lane. */
  create(request: CreateRequest): void {
    this.#addLane(request.stream_id, {
      request,
      responseId: null,
      lastSequence: -1,
      isCancelling: false,
    });
  }

  /** Goes on with a response that another socket started. */
  resume(streamId: string, responseId: string, lastSequence: number): void {
    this.#addLane(streamId, { request: null, responseId, lastSequence, isCancelling: false });
  }

  /** Asks the engine to stop. The lane lives on until the terminal event, or ends here if the engine never named it. */
  cancel(streamId: string): void {
    const lane = this.#lanes.get(streamId);
    if (lane === undefined) return;
    if (!this.#isOpen && lane.responseId === null) {
      this.drop(streamId);
      return;
    }
    lane.isCancelling = true;
    if (this.#isOpen && lane.responseId !== null) this.#sendCancel(lane, streamId);
  }

  /** Forgets a lane; later events of it are dropped. */
  drop(streamId: string): void {
    this.#lanes.delete(streamId);
    this.#stopWhenUnused();
  }

  /** Tries again at once instead of after the pause. */
  retryNow(): void {
    if (this.#cancelRetry === null) return;
    this.#cancelRetry();
    this.#cancelRetry = null;
    this.#open();
  }

  /** Closes the socket as if the network had; running lanes go on over a new one. */
  reconnect(): void {
    const socket = this.#socket;
    if (socket === null) return;
    socket.close();
    // A dead network delivers no close event for minutes.
    this.#closed(socket);
  }

  #addLane(streamId: string, lane: Lane): void {
    this.#lanes.set(streamId, lane);
    if (this.#isOpen) this.#startLane(lane, streamId);
    else if (this.#cancelRetry !== null) this.retryNow();
    else if (this.#socket === null) this.#open();
  }

  #open(): void {
    this.#dependencies.onState({ phase: 'connecting' });
    let socket: SocketLike;
    try {
      socket = this.#dependencies.openSocket();
    } catch (cause) {
      this.#failAll(cause instanceof Error ? cause.message : String(cause));
      return;
    }
    this.#socket = socket;
    socket.addEventListener('open', () => {
      if (this.#socket !== socket) return;
      this.#isOpen = true;
      this.#dependencies.onState({ phase: 'open' });
      for (const [streamId, lane] of this.#lanes) this.#startLane(lane, streamId);
    });
    socket.addEventListener('message', ({ data }) => {
      if (this.#socket === socket && typeof data === 'string') this.#receive(data);
    });
    socket.addEventListener('close', () => this.#closed(socket));
  }

  #startLane(lane: Lane, streamId: string): void {
    if (lane.responseId !== null) {
      this.#send({
        type: 'response.resume',
        stream_id: streamId,
        response_id: lane.responseId,
        starting_after: lane.lastSequence,
      });
      if (lane.isCancelling) this.#sendCancel(lane, streamId);
    } else if (lane.request !== null) {
      this.#send(lane.request);
    }
    this.#watch();
  }

  #sendCancel(lane: Lane, streamId: string): void {
    this.#send({ type: 'response.cancel', stream_id: streamId, response_id: lane.responseId });
  }

  #send(message: object): void {
    this.#socket?.send(JSON.stringify(message));
  }

  #receive(frame: string): void {
    const event = parseServerEvent(frame);
    if (event === null) return;
    this.#attempt = 0;
    this.#watch();
    // The socket was cut, not the response: the close that follows starts a resume.
    if (event.type === 'error' && event.error.code === 'slow_reader') return;
    const streamId = this.#laneOf(event);
    const lane = streamId === null ? undefined : this.#lanes.get(streamId);
    if (streamId === null || lane === undefined) {
      // An error that names no lane matters only while something runs: an unused socket may time out.
      const isForAll = streamId === null && this.#lanes.size > 0;
      if (event.type === 'error' && isForAll) this.#dependencies.onEvent(null, event);
      return;
    }
    if (event.sequence_number !== undefined) {
      if (event.sequence_number <= lane.lastSequence) return;
      lane.lastSequence = event.sequence_number;
    }
    if (lane.responseId === null && 'response' in event) {
      lane.responseId = event.response.id;
      if (lane.isCancelling && !isTerminal(event)) this.#sendCancel(lane, streamId);
    }
    if (isTerminal(event)) this.#lanes.delete(streamId);
    this.#dependencies.onEvent(streamId, event);
    this.#stopWhenUnused();
  }

  /** Events carry the lane's name; an engine that leaves it out runs one response at a time. */
  #laneOf(event: ServerEvent): string | null {
    if (event.stream_id !== undefined) return event.stream_id;
    const [only, ...others] = this.#lanes.keys();
    return only !== undefined && others.length === 0 ? only : null;
  }

  #closed(socket: SocketLike): void {
    if (this.#socket !== socket) return;
    const wasOpen = this.#isOpen;
    this.#socket = null;
    this.#isOpen = false;
    this.#cancelWatchdog?.();
    this.#cancelWatchdog = null;
    if (this.#lanes.size === 0) {
      this.#dependencies.onState({ phase: 'idle' });
      return;
    }
    this.#attempt += 1;
    const delayMs = backoffMs(this.#attempt, this.#dependencies.random());
    this.#cancelRetry = this.#dependencies.setTimer(() => {
      this.#cancelRetry = null;
      this.#open();
    }, delayMs);
    this.#dependencies.onState({ phase: 'waiting', attempt: this.#attempt, delayMs, wasOpen });
  }

  #watch(): void {
    this.#cancelWatchdog?.();
    this.#cancelWatchdog = this.#dependencies.setTimer(() => this.reconnect(), SILENCE_LIMIT_MS);
  }

  #stopWhenUnused(): void {
    if (this.#lanes.size > 0) return;
    this.#cancelWatchdog?.();
    this.#cancelWatchdog = null;
    if (this.#cancelRetry === null) return;
    this.#cancelRetry();
    this.#cancelRetry = null;
    this.#attempt = 0;
    this.#dependencies.onState({ phase: 'idle' });
  }

  #failAll(message: string): void {
    const event: ErrorEvent = { type: 'error', error: { code: 'connection_failed', message } };
    const streamIds = [...this.#lanes.keys()];
    this.#lanes.clear();
    for (const streamId of streamIds) this.#dependencies.onEvent(streamId, event);
    this.#dependencies.onState({ phase: 'idle' });
  }
}
