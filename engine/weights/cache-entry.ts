/**
 * A model in the cache: a directory that is there whole or not at all. It is filled under `NAME.partial`, gets a manifest
 * last, and is renamed into place; what has no manifest, or not the sizes the manifest says, is not a model.
 */
import { existsSync } from 'node:fs';
import { mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { CheckpointError } from './errors.ts';
import { withFileLock } from './file-lock.ts';

const MANIFEST = '.nvlm-manifest.json';

export interface CachedFile {
  readonly path: string;
  readonly size: number;
  readonly sha256: string;
}

export interface Manifest {
  readonly version: 1;
  readonly source: string;
  /** What the source's moving name stood for, where it has one. */
  readonly revision?: string;
  readonly files: readonly CachedFile[];
}

export interface FillOptions {
  readonly signal?: AbortSignal | undefined;
  /** Another process is filling the same entry; called once. */
  readonly onWait?: () => void;
}

/** The manifest of a whole entry, undefined when there is none or files are missing or of another size. */
export async function readCacheEntry(directory: string): Promise<Manifest | undefined> {
  try {
    const manifest: Manifest = JSON.parse(await readFile(join(directory, MANIFEST), 'utf8'));
    for (const { path, size } of manifest.files) {
      if ((await stat(join(directory, path))).size !== size) return undefined;
    }
    return manifest;
  } catch {
    return undefined;
  }
}

/**
 * The manifest of the entry, filling it first when it is not whole. `fill` writes into a staging directory that survives
 * interruptions, so that it can resume; it returns what it wrote, verified. File-system errors come back as CACHE_DISK_FULL
 * and CACHE_UNUSABLE.
 */
export async function ensureCacheEntry(
  directory: string,
  options: FillOptions,
  fill: (stagingDirectory: string) => Promise<Manifest>,
): Promise<{ readonly manifest: Manifest; readonly fromCache: boolean }> {
  const present = await readCacheEntry(directory);
  if (present !== undefined) return { manifest: present, fromCache: true };
  try {
    await mkdir(dirname(directory), { recursive: true });
    return await withFileLock(`${directory}.lock`, options, async () => {
      const meanwhile = await readCacheEntry(directory);
      if (meanwhile !== undefined) return { manifest: meanwhile, fromCache: true };
      const staging = `${directory}.partial`;
      await mkdir(staging, { recursive: true });
      const manifest = await fill(staging);
      await publish(staging, directory, manifest);
      return { manifest, fromCache: false };
    });
  } catch (error) {
    throw await asCheckpointError(error, directory, options.signal?.aborted === true);
  }
}

async function publish(staging: string, directory: string, manifest: Manifest): Promise<void> {
  const path = join(staging, MANIFEST);
  await writeFile(path, `${JSON.stringify(manifest, undefined, 2)}\n`);
  await syncToDisk(path);
  await syncToDisk(staging);
  if (existsSync(directory)) await rm(directory, { recursive: true });
  await rename(staging, directory);
  await syncToDisk(dirname(directory));
}

/** fsync of a file, or of a directory's list of names. */
export async function syncToDisk(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** System errors of the cache directory in this layer's words; other errors unchanged. */
async function asCheckpointError(
  error: unknown,
  directory: string,
  isAborted: boolean,
): Promise<unknown> {
  if (error instanceof CheckpointError) return error;
  if (isAborted) {
    return new CheckpointError(
      'DOWNLOAD_ABORTED',
      'the download was cancelled',
      {},
      { cause: error },
    );
  }
  if (!(error instanceof Error)) return error;
  const { code } = error as NodeJS.ErrnoException;
  if (code === 'ENOSPC' || code === 'EDQUOT') {
    return new CheckpointError(
      'CACHE_DISK_FULL',
      'no room is left on the disk of the model cache; free some or set another cache directory. ' +
        'What the source can resume is kept for the next try',
      { file: `${directory}.partial` },
      { cause: error },
    );
  }
  if (code === undefined) return error;
  const mayNot = await tellRights(error, directory);
  return new CheckpointError(
    'CACHE_UNUSABLE',
    `the model cache cannot be used (${error.message}${mayNot}); make it writable or set another cache directory`,
    { file: directory },
    { cause: error },
  );
}

/** Who was refused and who may write, for an error that is about that; else nothing. */
async function tellRights(error: NodeJS.ErrnoException, directory: string): Promise<string> {
  const user = process.geteuid?.();
  if ((error.code !== 'EACCES' && error.code !== 'EPERM') || user === undefined) return '';
  // The first that is there is what refused.
  for (let path = error.path ?? directory; ; path = dirname(path)) {
    try {
      const { uid, gid, mode } = await stat(path);
      const rights = (mode & 0o7777).toString(8).padStart(4, '0');
      return `: this process is user ${user}, and ${path} belongs to user ${uid} and group ${gid} with mode ${rights}`;
    } catch {
      if (path === dirname(path)) return '';
    }
  }
}
