/** The default language model through the cache, as a user gets it; tests that need it skip by name where it cannot be fetched. */
import { homedir } from 'node:os';
import { join } from 'node:path';
import { CheckpointError } from '#engine/weights/errors.ts';
import { DEFAULT_LANGUAGE_MODEL_REFERENCE, resolveModel } from '#engine/weights/resolve.ts';

let outcome: Promise<{ readonly path: string } | { readonly skip: string }> | undefined;

/** The path of the .gguf file, or why there is none. Asked for once per process. */
export function findDefaultModel(): Promise<{ readonly path: string } | { readonly skip: string }> {
  outcome ??= resolveDefaultModel();
  return outcome;
}

async function resolveDefaultModel() {
  const cacheHome = process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache');
  try {
    return await resolveModel(DEFAULT_LANGUAGE_MODEL_REFERENCE, {
      cacheDirectory: join(cacheHome, 'nvlm', 'models'),
    });
  } catch (error) {
    if (!(error instanceof CheckpointError) || error.code === 'DOWNLOAD_CORRUPT') throw error;
    return {
      skip: `${DEFAULT_LANGUAGE_MODEL_REFERENCE} is not in the cache and not fetchable: ${error.message}`,
    };
  }
}
