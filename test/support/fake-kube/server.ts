/** An API server that keeps objects in memory and misbehaves on demand: lists in pages, watches from a resourceVersion, refuses stale writes. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { KubeConfig } from '@kubernetes/client-node';
import { connectKube, type KubeClient } from '#operator/kube/client.ts';
import type { KubeObject } from '#operator/kube/resource.ts';
import type { ServerTime } from '#operator/kube/server-time.ts';
import { applyFields, type FieldOwners } from './apply.ts';

export interface FakeRequest {
  readonly verb: 'list' | 'watch' | 'get' | 'create' | 'update' | 'patch' | 'delete';
  readonly path: string;
  readonly query: URLSearchParams;
  readonly response: ServerResponse;
  /** Requests of this verb before this one. */
  readonly attempt: number;
  /** Decoded; undefined until it has come, and where there is none. */
  body: unknown;
}

interface StoredEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED';
  readonly collection: string;
  readonly version: number;
  readonly object: KubeObject;
}

const verbs = { POST: 'create', PUT: 'update', PATCH: 'patch', DELETE: 'delete' } as const;

export class FakeKube {
  readonly requests: FakeRequest[] = [];
  /** Answers a request itself and returns true, or leaves it to the server. */
  misbehave: (request: FakeRequest) => boolean = () => false;
  readonly #objects = new Map<string, KubeObject>();
  readonly #owners = new Map<string, FieldOwners>();
  readonly #history: StoredEvent[] = [];
  readonly #watches = new Set<{ collection: string; response: ServerResponse }>();
  readonly #server = createServer((request, response) => void this.#answer(request, response));
  #version = 100;
  #uid = 0;

  /** How far its clock is ahead of the real one. */
  clockMs = 0;

  /** A client of it; it tells the time to `time`. */
  async start(time?: ServerTime): Promise<KubeClient> {
    if (!this.#server.listening) {
      await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    }
    const { port } = this.#server.address() as AddressInfo;
    const config = new KubeConfig();
    config.loadFromClusterAndUser(
      { name: 'fake', server: `http://127.0.0.1:${port}`, skipTLSVerify: true },
      { name: 'user' },
    );
    return connectKube(config, undefined, time);
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  count(verb: FakeRequest['verb']): number {
    return this.requests.filter((request) => request.verb === verb).length;
  }

  /** Open ones. */
  connections(): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.getConnections((error, count) => (error ? reject(error) : resolve(count)));
    });
  }

  get version(): number {
    return this.#version;
  }

  /** Writes past the API, as another client would. `path` is the object's. */
  put(path: string, object: object = {}): KubeObject {
    const before = this.#objects.get(path);
    const name = path.slice(path.lastIndexOf('/') + 1);
    const namespace = /\/namespaces\/([^/]+)\//.exec(path)?.[1];
    const given = object as Partial<KubeObject>;
    const stored = {
      ...object,
      metadata: {
        ...given.metadata,
        name,
        ...(namespace !== undefined && { namespace }),
        uid: before?.metadata.uid ?? `uid-${++this.#uid}`,
        resourceVersion: String(++this.#version),
      },
    } as KubeObject;
    this.#objects.set(path, stored);
    this.#publish(before === undefined ? 'ADDED' : 'MODIFIED', path, stored);
    return stored;
  }

  remove(path: string): void {
    const before = this.#objects.get(path);
    if (before === undefined) return;
    this.#objects.delete(path);
    const metadata = { ...before.metadata, resourceVersion: String(++this.#version) };
    this.#publish('DELETED', path, { ...before, metadata } as KubeObject);
  }

  /** What is stored at an object's path. */
  read(path: string): KubeObject | undefined {
    return this.#objects.get(path);
  }

  /** To every open watch, as it is. */
  broadcast(text: string): void {
    for (const { response } of this.#watches) response.write(text);
  }

  closeWatches(): void {
    for (const { response } of this.#watches) response.socket?.destroy();
    this.#watches.clear();
  }

  #publish(type: StoredEvent['type'], path: string, object: KubeObject): void {
    const collection = path.slice(0, path.lastIndexOf('/'));
    const event = { type, collection, version: this.#version, object };
    this.#history.push(event);
    for (const watch of this.#watches) {
      if (watch.collection === collection) watch.response.write(lineOf(event));
    }
  }

  async #answer(message: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(message.url ?? '/', 'http://fake');
    const path = url.pathname;
    const query = url.searchParams;
    const isCollection = path.split('/').length % 2 === (path.startsWith('/api/') ? 0 : 1);
    const verb: FakeRequest['verb'] =
      message.method !== 'GET'
        ? verbs[message.method as keyof typeof verbs]
        : query.get('watch') === 'true'
          ? 'watch'
          : isCollection
            ? 'list'
            : 'get';
    const attempt = this.count(verb);
    response.setHeader('date', new Date(Date.now() + this.clockMs).toUTCString());
    const request: FakeRequest = { verb, path, query, response, attempt, body: undefined };
    this.requests.push(request);
    const chunks: Buffer[] = [];
    for await (const chunk of message) chunks.push(chunk as Buffer);
    if (chunks.length > 0) request.body = JSON.parse(Buffer.concat(chunks).toString());
    if (this.misbehave(request)) return;
    this.#serve(request, (request.body ?? {}) as KubeObject);
  }

  #serve({ verb, path, query, response }: FakeRequest, body: KubeObject): void {
    if (verb === 'list') this.#list(path, query, response);
    else if (verb === 'watch') this.#watch(path, query, response);
    else if (verb === 'create') this.#write(verb, `${path}/${body.metadata.name}`, body, response);
    else if (verb === 'patch' && query.get('fieldManager') !== null && query.has('force')) {
      this.#apply(path, query, body, response);
    } else if (verb === 'update' || verb === 'patch') this.#write(verb, path, body, response);
    else {
      const object = this.#objects.get(path);
      const { preconditions = {} } = body as { preconditions?: { resourceVersion?: string } };
      const present = object?.metadata.resourceVersion;
      const isPresent = (preconditions.resourceVersion ?? present) === present;
      if (object === undefined) refuse(response, 404, 'NotFound', `${path} not found`);
      else if (!isPresent) refuse(response, 409, 'Conflict');
      else send(response, 200, object);
      if (verb === 'delete' && isPresent) this.remove(path);
    }
  }

  #write(
    verb: 'create' | 'update' | 'patch',
    path: string,
    body: KubeObject,
    response: ServerResponse,
  ): void {
    const before = this.#objects.get(path);
    const badTime = Object.entries((body.spec ?? {}) as object).find(
      ([key, value]) => /Time$/.test(key) && !/\.\d{6}Z$/.test(String(value)),
    );
    const wanted = body.metadata?.resourceVersion;
    const isStale = wanted !== undefined && wanted !== before?.metadata.resourceVersion;
    if (badTime !== undefined) {
      refuse(response, 400, 'BadRequest', `${badTime[0]}: not a MicroTime: ${badTime[1]}`);
    } else if (verb === 'create' && before !== undefined) {
      refuse(response, 409, 'AlreadyExists', `${path} already exists`);
    } else if (verb !== 'create' && before === undefined) {
      refuse(response, 404, 'NotFound', `${path} not found`);
    } else if (verb !== 'create' && isStale) {
      refuse(response, 409, 'Conflict', `${path} has been modified`);
    } else {
      const merged = verb === 'patch' ? { ...before, ...body } : body;
      send(response, verb === 'create' ? 201 : 200, this.put(path, merged));
    }
  }

  #apply(path: string, query: URLSearchParams, body: KubeObject, response: ServerResponse): void {
    const before = this.#objects.get(path);
    const owners = before === undefined ? new Map() : (this.#owners.get(path) ?? new Map());
    const manager = query.get('fieldManager') ?? '';
    const applied = applyFields(before, owners, body, manager, query.get('force') === 'true');
    if ('conflicts' in applied) {
      refuse(response, 409, 'Conflict', `others own ${applied.conflicts.join(', ')}`);
      return;
    }
    this.#owners.set(path, applied.owners);
    send(response, before === undefined ? 201 : 200, this.put(path, applied.object));
  }

  #list(path: string, query: URLSearchParams, response: ServerResponse): void {
    const items = [...this.#objects]
      .filter(([key]) => key.slice(0, key.lastIndexOf('/')) === path)
      .map(([, object]) => object);
    const start = Number(query.get('continue') ?? 0);
    const limit = Number(query.get('limit') ?? items.length);
    const page = items.slice(start, start + limit);
    const isMore = start + limit < items.length;
    send(response, 200, {
      kind: 'List',
      metadata: {
        resourceVersion: String(this.#version),
        ...(isMore && { continue: String(start + limit) }),
      },
      items: page,
    });
  }

  #watch(path: string, query: URLSearchParams, response: ServerResponse): void {
    const from = Number(query.get('resourceVersion') ?? 0);
    response.writeHead(200, { 'content-type': 'application/json' });
    response.flushHeaders();
    const watch = { collection: path, response };
    this.#watches.add(watch);
    response.on('close', () => this.#watches.delete(watch));
    for (const event of this.#history) {
      if (event.collection === path && event.version > from) response.write(lineOf(event));
    }
  }
}

const lineOf = ({ type, object }: StoredEvent): string => `${JSON.stringify({ type, object })}\n`;

function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

/** A Status object. */
export function refuse(
  response: ServerResponse,
  status: number,
  reason: string,
  message = reason,
  headers: Record<string, string> = {},
): void {
  response
    .writeHead(status, { 'content-type': 'application/json', ...headers })
    .end(JSON.stringify({ kind: 'Status', status: 'Failure', code: status, reason, message }));
}
