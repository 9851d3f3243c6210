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

test('keys and values in int8 take little more than half the memory of bfloat16, and follow the dtype unless they are named', async (context) => {
  const found = await findDefaultModel();
  if ('skip' in found) return context.skip(found.skip);
  const cached = async (kvCacheDtype?: 'bfloat16' | 'int8') => {
    const model = await loadModel({
      model: found.path,
      dtype: 'auto',
      cacheDirectory: '/nonexistent',
      maxSequences: 4,
      maxBatchedTokens: 64,
      maxModelLength: 256,
      kvCacheDtype,
    });
    const { cacheType, cacheBytes } = model.loaded;
    await model.close();
    return { cacheType, bytesPerBlock: cacheBytes / model.blockCount };
  };
  const wide = await cached('bfloat16');
  const named = await cached('int8');
  // 64 codes and two scales for a key, 64 and one for a value, of 2 * 64 * 2 bytes; whole cache lines for 16 tokens.
  assert.equal(named.bytesPerBlock / wide.bytesPerBlock, (2 * (1024 + 64)) / (2 * 2048));
  assert.equal(wide.cacheType, 'bfloat16');
  assert.deepEqual(await cached(), named);
});
