/** A response over WebSocket, as a user's client asks for it. */
import { WebSocket } from 'ws';

export interface StreamedResponse {
  /** The text so far. */
  readonly text: string;
  /** Of the last event. */
  readonly lastEvent: string;
  /** Resolves with the final event's type and the tokens that were made; rejects when the socket ends before. */
  readonly ended: Promise<{ readonly type: string; readonly outputTokens: number }>;
  /** When the first piece of text is there. */
  readonly started: Promise<void>;
  close(): void;
}

/** Asks at `host` (an address, with or without a port); `fields` as `POST /v1/responses` takes them. */
export function streamResponse(
  host: string,
  input: string,
  fields: Readonly<Record<string, unknown>> = {},
): StreamedResponse {
  const socket = new WebSocket(`ws://${host}/v1/responses`);
  const { promise: started, resolve: start } = Promise.withResolvers<void>();
  const {
    promise: ended,
    resolve,
    reject,
  } = Promise.withResolvers<{
    type: string;
    outputTokens: number;
  }>();
  let text = '';
  let lastEvent = 'none';
  socket.on('open', () => {
    socket.send(JSON.stringify({ type: 'response.create', input, temperature: 0, ...fields }));
  });
  socket.on('message', (data) => {
    const event = JSON.parse(String(data));
    lastEvent = event.type;
    if (event.type === 'response.output_text.delta') {
      text += event.delta;
      start();
    }
    if (event.type === 'error') reject(new Error(`${event.code}: ${event.message}`));
    if (/^response\.(completed|incomplete|failed)$/.test(event.type)) {
      resolve({ type: event.type, outputTokens: event.response.usage?.output_tokens ?? 0 });
      socket.close();
    }
  });
  socket.on('error', reject);
  socket.on('close', (code) => reject(new Error(`closed with ${code} after ${lastEvent}`)));
  // Whoever awaits only one of them must not be struck by the other.
  ended.catch(() => {});
  return {
    get text() {
      return text;
    },
    get lastEvent() {
      return lastEvent;
    },
    ended,
    started,
    close: () => socket.terminate(),
  };
}
