/**
 * Pictures as binary frames: a `response.create` with `binary_frames: n` is followed by n binary frames on the same socket, which its
 * parts name `frame:0` to `frame:n-1`. Saves the third that base64 adds.
 */
import { NvlmError } from '#engine/protocol/errors.ts';
import { integer, invalid, isObject } from '#engine/protocol/fields.ts';

const MAX_FRAMES = 16;
const NAME = /^frame:(\d{1,3})$/;

/** A request that waits for its frames. */
export class AwaitedFrames {
  readonly streamId: string | undefined;
  readonly #frame: Record<string, unknown>;
  readonly #count: number;
  readonly #maxBytes: number;
  readonly #received: Buffer[] = [];
  #bytes = 0;

  /** `maxBytes`: of all of them together. Throws 'invalid_request'. */
  constructor(frame: Record<string, unknown>, streamId: string | undefined, maxBytes: number) {
    this.#count = integer(1, MAX_FRAMES)(frame.binary_frames, 'binary_frames');
    const { binary_frames: _, ...rest } = frame;
    this.#frame = rest;
    this.streamId = streamId;
    this.#maxBytes = maxBytes;
  }

  /** The whole request once the last frame is here. Throws 'request_too_large', and 'invalid_request' for a name of no frame. */
  add(data: Buffer): Record<string, unknown> | undefined {
    this.#bytes += data.length;
    if (this.#bytes > this.#maxBytes) {
      throw new NvlmError(
        'request_too_large',
        `the binary frames have ${this.#bytes} bytes so far; at most ${this.#maxBytes} are accepted`,
      );
    }
    this.#received.push(data);
    if (this.#received.length < this.#count) return undefined;
    return this.#fill(this.#frame, '') as Record<string, unknown>;
  }

  /** Another frame came in between. */
  interrupted(): NvlmError {
    return new NvlmError(
      'invalid_frame',
      `expected binary frame ${this.#received.length + 1} of ${this.#count} that response.create announced, got a text frame`,
      { param: 'binary_frames' },
    );
  }

  #fill(value: unknown, path: string): unknown {
    if (Array.isArray(value)) return value.map((item, i) => this.#fill(item, `${path}[${i}]`));
    if (!isObject(value)) return value;
    const entries = Object.entries(value).map(([key, child]) => {
      const at = path === '' ? key : `${path}.${key}`;
      const isName = key === 'image_url' && typeof child === 'string' && NAME.test(child);
      return [key, isName ? this.#dataUrl(child, at) : this.#fill(child, at)];
    });
    return Object.fromEntries(entries);
  }

  #dataUrl(name: string, path: string): string {
    const data = this.#received[Number(NAME.exec(name)?.[1])];
    if (data === undefined) throw invalid(path, `frame:0 to frame:${this.#count - 1}`, name);
    return `data:application/octet-stream;base64,${data.toString('base64')}`;
  }
}
