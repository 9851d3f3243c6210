/** What a request is told when the engine refuses it or ends it before its time. */
import { NvlmError } from '#engine/protocol/errors.ts';

export function queueFull(waiting: number, limit: number, retryAfterSeconds: number): NvlmError {
  return new NvlmError(
    'queue_full',
    `${waiting} requests are waiting and the limit is ${limit}. Try again in ${retryAfterSeconds} s.`,
    { retryAfterSeconds },
  );
}

export function queueTimeout(timeoutMs: number, retryAfterSeconds: number): NvlmError {
  return new NvlmError(
    'queue_timeout',
    `The request waited ${timeoutMs / 1000} s, the queue timeout, and was not started. Try again later.`,
    { retryAfterSeconds },
  );
}

export function slowReader(
  unreadCount: number,
  limits: { readonly slowReaderTimeoutMs: number; readonly maxUnreadTokens: number },
): NvlmError {
  const seconds = limits.slowReaderTimeoutMs / 1000;
  return new NvlmError(
    'slow_reader',
    `${unreadCount} events were left unread for ${seconds} s; the limit is ${limits.maxUnreadTokens}. Read faster.`,
  );
}

export function shuttingDown(): NvlmError {
  return new NvlmError(
    'shutting_down',
    'The server is stopping and takes no more requests. Try another replica.',
  );
}

export function stepFailed(cause: unknown): NvlmError {
  return new NvlmError(
    'internal_error',
    'The model could not compute a step of this request; other requests go on. Try again.',
    { cause },
  );
}

export function undrawable(): NvlmError {
  return new NvlmError(
    'internal_error',
    'No token could be drawn: allowed ids and bans leave none, or the model gave no numbers. Loosen the restrictions.',
  );
}
