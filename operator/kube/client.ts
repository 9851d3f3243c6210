/**
 * Raw JSON to and from the API server. The Kubernetes library reads the kubeconfig and makes credentials and TLS; typed calls of
 * it are not used, because they drop the fields that they do not know.
 */

import type { IncomingMessage } from 'node:http';
import { request as httpRequest } from 'node:http';
import { Agent, request as httpsRequest, type RequestOptions } from 'node:https';
import { KubeConfig } from '@kubernetes/client-node';
import { KubeError } from './errors.ts';
import { type KubeObject, objectPath, type ResourceType } from './resource.ts';
import { ServerTime } from './server-time.ts';

export type Query = Readonly<Record<string, string | number | boolean | undefined>>;

export interface KubeRequest {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly path: string;
  readonly query?: Query;
  readonly body?: unknown;
  /** Of the body; `application/json` when absent. */
  readonly contentType?: string;
  readonly signal?: AbortSignal;
  /** Until the whole answer is there; 30 s when absent. */
  readonly timeoutMs?: number;
}

export interface ApplyOptions {
  readonly fieldManager: string;
  /** Takes over fields that other managers own. */
  readonly force: boolean;
  readonly subresource?: 'status' | 'scale';
  /** The API server answers as if, and stores nothing. */
  readonly dryRun?: boolean;
  readonly signal?: AbortSignal;
}

export interface KubeClient {
  /** The decoded answer. Throws KubeError. */
  request(request: KubeRequest): Promise<unknown>;
  /**
   * JSON lines of a watch as they come, until the server closes it. Throws KubeError when it breaks, or when nothing was heard
   * for `inactivityMs`.
   */
  stream(
    path: string,
    query: Query,
    options: { readonly signal: AbortSignal; readonly inactivityMs: number },
  ): AsyncIterable<unknown>;
  /** Server-side apply of a partial object. Answers the whole object. Throws KubeError. */
  apply<T extends KubeObject>(type: ResourceType, object: T, options: ApplyOptions): Promise<T>;
}

/** Called after each call, for metrics; `code` is the HTTP status, or the KubeErrorCode where there was none. */
export type CallObserver = (verb: string, code: string, seconds: number) => void;

/** Of those, what changes objects. */
export const WRITING_VERBS: ReadonlySet<string> = new Set([
  'create',
  'apply',
  'update',
  'patch',
  'delete',
]);

const defaultTimeoutMs = 30_000;
/** The agent of the library closes each connection after one call, and a TLS handshake costs both sides more than most calls. */
const keepAlive = { keepAlive: true, maxFreeSockets: 32, scheduling: 'lifo' } as const;

/** A client of the kubeconfig's current context: a file, KUBECONFIG, or the service account of the pod. `time` learns the API server's. */
export function connectKube(
  config: KubeConfig,
  observe: CallObserver = () => {},
  time: ServerTime = new ServerTime(),
): KubeClient {
  const cluster = config.getCurrentCluster();
  if (cluster === null) {
    throw new KubeError(
      'KUBE_UNREACHABLE',
      'The kubeconfig has no current cluster. Set current-context, or run inside a cluster.',
    );
  }
  const server = new URL(cluster.server);
  const agent = new Agent(keepAlive);
  const send = server.protocol === 'http:' ? httpRequest : httpsRequest;

  async function open({
    method,
    path,
    query = {},
    body,
    contentType = 'application/json',
    signal,
  }: KubeRequest): Promise<IncomingMessage> {
    const options: RequestOptions = { headers: {} };
    await config.applyToHTTPSOptions(options);
    if (server.protocol === 'http:') delete options.agent;
    // Of another class where a proxy is configured. Connections of other credentials are told apart by the options.
    else if (options.agent?.constructor === Agent) options.agent = agent;
    const payload = body === undefined ? undefined : JSON.stringify(body);
    const headers = { ...options.headers, accept: 'application/json' } as Record<string, string>;
    headers['user-agent'] = 'nvlm-operator';
    if (payload !== undefined) {
      headers['content-type'] = contentType;
      headers['content-length'] = String(Buffer.byteLength(payload));
    }
    const startedAt = time.start();
    const ask = (
      resolve: (response: IncomingMessage) => void,
      reject: (error: unknown) => void,
    ): void => {
      const request = send(
        {
          ...options,
          host: server.hostname,
          port: server.port || (server.protocol === 'http:' ? 80 : 443),
          path: `${server.pathname.replace(/\/$/, '')}${path}${queryString(query)}`,
          method,
          headers,
          ...(signal && { signal }),
        },
        (response) => {
          time.answered(response.headers.date, startedAt);
          resolve(response);
        },
      );
      request.on('error', (error: NodeJS.ErrnoException) => {
        // Closed by the server just as we wrote. An object that is posted may have been made for all that, so POST is not repeated.
        const isStale = request.reusedSocket && /^(ECONNRESET|EPIPE)$/.test(error.code ?? '');
        if (isStale && method !== 'POST' && signal?.aborted !== true) ask(resolve, reject);
        else reject(error);
      });
      request.end(payload);
    };
    return new Promise(ask);
  }

  async function request(options: KubeRequest): Promise<unknown> {
    const startedAt = performance.now();
    const timeoutMs = options.timeoutMs ?? defaultTimeoutMs;
    const timeout = AbortSignal.timeout(Math.ceil(timeoutMs));
    const signal = options.signal ? AbortSignal.any([options.signal, timeout]) : timeout;
    const what = `${options.method} ${options.path}`;
    let code = 'KUBE_UNREACHABLE';
    try {
      const response = await open({ ...options, signal });
      code = String(response.statusCode);
      const text = await readText(response);
      if ((response.statusCode ?? 0) >= 400) throw statusError(what, response, text);
      return parse(what, text);
    } catch (error) {
      const failure = transportError(what, error, options.signal, timeout, timeoutMs);
      if (failure.status === undefined) code = failure.code;
      throw failure;
    } finally {
      observe(verbOf(options), code, (performance.now() - startedAt) / 1000);
    }
  }

  async function* stream(
    path: string,
    query: Query,
    { signal, inactivityMs }: { readonly signal: AbortSignal; readonly inactivityMs: number },
  ): AsyncGenerator<unknown> {
    const startedAt = performance.now();
    const silence = new AbortController();
    const timer = setTimeout(() => silence.abort(), inactivityMs);
    const what = `WATCH ${path}`;
    let code = 'KUBE_UNREACHABLE';
    try {
      const both = AbortSignal.any([signal, silence.signal]);
      const response = await open({ method: 'GET', path, query, signal: both });
      code = String(response.statusCode);
      if ((response.statusCode ?? 0) >= 400) {
        throw statusError(what, response, await readText(response));
      }
      for await (const line of lines(response, () => timer.refresh())) yield parse(what, line);
    } catch (error) {
      const failure = transportError(what, error, signal, silence.signal, inactivityMs);
      if (failure.status === undefined) code = failure.code;
      throw failure;
    } finally {
      clearTimeout(timer);
      observe('watch', code, (performance.now() - startedAt) / 1000);
    }
  }

  return {
    request,
    stream,
    async apply<T extends KubeObject>(type: ResourceType, object: T, options: ApplyOptions) {
      const { name, namespace } = object.metadata;
      const path = objectPath(type, name, namespace);
      return (await request({
        method: 'PATCH',
        path: options.subresource ? `${path}/${options.subresource}` : path,
        query: {
          fieldManager: options.fieldManager,
          force: options.force,
          dryRun: options.dryRun === true ? 'All' : undefined,
        },
        body: object,
        contentType: 'application/apply-patch+yaml',
        ...(options.signal && { signal: options.signal }),
      })) as T;
    },
  };
}

/** Reads the kubeconfig as kubectl does: `file`, else KUBECONFIG, else ~/.kube/config, else the pod's service account. */
export function loadKubeConfig(file?: string): KubeConfig {
  const config = new KubeConfig();
  try {
    if (file === undefined) config.loadFromDefault();
    else config.loadFromFile(file);
  } catch (error) {
    throw new KubeError(
      'KUBE_CONFIG_INVALID',
      `${file ?? 'kubeconfig of KUBECONFIG or ~/.kube/config'}: ${(error as Error).message}`,
      {
        cause: error,
      },
    );
  }
  // What the library makes up when it finds nothing.
  if (config.getCurrentCluster()?.server === 'http://localhost:8080')
    throw new KubeError(
      'KUBE_CONFIG_INVALID',
      'no kubeconfig: looked for KUBECONFIG, ~/.kube/config and the account of a pod; name one with --kubeconfig.',
    );
  return config;
}

function queryString(query: Query): string {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined) parameters.set(name, String(value));
  }
  const text = parameters.toString();
  return text === '' ? '' : `?${text}`;
}

function verbOf({ method, query, path }: KubeRequest): string {
  if (method === 'PATCH') return query?.fieldManager === undefined ? 'patch' : 'apply';
  if (method === 'GET') return query?.limit === undefined ? 'get' : 'list';
  const verbs = { POST: 'create', PUT: 'update', DELETE: 'delete' } as const;
  return path.endsWith('/eviction') ? 'evict' : verbs[method];
}

async function readText(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of response) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('utf8');
}

async function* lines(response: IncomingMessage, heard: () => void): AsyncGenerator<string> {
  // Lines are split in bytes: a chunk may end inside a character.
  let rest: Buffer[] = [];
  for await (const part of response) {
    heard();
    let chunk = part as Buffer;
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10)) {
      const line = Buffer.concat([...rest, chunk.subarray(0, end)]).toString('utf8');
      rest = [];
      chunk = chunk.subarray(end + 1);
      if (line.trim() !== '') yield line;
    }
    if (chunk.length > 0) rest.push(chunk);
  }
  const line = Buffer.concat(rest).toString('utf8');
  if (line.trim() !== '') yield line;
}

function parse(what: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new KubeError('KUBE_PROTOCOL', `${what}: expected JSON, got ${text.slice(0, 120)}`, {
      cause,
    });
  }
}

interface StatusBody {
  readonly message?: string;
  readonly reason?: string;
  readonly details?: {
    readonly retryAfterSeconds?: number;
    readonly causes?: readonly { field?: string; message?: string; reason?: string }[];
  };
}

/** Of a Status object, by HTTP or inside a watch. */
export function errorOfStatus(what: string, status: number, body: StatusBody): KubeError {
  const { details = {} } = body;
  return new KubeError('KUBE_STATUS', `${what}: ${body.message ?? `HTTP ${status}`}`, {
    status,
    ...(body.reason !== undefined && { reason: body.reason }),
    ...(details.retryAfterSeconds !== undefined && {
      retryAfterSeconds: details.retryAfterSeconds,
    }),
    ...(details.causes !== undefined && { causes: details.causes }),
  });
}

function statusError(what: string, response: IncomingMessage, text: string): KubeError {
  let body: StatusBody;
  try {
    body = JSON.parse(text) as StatusBody;
  } catch {
    body = { message: text.slice(0, 500) };
  }
  const header = Number(response.headers['retry-after']);
  const retryAfterSeconds = body.details?.retryAfterSeconds ?? (header > 0 ? header : undefined);
  return errorOfStatus(what, response.statusCode ?? 0, {
    ...body,
    details: { ...body.details, ...(retryAfterSeconds !== undefined && { retryAfterSeconds }) },
  });
}

function transportError(
  what: string,
  error: unknown,
  caller: AbortSignal | undefined,
  timer: AbortSignal,
  timeoutMs: number,
): KubeError {
  if (error instanceof KubeError) return error;
  if (caller?.aborted) return new KubeError('KUBE_ABORTED', `${what}: aborted`, { cause: error });
  if (timer.aborted) {
    return new KubeError('KUBE_TIMEOUT', `${what}: nothing heard for ${timeoutMs} ms`, {
      cause: error,
    });
  }
  const message = error instanceof Error ? error.message : String(error);
  return new KubeError('KUBE_UNREACHABLE', `${what}: ${message}`, { cause: error });
}
