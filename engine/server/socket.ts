/** One WebSocket: frames in, lanes of responses out. A lane is first come, first served; lanes run side by side. */
import type { WebSocket } from 'ws';
import { NvlmError } from '#engine/protocol/errors.ts';
import {
  boolean,
  integer,
  invalid,
  isObject,
  parseFields,
  string,
} from '#engine/protocol/fields.ts';
import {
  parseResponsesRequest,
  type ResponsesRequest,
} from '#engine/protocol/responses-request.ts';
import { AwaitedFrames } from './binary-frames.ts';
import type { ServerContext } from './context.ts';
import { type EventSink, feedEvents } from './event-feed.ts';
import { asNvlmError, errorEvent } from './http-errors.ts';
import { parseJsonBytes } from './json-body.ts';
import { missingResponse } from './response-prompt.ts';
import type { ResponseRun } from './response-run.ts';
import { createResponse } from './responses.ts';
import { slowReaderError } from './sse.ts';

/** Close codes. The official clients reconnect on 1001, 1011, 1012, 1013 and not on 1000, 1008 and 1009. */
export const CLOSE = { normal: 1000, goingAway: 1001, policy: 1008, restart: 1012 } as const;

/** A peer that only sends nonsense is closed after this many bad frames in a row. */
const MAXIMUM_BAD_FRAMES = 16;
/** Unstored responses that this socket can still continue. */
const OWN_RESPONSES = 8;
/** After the last words, how long the peer may take to close. */
const CLOSE_GRACE_MS = 2000;
const RESUME_FIELDS = {
  type: string(64),
  response_id: string(128),
  starting_after: integer(0),
  stream_id: string(128),
  event_id: string(128),
} as const;

interface Lane {
  readonly waiting: (() => Promise<void>)[];
  run: ResponseRun | undefined;
  /** Its turn to create a response is yet to come. */
  isStarting: boolean;
  /** Cancelled before its response was there. */
  isCancelled: boolean;
}

export class SocketSession {
  readonly #context: ServerContext;
  readonly #socket: WebSocket;
  readonly #requestId: string;
  readonly #onEmpty: () => void;
  readonly #lanes = new Map<string, Lane>();
  readonly #ownResponses = new Map<string, ResponseRun>();
  #frames = 0;
  #createdCount = 0;
  #badFrames = 0;
  #isClosing = false;
  #heardAt = performance.now();
  #busyAt = performance.now();
  #drain: PromiseWithResolvers<void> | undefined;
  #awaited: AwaitedFrames | undefined;

  /** `onEmpty` is called whenever the last lane falls idle. */
  constructor(context: ServerContext, socket: WebSocket, requestId: string, onEmpty: () => void) {
    this.#context = context;
    this.#socket = socket;
    this.#requestId = requestId;
    this.#onEmpty = onEmpty;
    socket.on('message', (data, isBinary) => {
      this.#heardAt = performance.now();
      this.#receive(data as Buffer, isBinary);
    });
    socket.on('pong', () => {
      this.#heardAt = performance.now();
    });
    socket.on('ping', () => {
      this.#heardAt = performance.now();
    });
    // Protocol errors close the socket by themselves; without a listener they would end the process.
    socket.on('error', (error) => {
      context.logger.debug({ err: error, requestId }, 'socket error');
    });
    socket.on('close', () => this.#closed());
  }

  get isIdle(): boolean {
    return this.#lanes.size === 0;
  }

  /** Called at every ping interval: ends dead and forgotten sockets, pings the rest. */
  check(now: number): void {
    const { pingIntervalMs, socketIdleTimeoutMs } = this.#context.options;
    if (now - this.#heardAt > 2 * pingIntervalMs) {
      this.#socket.terminate();
    } else if (this.isIdle && now - this.#busyAt > socketIdleTimeoutMs) {
      const idle = new NvlmError(
        'idle_timeout',
        `nothing was sent for ${Math.round(socketIdleTimeoutMs / 1000)} s; open a new socket when there is something to send`,
      );
      this.close(CLOSE.normal, idle);
    } else {
      this.#socket.ping();
    }
  }

  /** Says why, closes, and cuts the connection when the peer does not answer. */
  close(code: number, error: NvlmError | undefined): void {
    if (this.#isClosing) return;
    this.#isClosing = true;
    if (error !== undefined) this.#sendError(error, undefined);
    this.#socket.close(code, error?.code ?? '');
    setTimeout(() => this.#socket.terminate(), CLOSE_GRACE_MS).unref();
  }

  #closed(): void {
    this.#isClosing = true;
    this.#drain?.resolve();
    for (const lane of this.#lanes.values()) {
      lane.waiting.length = 0;
      if (lane.run !== undefined && !lane.run.background) lane.run.cancel();
    }
  }

  #receive(data: Buffer, isBinary: boolean): void {
    let streamId: string | undefined;
    try {
      if (this.#isClosing) return;
      const { maxFrameBytes } = this.#context.options;
      if (isBinary) {
        streamId = this.#awaited?.streamId;
        this.#receiveBinary(data);
        return;
      }
      this.#interrupt();
      if (data.length > maxFrameBytes) {
        throw new NvlmError(
          'request_too_large',
          `the frame has ${data.length} bytes; at most ${maxFrameBytes} are accepted`,
        );
      }
      const frame = parseJsonBytes(data);
      if (!isObject(frame)) throw invalid('frame', 'a JSON object', frame);
      if (frame.stream_id !== undefined && frame.stream_id !== null) {
        streamId = string(128)(frame.stream_id, 'stream_id');
      }
      this.#dispatch(frame, streamId);
      this.#badFrames = 0;
    } catch (thrown) {
      const error = asNvlmError(thrown);
      if (error.code === 'internal_error') {
        this.#context.logger.error({ err: thrown, requestId: this.#requestId }, 'frame failed');
      }
      this.#sendError(error, streamId);
      if (++this.#badFrames >= MAXIMUM_BAD_FRAMES) this.close(CLOSE.policy, undefined);
    }
  }

  #receiveBinary(data: Buffer): void {
    const awaited = this.#awaited;
    if (awaited === undefined) {
      throw new NvlmError('invalid_frame', 'expected a text frame, got a binary one');
    }
    this.#awaited = undefined;
    const frame = awaited.add(data);
    if (frame === undefined) this.#awaited = awaited;
    else this.#create(frame, awaited.streamId);
  }

  /** A request that waits for binary frames is refused when another frame comes. */
  #interrupt(): void {
    const awaited = this.#awaited;
    this.#awaited = undefined;
    if (awaited !== undefined) this.#sendError(awaited.interrupted(), awaited.streamId);
  }

  #dispatch(frame: Record<string, unknown>, streamId: string | undefined): void {
    switch (frame.type) {
      case 'response.create':
        if (frame.binary_frames === undefined || frame.binary_frames === null) {
          this.#create(frame, streamId);
        } else {
          const { maxFrameBytes } = this.#context.options;
          this.#awaited = new AwaitedFrames(frame, streamId, maxFrameBytes);
        }
        return;
      case 'response.cancel':
        this.#cancel(frame, streamId);
        return;
      case 'response.resume':
        this.#resume(frame, streamId);
        return;
      default:
        throw new NvlmError(
          'invalid_frame',
          `expected type response.create, response.cancel or response.resume, got ${JSON.stringify(frame.type)?.slice(0, 80)}`,
          { param: 'type' },
        );
    }
  }

  #create(frame: Record<string, unknown>, streamId: string | undefined): void {
    const { type: _, stream_id: _lane, event_id: _event, generate, ...body } = frame;
    const wantsText = generate === undefined || generate === null || boolean(generate, 'generate');
    // Checked before it waits in its lane, so that a bad request is refused at once.
    const request = parseResponsesRequest(body);
    this.#enqueue(streamId, async (lane) => {
      lane.isStarting = true;
      const run = await this.#start(request, wantsText).finally(() => {
        lane.isStarting = false;
      });
      if (run === undefined) return;
      if (!run.isStored) this.#keepOwn(run);
      lane.run = run;
      // While pictures were read it may have been cancelled, or its reader gone.
      if (lane.isCancelled || (this.#isClosing && !run.background)) run.cancel();
      await this.#feed(run, streamId, 0, !run.background);
    });
  }

  async #start(request: ResponsesRequest, generate: boolean): Promise<ResponseRun | undefined> {
    await this.#context.turns.take();
    if (this.#isClosing) return undefined;
    return createResponse(this.#context, request, {
      identity: {
        requestId: `${this.#requestId}.${++this.#createdCount}`,
        route: 'ws /v1/responses',
        stream: true,
      },
      generate,
      ownResponse: (id) => this.#ownResponses.get(id),
    });
  }

  #resume(frame: Record<string, unknown>, streamId: string | undefined): void {
    const fields = parseFields(RESUME_FIELDS, frame);
    const id = fields.response_id;
    if (id === undefined) throw invalid('response_id', 'the id of a response', id);
    const first = fields.starting_after === undefined ? 0 : fields.starting_after + 1;
    this.#enqueue(streamId, async () => {
      const run = this.#ownResponses.get(id) ?? this.#context.store.get(id);
      if (run === undefined) throw missingResponse(id, 'response_id');
      await this.#feed(run, streamId, first, false);
    });
  }

  #cancel(frame: Record<string, unknown>, streamId: string | undefined): void {
    const { starting_after: _, ...table } = RESUME_FIELDS;
    const { response_id: id } = parseFields(table, frame);
    const lane = this.#lanes.get(streamId ?? '');
    if (id === undefined && lane?.isStarting === true) {
      lane.isCancelled = true;
      return;
    }
    const run =
      id === undefined ? lane?.run : (this.#ownResponses.get(id) ?? this.#context.store.get(id));
    if (run === undefined) {
      throw missingResponse(
        id ?? `running on lane ${streamId ?? 'without stream_id'}`,
        'response_id',
      );
    }
    run.cancel();
  }

  #enqueue(streamId: string | undefined, start: (lane: Lane) => Promise<void>): void {
    const { maxFramesPerSocket } = this.#context.options;
    if (this.#frames >= maxFramesPerSocket) {
      throw new NvlmError(
        'queue_full',
        `this socket already has ${this.#frames} requests; at most ${maxFramesPerSocket} may run or wait`,
        { retryAfterSeconds: 1 },
      );
    }
    const name = streamId ?? '';
    const existing = this.#lanes.get(name);
    const lane = existing ?? {
      waiting: [],
      run: undefined,
      isStarting: false,
      isCancelled: false,
    };
    this.#frames++;
    lane.waiting.push(async () => {
      try {
        await start(lane);
      } catch (thrown) {
        this.#laneFailed(thrown, streamId);
      } finally {
        lane.run = undefined;
        lane.isCancelled = false;
      }
    });
    if (existing !== undefined) return;
    this.#lanes.set(name, lane);
    this.#work(name, lane).catch((error: unknown) => {
      this.#context.logger.error({ err: error, requestId: this.#requestId }, 'lane failed');
    });
  }

  async #work(name: string, lane: Lane): Promise<void> {
    for (let next = lane.waiting.shift(); next !== undefined; next = lane.waiting.shift()) {
      await next();
      this.#frames--;
    }
    this.#lanes.delete(name);
    this.#busyAt = performance.now();
    if (this.isIdle) this.#onEmpty();
  }

  #laneFailed(thrown: unknown, streamId: string | undefined): void {
    const error = asNvlmError(thrown);
    if (error.code === 'internal_error') {
      this.#context.logger.error({ err: thrown, requestId: this.#requestId }, 'response failed');
    }
    this.#sendError(error, streamId);
  }

  async #feed(
    run: ResponseRun,
    streamId: string | undefined,
    firstEvent: number,
    holdsRun: boolean,
  ): Promise<void> {
    try {
      await feedEvents(run, this.#sink(streamId), firstEvent, holdsRun);
    } catch (thrown) {
      const error = asNvlmError(thrown);
      if (holdsRun) run.cancel(error);
      this.close(CLOSE.policy, error);
    }
    // The lane is free again only when the engine is: a cancelled response still has to give its blocks back.
    if (holdsRun) await run.done;
  }

  #sink(streamId: string | undefined): EventSink {
    const prefix = streamId === undefined ? '{' : `{"stream_id":${JSON.stringify(streamId)},`;
    const session = this;
    return {
      write: (json) => this.#send(prefix + json.slice(1)),
      drained: () => this.#drained(),
      get isClosed() {
        return session.#isClosing;
      },
    };
  }

  /** False when the reader is behind. */
  #send(text: string): boolean {
    const { maxBufferedBytes } = this.#context.options;
    this.#socket.send(text, this.#sent);
    return this.#socket.bufferedAmount <= maxBufferedBytes;
  }

  /** The library calls back per frame handed to the kernel, with an error once the socket is gone. */
  readonly #sent = (): void => {
    const { maxBufferedBytes } = this.#context.options;
    if (this.#drain !== undefined && this.#socket.bufferedAmount <= maxBufferedBytes / 2) {
      this.#drain.resolve();
      this.#drain = undefined;
    }
  };

  async #drained(): Promise<void> {
    if (this.#isClosing) return;
    const { slowReaderTimeoutMs } = this.#context.options;
    this.#drain ??= Promise.withResolvers<void>();
    const { promise } = this.#drain;
    const late = Promise.withResolvers<never>();
    const timer = setTimeout(
      () => late.reject(slowReaderError(slowReaderTimeoutMs)),
      slowReaderTimeoutMs,
    );
    try {
      await Promise.race([promise, late.promise]);
    } finally {
      clearTimeout(timer);
    }
  }

  #sendError(error: NvlmError, streamId: string | undefined): void {
    this.#context.metrics.countError(error.code);
    if (this.#socket.readyState !== this.#socket.OPEN) return;
    this.#socket.send(JSON.stringify(errorEvent(error, streamId)), this.#sent);
  }

  #keepOwn(run: ResponseRun): void {
    this.#ownResponses.set(run.id, run);
    if (this.#ownResponses.size <= OWN_RESPONSES) return;
    const [oldest] = this.#ownResponses.keys();
    if (oldest !== undefined) this.#ownResponses.delete(oldest);
  }
}
