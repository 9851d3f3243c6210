import assert from 'node:assert/strict';
import { totalmem } from 'node:os';
import { test } from 'node:test';
import { loadModel } from '#engine/start.ts';
import { createReferenceBackend } from '#kernels/reference/backend.ts';
import { findDefaultModel } from '../../support/default-model.ts';

for (const [name, bytes, code] of [
  ['larger than the machine', 2 * totalmem(), 'CACHE_MEMORY_TOO_LARGE'],
  ['too small for one request', 2 ** 20, 'CACHE_MEMORY_TOO_SMALL'],
] as const) {
  test(`a model is not loaded with cache memory ${name}`, async (context) => {
    const found = await findDefaultModel();
    if ('skip' in found) return context.skip(found.skip);
    await assert.rejects(
      loadModel(
        {
          model: found.path,
          dtype: 'auto',
          cacheDirectory: '/nonexistent',
          maxSequences: 4,
          maxBatchedTokens: 64,
          kvCacheMemory: { bytes },
        },
        { ...createReferenceBackend(), load: () => assert.fail('weights were loaded') },
      ),
      { code },
    );
  });
}
