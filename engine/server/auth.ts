/** Optional API keys, and which origins of web pages may talk to the server. */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { NvlmError } from '#engine/protocol/errors.ts';

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();

/** Browsers cannot set headers on a WebSocket: OpenAI's clients then offer the key as a subprotocol. */
export const KEY_SUBPROTOCOL = 'openai-insecure-api-key.';

/** Returns a check that throws 'invalid_api_key'. Every key is compared, in constant time, whichever matches. */
export function keyChecker(apiKeys: readonly string[]): (request: IncomingMessage) => void {
  const accepted = apiKeys.map(digest);
  return (request) => {
    if (accepted.length === 0) return;
    const sent = digest(sentKey(request) ?? '');
    let isKnown = false;
    for (const key of accepted) isKnown = timingSafeEqual(key, sent) || isKnown;
    if (!isKnown) {
      throw new NvlmError(
        'invalid_api_key',
        'expected `Authorization: Bearer KEY` with a key of this server',
      );
    }
  };
}

function sentKey(request: IncomingMessage): string | undefined {
  const bearer = /^Bearer\s+(\S+)\s*$/i.exec(request.headers.authorization ?? '')?.[1];
  if (bearer !== undefined) return bearer;
  const protocols = request.headers['sec-websocket-protocol']?.split(',') ?? [];
  const offered = protocols
    .map((name) => name.trim())
    .find((name) => name.startsWith(KEY_SUBPROTOCOL));
  return offered?.slice(KEY_SUBPROTOCOL.length);
}

/** No Origin header: not a browser. Otherwise the page must be this server's own or of an allowed origin. */
export function isOriginAllowed(request: IncomingMessage, allowed: readonly string[]): boolean {
  const { origin, host } = request.headers;
  if (origin === undefined) return true;
  if (allowed.includes('*') || allowed.includes(origin)) return true;
  return URL.canParse(origin) && new URL(origin).host === host;
}
