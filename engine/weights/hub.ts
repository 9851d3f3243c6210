/** Models from a Hugging Face hub: which files of a repository are needed, and their download into a cache entry. */
import { rm, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { CachedFile, Manifest } from './cache-entry.ts';
import { type Digest, downloadFile, fetchJson, type Transport } from './download.ts';
import { CheckpointError } from './errors.ts';
import { isObject } from './strict-json.ts';

export interface HubRequest {
  readonly endpoint: string;
  readonly repository: string;
  readonly revision: string;
}

/** Called with the bytes present over all files of the download. */
export type OnHubBytes = (file: string, received: number, total: number) => void;

export interface HubFile {
  readonly path: string;
  readonly size: number;
  readonly digest: Digest;
}

const PLAIN_FILES = new Set([
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'vocab.json',
  'merges.txt',
  'special_tokens_map.json',
  'added_tokens.json',
  'chat_template.jinja',
  'chat_template.json',
  'preprocessor_config.json',
  'model.safetensors.index.json',
]);
const SHARD = /^model(-\d+-of-\d+)?\.safetensors$/;

/**
 * Fills `staging` with the model's files at the commit that `revision` names now, each checked against the hub's size and
 * checksum. Files of an earlier, interrupted try are continued. Throws DOWNLOAD_FAILED, DOWNLOAD_CORRUPT, CACHE_DISK_FULL.
 */
export async function fetchFromHub(
  request: HubRequest,
  staging: string,
  transport: Transport,
  onBytes: OnHubBytes,
): Promise<Manifest> {
  const { repository, revision } = request;
  const { commit, files: wanted, urlOf } = await listModelFiles(request, transport);
  const total = wanted.reduce((sum, file) => sum + file.size, 0);
  await checkRoom(staging, wanted, total);
  const files: CachedFile[] = [];
  let before = 0;
  for (const { path, size, digest } of wanted) {
    const url = urlOf(path);
    const sha256 = await downloadFile({ url, size, digest }, join(staging, path), transport, (n) =>
      onBytes(path, before + n, total),
    );
    before += size;
    files.push({ path, size, sha256 });
  }
  return { version: 1, source: `hf://${repository}@${revision}`, revision: commit, files };
}

export interface HubListing {
  readonly commit: string;
  readonly files: readonly HubFile[];
  readonly urlOf: (path: string) => string;
}

/** The files of the model at the commit that `revision` names now. Throws DOWNLOAD_FAILED. */
export async function listModelFiles(
  { endpoint, repository, revision }: HubRequest,
  transport: Transport,
): Promise<HubListing> {
  const api = `${endpoint}/api/models/${repository}`;
  const commit = await readCommit(`${api}/revision/${encodeURIComponent(revision)}`, transport);
  const all = await listFiles(`${api}/tree/${commit}`, transport);
  const base = `${endpoint}/${repository}`;
  return {
    commit,
    files: chooseFiles(all, base),
    urlOf: (path) => `${base}/resolve/${commit}/${path}`,
  };
}

async function readCommit(url: string, transport: Transport): Promise<string> {
  const { value } = await fetchJson(url, transport);
  const commit = isObject(value) ? value.sha : undefined;
  if (typeof commit === 'string' && /^[0-9a-f]{7,64}$/.test(commit)) return commit;
  throw malformed(url, "a commit in 'sha'");
}

/** Files at the top of the repository; the listing comes in pages, chained by Link headers. */
async function listFiles(firstPage: string, transport: Transport): Promise<HubFile[]> {
  const files: HubFile[] = [];
  const seen = new Set<string>();
  for (let url: string | undefined = firstPage; url !== undefined; ) {
    if (seen.has(url)) throw malformed(url, 'pages that end');
    seen.add(url);
    const { value, link } = await fetchJson(url, transport);
    if (!Array.isArray(value)) throw malformed(url, 'a list of files');
    for (const entry of value) {
      if (!isObject(entry) || entry.type !== 'file') continue;
      files.push(readFileEntry(entry, url));
    }
    url = nextPage(link, url);
  }
  return files;
}

function readFileEntry(entry: Record<string, unknown>, url: string): HubFile {
  const { path, size, oid, lfs } = entry;
  const hash = isObject(lfs) ? lfs.oid : oid;
  if (
    typeof path !== 'string' ||
    !Number.isSafeInteger(size) ||
    (size as number) < 0 ||
    typeof hash !== 'string'
  ) {
    throw malformed(url, 'path, size and oid of every file');
  }
  return {
    path,
    size: size as number,
    digest: { kind: isObject(lfs) ? 'sha256' : 'gitBlob', value: hash.replace(/^sha256:/, '') },
  };
}

/** The next page, which must stay on the hub: the request carries the token. */
function nextPage(link: string | null, current: string): string | undefined {
  const target = /<([^>]*)>;\s*rel="next"/.exec(link ?? '')?.[1];
  if (target === undefined) return undefined;
  const next = new URL(target, current);
  if (next.origin !== new URL(current).origin) throw malformed(current, 'pages of the same host');
  return next.href;
}

/** Config, tokenizer and safetensors; for a repository without those, its only .gguf file. */
function chooseFiles(files: readonly HubFile[], repository: string): HubFile[] {
  const chosen = files.filter(({ path }) => PLAIN_FILES.has(path) || SHARD.test(path));
  if (chosen.some(({ path }) => SHARD.test(path)) && chosen.some((f) => f.path === 'config.json')) {
    return chosen;
  }
  const gguf = files.filter(({ path }) => /^[\w][\w.+-]*\.gguf$/.test(path));
  if (gguf.length === 1) return gguf;
  throw new CheckpointError('DOWNLOAD_FAILED', 'the repository holds no model that can be read', {
    file: repository,
    expected: 'config.json with model*.safetensors, or exactly one .gguf file',
    received:
      gguf.length > 1
        ? `${gguf.map(({ path }) => path).join(', ')}; download one and give its path`
        : 'neither',
  });
}

async function checkRoom(staging: string, files: readonly HubFile[], total: number): Promise<void> {
  let present = 0;
  for (const { path } of files) {
    for (const name of [path, `${path}.part`]) {
      present += await stat(join(staging, name)).then(
        ({ size }) => size,
        () => 0,
      );
    }
  }
  const { bavail, bsize } = await statfs(staging);
  const missing = total - present;
  if (missing <= bavail * bsize) return;
  if (present === 0) await rm(staging, { recursive: true, force: true });
  throw new CheckpointError('CACHE_DISK_FULL', 'the model does not fit the disk of the cache', {
    file: staging,
    expected: `${missing} bytes free`,
    received: `${bavail * bsize}`,
  });
}

function malformed(url: string, expected: string): CheckpointError {
  return new CheckpointError('DOWNLOAD_FAILED', 'the hub answered something else than asked', {
    file: url,
    expected,
  });
}
