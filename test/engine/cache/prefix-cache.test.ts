import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BlockKeyChain } from '#engine/cache/block-key.ts';
import { PrefixCache } from '#engine/cache/prefix-cache.ts';

const BLOCK_SIZE = 2;

function keysOf(tokens: readonly number[], salt: string | undefined): string[] {
  const chain = new BlockKeyChain(BLOCK_SIZE);
  const keys: string[] = [];
  let parent = chain.root(salt);
  for (let start = 0; start + BLOCK_SIZE <= tokens.length; start += BLOCK_SIZE) {
    parent = chain.block(parent, Int32Array.from(tokens), start);
    keys.push(parent);
  }
  return keys;
}

test('two blocks have one key exactly when salt and all tokens up to their end agree', () => {
  const content = fc.record({
    tokens: fc.array(fc.constantFrom(0, 1, -1, 256), { maxLength: 8 }),
    salt: fc.constantFrom(undefined, '', 'a', 'b', '\0'.repeat(32)),
  });
  fc.assert(
    fc.property(content, content, (a, b) => {
      const keysA = keysOf(a.tokens, a.salt);
      const keysB = keysOf(b.tokens, b.salt);
      for (const [i, keyA] of keysA.entries()) {
        for (const [j, keyB] of keysB.entries()) {
          const isSame =
            a.salt === b.salt &&
            i === j &&
            a.tokens.slice(0, (i + 1) * BLOCK_SIZE).join() ===
              b.tokens.slice(0, (j + 1) * BLOCK_SIZE).join();
          assert.equal(keyA === keyB, isSame);
        }
      }
    }),
    { numRuns: 500 },
  );
});

test('a lookup stops at the first block that is not there, and at its limit', () => {
  const cache = new PrefixCache();
  const keys = keysOf([1, 2, 3, 4, 5, 6, 7, 8], undefined);
  for (const [index, key] of keys.entries()) cache.insert(key, index + 10);
  assert.deepEqual(cache.match(keys, 4), [10, 11, 12, 13]);
  assert.deepEqual(cache.match(keys, 2), [10, 11]);
  cache.evict(11);
  assert.deepEqual(cache.match(keys, 4), [10]);
  assert.equal(cache.size, 3);
});

test('content that is offered twice stays with its first block, and goes when that block does', () => {
  const cache = new PrefixCache();
  const [key] = keysOf([1, 2], undefined) as [string];
  cache.insert(key, 5);
  cache.insert(key, 6);
  assert.deepEqual(cache.match([key], 1), [5]);
  cache.evict(6);
  assert.deepEqual(cache.match([key], 1), [5]);
  cache.evict(5);
  assert.deepEqual(cache.match([key], 1), []);
  assert.equal(cache.size, 0);
});
