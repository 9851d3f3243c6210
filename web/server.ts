/** The engine's HTTP and WebSocket addresses as seen from the page, with the reader's key. */

import type { SocketLike } from './connection.ts';
import type { Vision } from './tile-grid.ts';

/** What /v1/models tells about one model; `max_model_len` is vLLM's name for the context length. */
export interface ModelEntry {
  readonly id: string;
  readonly max_model_len?: number;
  /** Absent when the model reads text only. */
  readonly vision?: Vision;
}

/** The server answered with a status that is not a success. */
export class HttpError extends Error {
  readonly status: number;

  constructor(status: number) {
    super(`the server answered with status ${status}`);
    this.name = 'HttpError';
    this.status = status;
  }
}

const TIMEOUT_MS = 5000;

async function get(path: string, apiKey: string): Promise<Response> {
  const headers: Record<string, string> =
    apiKey === '' ? {} : { Authorization: `Bearer ${apiKey}` };
  const response = await fetch(path, { headers, signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (!response.ok) throw new HttpError(response.status);
  return response;
}

export async function fetchMetrics(apiKey: string): Promise<string> {
  return (await get('/metrics', apiKey)).text();
}

export async function fetchModels(apiKey: string): Promise<readonly ModelEntry[]> {
  const body = (await (await get('/v1/models', apiKey)).json()) as { data?: readonly ModelEntry[] };
  return body.data ?? [];
}

/** Browsers cannot set headers on a WebSocket: the key travels as a subprotocol. Throws on a key that is no legal token. */
export function openSocket(apiKey: string): SocketLike {
  const url = new URL('/v1/responses', location.href);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  return apiKey === ''
    ? new WebSocket(url)
    : new WebSocket(url, ['realtime', `openai-insecure-api-key.${apiKey}`]);
}
