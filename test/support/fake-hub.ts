/** A local Hugging Face hub that can be told to misbehave: the parts of its API that downloads use. */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';

export interface HubFileRequest {
  readonly path: string;
  /** First byte asked for. */
  readonly offset: number;
  readonly bytes: Buffer;
  /** Requests for this file before this one. */
  readonly attempt: number;
}

/** Answers a file request itself and returns true, or leaves it to the hub. */
export type Misbehaviour = (
  file: HubFileRequest,
  response: ServerResponse,
  request: IncomingMessage,
) => boolean;

export interface FakeHub {
  readonly endpoint: string;
  /** 'path@offset' of each file request, in order. */
  readonly requests: string[];
  readonly authorizations: (string | undefined)[];
  misbehave: Misbehaviour;
  /** Files per page of the listing. */
  pageSize: number;
  /** Size and checksum in the listing, where they shall differ from the file's. */
  readonly announced: Map<string, { size?: number; oid?: string }>;
}

export const COMMIT = '0123456789abcdef0123456789abcdef01234567';

/** Serves `files` as repository org/name at every revision. Closed after the test. */
export async function startFakeHub(
  context: TestContext,
  files: Readonly<Record<string, Buffer>>,
): Promise<FakeHub> {
  const attempts = new Map<string, number>();
  const server = createServer((request, response) => {
    hub.authorizations.push(request.headers.authorization);
    const url = new URL(request.url ?? '/', hub.endpoint);
    if (url.pathname.startsWith('/api/models/org/name/revision/')) {
      response.end(JSON.stringify({ sha: COMMIT }));
    } else if (url.pathname === `/api/models/org/name/tree/${COMMIT}`) {
      sendListing(Number(url.searchParams.get('from') ?? 0), response);
    } else if (url.pathname.startsWith(`/org/name/resolve/${COMMIT}/`)) {
      sendFile(url.pathname.split('/').at(-1) ?? '', request, response);
    } else {
      response.writeHead(404).end();
    }
  });
  const sendListing = (from: number, response: ServerResponse) => {
    const page = Object.entries(files).slice(from, from + hub.pageSize);
    if (from + page.length < Object.keys(files).length) {
      const next = `/api/models/org/name/tree/${COMMIT}?from=${from + page.length}`;
      response.setHeader('link', `<${hub.endpoint}${next}>; rel="next"`);
    }
    response.end(JSON.stringify(page.map(([path, bytes]) => describe(path, bytes))));
  };
  // Weights are stored by SHA-256, small files as git blobs.
  const describe = (path: string, bytes: Buffer) => {
    const changes = hub.announced.get(path);
    const size = changes?.size ?? bytes.length;
    const sha256 = createHash('sha256').update(bytes).digest('hex');
    const blob = createHash('sha1').update(`blob ${bytes.length}\0`).update(bytes).digest('hex');
    return path.endsWith('.json')
      ? { type: 'file', path, size, oid: changes?.oid ?? blob }
      : { type: 'file', path, size, oid: blob, lfs: { oid: changes?.oid ?? sha256, size } };
  };
  const sendFile = (path: string, request: IncomingMessage, response: ServerResponse) => {
    const bytes = files[path];
    if (bytes === undefined) {
      response.writeHead(404).end();
      return;
    }
    const offset = Number(/^bytes=(\d+)-$/.exec(request.headers.range ?? '')?.[1] ?? 0);
    const attempt = attempts.get(path) ?? 0;
    attempts.set(path, attempt + 1);
    hub.requests.push(`${path}@${offset}`);
    if (hub.misbehave({ path, offset, bytes, attempt }, response, request)) return;
    if (offset > 0) {
      response.writeHead(206, {
        'content-range': `bytes ${offset}-${bytes.length - 1}/${bytes.length}`,
      });
    }
    response.end(bytes.subarray(offset));
  };
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  const hub: FakeHub = {
    endpoint: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests: [],
    authorizations: [],
    misbehave: () => false,
    pageSize: 2,
    announced: new Map(),
  };
  context.after(() => {
    server.closeAllConnections();
    server.close();
  });
  return hub;
}
