/** Takes upgrades of GET /v1/responses: checks key, origin and number, then hands each socket to its session. */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage, Server } from 'node:http';
import { STATUS_CODES } from 'node:http';
import type { Duplex } from 'node:stream';
import { WebSocketServer } from 'ws';
import { NvlmError } from '#engine/protocol/errors.ts';
import { isOriginAllowed, KEY_SUBPROTOCOL } from './auth.ts';
import type { ServerContext } from './context.ts';
import { asNvlmError, errorBody } from './http-errors.ts';
import { CLOSE, SocketSession } from './socket.ts';

export interface SocketServer {
  readonly size: number;
  /** Closes idle sockets at once and each other one when its last response ended. */
  drain(): void;
  /** Resolves when every socket has said all it had to say, or after `timeoutMs`. */
  settled(timeoutMs: number): Promise<void>;
  /** Closes all that are left. */
  close(): void;
}

export function attachSockets(
  server: Server,
  context: ServerContext,
  checkKey: (request: IncomingMessage) => void,
): SocketServer {
  const { options } = context;
  const sessions = new Set<SocketSession>();
  let isDraining = false;
  const settled = Promise.withResolvers<void>();
  const checkSettled = (): void => {
    if (isDraining && [...sessions].every((session) => session.isIdle)) settled.resolve();
  };
  const restart = (session: SocketSession) =>
    session.close(
      CLOSE.restart,
      new NvlmError('shutting_down', 'the server is stopping; connect again'),
    );
  const accept = new WebSocketServer({
    noServer: true,
    // Text is checked by the session, which answers with a typed error and keeps the socket; the library would close it.
    skipUTF8Validation: true,
    // Frames over maxFrameBytes get a typed error; far larger ones are not even buffered (close code 1009).
    maxPayload: 2 * options.maxFrameBytes,
    // Compressing one short event after another costs more than it saves; the offer is declined.
    perMessageDeflate: false,
    handleProtocols: (protocols) => {
      const [first = false] = [...protocols].filter((name) => !name.startsWith(KEY_SUBPROTOCOL));
      return first || ([...protocols][0] ?? false);
    },
  });

  const check = (request: IncomingMessage): void => {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost');
    if (pathname !== '/v1/responses') {
      throw new NvlmError('route_not_found', 'the WebSocket is at /v1/responses');
    }
    if (!isOriginAllowed(request, options.corsOrigins)) {
      throw new NvlmError(
        'origin_not_allowed',
        `pages of ${request.headers.origin} may not connect`,
      );
    }
    checkKey(request);
    if (context.isClosing()) {
      throw new NvlmError('shutting_down', 'the server is stopping', { retryAfterSeconds: 1 });
    }
    if (sessions.size >= options.maxSockets) {
      throw new NvlmError(
        'too_many_sockets',
        `${sessions.size} sockets are open, the most allowed`,
        {
          retryAfterSeconds: 5,
        },
      );
    }
  };

  server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on('error', () => socket.destroy());
    try {
      check(request);
    } catch (thrown) {
      refuse(socket, asNvlmError(thrown));
      return;
    }
    accept.handleUpgrade(request, socket, head, (webSocket) => {
      const session = new SocketSession(context, webSocket, requestIdOf(request), () => {
        if (isDraining) restart(session);
        checkSettled();
      });
      sessions.add(session);
      webSocket.on('close', () => {
        sessions.delete(session);
        checkSettled();
      });
    });
  });

  const timer = setInterval(() => {
    const now = performance.now();
    for (const session of sessions) session.check(now);
  }, options.pingIntervalMs);
  timer.unref();

  return {
    get size() {
      return sessions.size;
    },
    drain() {
      isDraining = true;
      for (const session of sessions) if (session.isIdle) restart(session);
      checkSettled();
    },
    async settled(timeoutMs) {
      const timer = setTimeout(() => settled.resolve(), timeoutMs);
      await settled.promise;
      clearTimeout(timer);
    },
    close() {
      clearInterval(timer);
      for (const session of sessions) restart(session);
    },
  };
}

/** The client's own id when it is short and plain, for logs on both sides. */
export function requestIdOf(request: IncomingMessage): string {
  const sent = request.headers['x-request-id'];
  return typeof sent === 'string' && /^[\w.:-]{1,128}$/.test(sent) ? sent : `req_${randomUUID()}`;
}

/** An HTTP answer on a connection that asked for an upgrade. */
function refuse(socket: Duplex, error: NvlmError): void {
  const body = JSON.stringify({ error: errorBody(error) });
  const retry = error.retryAfterSeconds;
  socket.end(
    [
      `HTTP/1.1 ${error.status} ${STATUS_CODES[error.status]}`,
      'content-type: application/json; charset=utf-8',
      `content-length: ${Buffer.byteLength(body)}`,
      'connection: close',
      ...(retry === undefined ? [] : [`retry-after: ${retry}`]),
      '',
      body,
    ].join('\r\n'),
  );
}
