/** Server-sent events on a Node response: bytes out at the reader's pace, cut when it does not read. */
import type { ServerResponse } from 'node:http';
import { NvlmError } from '#engine/protocol/errors.ts';
import type { EventSink } from './event-feed.ts';

/** Waits for `emitter`'s room to come back; shared by sockets and bodies. */
export const slowReaderError = (timeoutMs: number): NvlmError =>
  new NvlmError(
    'slow_reader',
    `the stream was not read for ${Math.ceil(timeoutMs / 1000)} s and was cut; read faster, or resume the response by its id`,
  );

export interface SseLimits {
  readonly maxBufferedBytes: number;
  readonly slowReaderTimeoutMs: number;
}

const EVENT_TYPE = /"type":"([^"]+)"/;

export class SseWriter implements EventSink {
  readonly #response: ServerResponse;
  readonly #limits: SseLimits;
  readonly #named: boolean;

  /** Writes the header at once. `named`: each event carries its `type` as event name, as the Responses interface does. */
  constructor(
    response: ServerResponse,
    headers: Readonly<Record<string, string>>,
    limits: SseLimits,
    named: boolean,
  ) {
    this.#response = response;
    this.#limits = limits;
    this.#named = named;
    response.writeHead(200, {
      ...headers,
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache, no-transform',
      // Buffering proxies would hold tokens back.
      'x-accel-buffering': 'no',
    });
    response.flushHeaders();
  }

  get isClosed(): boolean {
    return this.#response.destroyed || this.#response.writableEnded;
  }

  write(json: string): boolean {
    if (this.isClosed) return true;
    const name = this.#named ? `event: ${EVENT_TYPE.exec(json)?.[1] ?? 'message'}\n` : '';
    this.#response.write(`${name}data: ${json}\n\n`);
    return this.#response.writableLength <= this.#limits.maxBufferedBytes;
  }

  async drained(): Promise<void> {
    const response = this.#response;
    if (this.isClosed || response.writableLength === 0) return;
    const { slowReaderTimeoutMs } = this.#limits;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const timer = setTimeout(
      () => reject(slowReaderError(slowReaderTimeoutMs)),
      slowReaderTimeoutMs,
    );
    response.once('drain', resolve);
    response.once('close', resolve);
    try {
      await promise;
    } finally {
      clearTimeout(timer);
      response.off('drain', resolve);
      response.off('close', resolve);
    }
  }

  /** `[DONE]` ends the streams of the two completion interfaces. */
  end(marker?: '[DONE]'): void {
    if (this.isClosed) return;
    this.#response.end(marker === undefined ? undefined : `data: ${marker}\n\n`);
  }

  /** Last words to a reader that may not take them, then the connection goes. */
  cut(json: string): void {
    if (this.isClosed) return;
    this.#response.write(`data: ${json}\n\n`);
    this.#response.destroy();
  }
}
