/** HTTP downloads that resume, retry what is worth retrying and keep only what has the promised length and checksum. */
import { createHash } from 'node:crypto';
import { createReadStream, existsSync } from 'node:fs';
import { type FileHandle, open, rename, rm, stat } from 'node:fs/promises';
import { CheckpointError, shorten } from './errors.ts';

/** Tries in a row without at least this much new data before a transfer is given up. */
const MAX_TRIES = 6;
const WORTHWHILE_BYTES = 1 << 20;
const STALL_MS = 60_000;
const MAX_WAIT_MS = 60_000;
/** Listings, not files. */
const MAX_JSON_BYTES = 16 << 20;

export interface Transport {
  readonly headers: Readonly<Record<string, string>>;
  readonly signal?: AbortSignal | undefined;
  /** Pause between tries; handed in so that tests need not wait. */
  readonly wait: (milliseconds: number) => Promise<void>;
}

/** Checksums as hubs give them: SHA-256 of the bytes, or the SHA-1 of a git blob (a header with the length, then the bytes). */
export interface Digest {
  readonly kind: 'sha256' | 'gitBlob';
  readonly value: string;
}

export interface RemoteFile {
  readonly url: string;
  readonly size: number;
  readonly digest: Digest;
}

/** GET of a JSON document, with its Link header. Throws DOWNLOAD_FAILED. */
export async function fetchJson(
  url: string,
  transport: Transport,
): Promise<{ readonly value: unknown; readonly link: string | null }> {
  return retrying(url, transport, async () => {
    const response = await request(url, transport, {});
    const chunks: Uint8Array[] = [];
    let length = 0;
    for await (const chunk of bodyOf(response)) {
      length += chunk.length;
      if (length > MAX_JSON_BYTES) throw failed(url, `more than ${MAX_JSON_BYTES} bytes of JSON`);
      chunks.push(chunk);
    }
    try {
      const value: unknown = JSON.parse(Buffer.concat(chunks).toString('utf8'));
      return { value, link: response.headers.get('link') };
    } catch (cause) {
      throw failed(url, 'the answer is not JSON', cause);
    }
  });
}

/**
 * Downloads to `target` by way of `target.part`, continuing what an earlier try left there. Returns the SHA-256 of the
 * whole file. Throws DOWNLOAD_FAILED (the part stays) or DOWNLOAD_CORRUPT (the part is removed); system errors pass through.
 * `onBytes` gets the bytes present so far.
 */
export async function downloadFile(
  file: RemoteFile,
  target: string,
  transport: Transport,
  onBytes: (present: number) => void,
): Promise<string> {
  const part = `${target}.part`;
  if (existsSync(target)) await rename(target, part);
  await retrying(file.url, transport, (noteProgress) =>
    receiveRest(file, part, transport, onBytes, noteProgress),
  );
  const { sha256, gitBlob } = await hashFile(part, file.size);
  const received = file.digest.kind === 'sha256' ? sha256 : gitBlob;
  if (received !== file.digest.value) {
    await rm(part, { force: true });
    throw new CheckpointError('DOWNLOAD_CORRUPT', 'the checksum is wrong; the file was removed', {
      file: file.url,
      expected: `${file.digest.kind} ${file.digest.value}`,
      received,
    });
  }
  await rename(part, target);
  return sha256;
}

/** Appends what is missing of `part` from one response. Returns when the file has its full length. */
async function receiveRest(
  file: RemoteFile,
  part: string,
  transport: Transport,
  onBytes: (present: number) => void,
  noteProgress: (bytes: number) => void,
): Promise<void> {
  const handle = await open(part, 'a');
  try {
    let present = (await handle.stat()).size;
    if (present > file.size) {
      await handle.truncate(0);
      present = 0;
    }
    onBytes(present);
    if (present === file.size) return;
    const response = await request(
      file.url,
      transport,
      present > 0 ? { range: `bytes=${present}-` } : {},
    );
    if (present > 0 && !continuesAt(response, present)) {
      await handle.truncate(0);
      present = 0;
      if (response.status !== 200) throw new Retry('the server does not continue where asked');
    }
    for await (const chunk of bodyOf(response)) {
      if (present + chunk.length > file.size) {
        await handle.truncate(0);
        throw new CheckpointError('DOWNLOAD_CORRUPT', 'longer than announced; it was removed', {
          file: file.url,
          expected: `${file.size} bytes`,
          received: 'more',
        });
      }
      await writeFully(handle, chunk);
      present += chunk.length;
      noteProgress(chunk.length);
      onBytes(present);
    }
    if (present < file.size) {
      throw new Retry(`the connection ended after ${present} of ${file.size} bytes`);
    }
    await handle.sync();
  } finally {
    await handle.close();
  }
}

async function writeFully(handle: FileHandle, chunk: Uint8Array): Promise<void> {
  for (let done = 0; done < chunk.length; ) {
    done += (await handle.write(chunk, done)).bytesWritten;
  }
}

function continuesAt(response: Response, offset: number): boolean {
  const range = response.headers.get('content-range') ?? '';
  return response.status === 206 && range.startsWith(`bytes ${offset}-`);
}

/** What is worth another try, after a pause if the server named one. */
class Retry extends Error {
  readonly afterMs: number | undefined;
  constructor(message: string, afterMs?: number, options?: ErrorOptions) {
    super(message, options);
    this.afterMs = afterMs;
  }
}

async function retrying<T>(
  url: string,
  transport: Transport,
  attempt: (noteProgress: (bytes: number) => void) => Promise<T>,
): Promise<T> {
  let received = 0;
  for (let tries = 1; ; tries++) {
    try {
      return await attempt((bytes) => {
        received += bytes;
        if (received < WORTHWHILE_BYTES) return;
        received = 0;
        tries = 0;
      });
    } catch (error) {
      transport.signal?.throwIfAborted();
      if (!(error instanceof Retry)) throw error;
      if (tries >= MAX_TRIES) throw failed(url, `gave up: ${error.message}`, error);
      await transport.wait(Math.min(error.afterMs ?? 500 * 2 ** Math.max(tries, 0), MAX_WAIT_MS));
    }
  }
}

async function request(
  url: string,
  transport: Transport,
  headers: Readonly<Record<string, string>>,
): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(url, {
      // A compressed body would make lengths and ranges meaningless.
      headers: { 'accept-encoding': 'identity', ...transport.headers, ...headers },
      ...(transport.signal ? { signal: transport.signal } : {}),
    });
  } catch (cause) {
    throw new Retry(`no connection (${describeCause(cause)})`, undefined, { cause });
  }
  const { status } = response;
  if (status === 200 || status === 206 || status === 416) return response;
  await response.body?.cancel();
  if (status === 408 || status === 429 || status >= 500) {
    throw new Retry(`the server answered ${status}`, retryAfterMs(response));
  }
  const advice =
    status === 401 || status === 403
      ? '; the model may need an access token, or its licence accepted'
      : status === 404
        ? '; check the name and the revision'
        : '';
  throw failed(url, `the server answered ${status}${advice}`);
}

/** The body's chunks; a connection that breaks or says nothing for a minute ends in a Retry. */
async function* bodyOf(response: Response): AsyncGenerator<Uint8Array> {
  if (response.body === null) return;
  const reader = response.body.getReader();
  try {
    for (;;) {
      const stall = Promise.withResolvers<never>();
      const timer = setTimeout(() => stall.reject(new Error('no data for a minute')), STALL_MS);
      try {
        const { done, value } = await Promise.race([reader.read(), stall.promise]);
        if (done) return;
        yield value;
      } finally {
        clearTimeout(timer);
      }
    }
  } catch (cause) {
    throw new Retry(`the connection broke (${describeCause(cause)})`, undefined, { cause });
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

/** Seconds or an HTTP date. */
function retryAfterMs(response: Response): number | undefined {
  const value = response.headers.get('retry-after');
  if (value === null) return undefined;
  const milliseconds = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now();
  return Number.isFinite(milliseconds) ? Math.max(milliseconds, 0) : undefined;
}

function describeCause(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.cause instanceof Error ? `${error.message}: ${error.cause.message}` : error.message;
}

function failed(url: string, summary: string, cause?: unknown): CheckpointError {
  return new CheckpointError('DOWNLOAD_FAILED', shorten(summary, 500), { file: url }, { cause });
}

/** SHA-256 of a file, and its git blob id. */
export async function hashFile(
  path: string,
  size: number | undefined = undefined,
): Promise<{ readonly sha256: string; readonly gitBlob: string }> {
  const length = size ?? (await stat(path)).size;
  const sha256 = createHash('sha256');
  const gitBlob = createHash('sha1').update(`blob ${length}\0`);
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) {
    sha256.update(chunk);
    gitBlob.update(chunk);
  }
  return { sha256: sha256.digest('hex'), gitBlob: gitBlob.digest('hex') };
}
