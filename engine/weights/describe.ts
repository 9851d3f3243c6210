/** What a model is, without its weights: the config and how many bytes they are. */
import { join } from 'node:path';
import { readCacheEntry } from './cache-entry.ts';
import { fetchJson, type Transport } from './download.ts';
import { CheckpointError } from './errors.ts';
import { listModelFiles } from './hub.ts';
import { openCheckpoint } from './open.ts';
import { cacheEntryPath, parseModelReference } from './reference.ts';
import { hubTransport, type ResolveOptions, resolveModel } from './resolve.ts';
import { isObject } from './strict-json.ts';

export interface ModelDescription {
  /** Numbers, switches and short texts of the config; of its parts `*_config` the same. */
  readonly config: Readonly<Record<string, unknown>>;
  readonly weightBytes: number;
}

/**
 * Of an hf:// model that is not in the cache only the listing and config.json are fetched; other models are resolved as for
 * serving. Throws CheckpointError.
 */
export async function describeModel(
  reference: string,
  options: ResolveOptions,
): Promise<ModelDescription> {
  const parsed = parseModelReference(reference);
  const isRemote =
    parsed.kind === 'hf' &&
    (await readCacheEntry(cacheEntryPath(options.cacheDirectory, parsed))) === undefined;
  if (isRemote) {
    const { endpoint, transport } = hubTransport(options);
    return describeHubModel({ ...parsed, endpoint }, transport);
  }
  const { path, languageModelPath } = await resolveModel(reference, options);
  const { config, tensors } = await openCheckpoint(path, languageModelPath);
  let weightBytes = 0;
  for (const { bytes } of tensors.values()) {
    if ('data' in bytes) weightBytes += bytes.data.byteLength;
    else if ('path' in bytes) weightBytes += bytes.byteLength;
  }
  return { config: reduce(config), weightBytes };
}

async function describeHubModel(
  request: { readonly endpoint: string; readonly repository: string; readonly revision: string },
  transport: Transport,
): Promise<ModelDescription> {
  const { files, urlOf } = await listModelFiles(request, transport);
  const weights = files.filter(({ path }) => /\.(safetensors|gguf)$/.test(path));
  const weightBytes = weights.reduce((sum, { size }) => sum + size, 0);
  if (!files.some(({ path }) => path === 'config.json')) {
    throw new CheckpointError(
      'CHECKPOINT_CONFIG_INVALID',
      'a GGUF file has its configuration inside and is described only once it is in the cache',
      { file: join(request.repository, weights[0]?.path ?? '') },
    );
  }
  const url = urlOf('config.json');
  const { value } = await fetchJson(url, transport);
  if (isObject(value)) return { config: reduce(value), weightBytes };
  throw new CheckpointError('CHECKPOINT_CONFIG_INVALID', 'config.json is no object', { file: url });
}

const LONGEST_TEXT = 64;

function reduce(config: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const kept: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(config)) {
    const isShort = typeof value === 'string' && value.length <= LONGEST_TEXT;
    if (isShort || typeof value === 'number' || typeof value === 'boolean') kept[key] = value;
    else if (isObject(value) && key.endsWith('_config')) kept[key] = reduce(value);
  }
  return kept;
}
