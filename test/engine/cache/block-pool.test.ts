import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { BlockPool } from '#engine/cache/block-pool.ts';

type Command =
  | { readonly kind: 'allocate' }
  | { readonly kind: 'acquire' | 'free'; readonly pick: number };

const commands = fc.array(
  fc.oneof(
    fc.constant<Command>({ kind: 'allocate' }),
    fc.record({
      kind: fc.constantFrom<'acquire' | 'free'>('acquire', 'free'),
      pick: fc.nat(1000),
    }),
  ),
  { maxLength: 120, size: 'max' },
);

test('a pool hands out the least recently freed block, whatever was held, shared and given back before', () => {
  fc.assert(
    fc.property(fc.integer({ min: 2, max: 9 }), commands, (blockCount, script) => {
      const reused: number[] = [];
      const pool = new BlockPool(blockCount, (block) => reused.push(block));
      const held = new Map<number, number>();
      let free = Array.from({ length: blockCount - 1 }, (_, index) => index + 1);
      const expectedReuse: number[] = [];
      for (const command of script) {
        if (command.kind === 'allocate') {
          const expected = free.shift();
          assert.equal(pool.allocate(), expected ?? -1);
          if (expected === undefined) continue;
          held.set(expected, 1);
          expectedReuse.push(expected);
        } else if (command.kind === 'acquire') {
          const block = 1 + (command.pick % (blockCount - 1));
          pool.acquire(block);
          free = free.filter((one) => one !== block);
          held.set(block, (held.get(block) ?? 0) + 1);
        } else {
          const blocks = [...held.keys()];
          if (blocks.length === 0) continue;
          const first = command.pick % blocks.length;
          const given = blocks.slice(first, first + 3);
          pool.free(Int32Array.from([...given, 0]), given.length);
          for (const block of given.toReversed()) {
            const left = held.get(block)! - 1;
            if (left > 0) held.set(block, left);
            else {
              held.delete(block);
              free.push(block);
            }
          }
        }
        assert.deepEqual(pool.freeList(), free);
        assert.equal(pool.freeCount, free.length);
        for (let block = 1; block < blockCount; block++) {
          assert.equal(pool.references(block), held.get(block) ?? 0);
        }
      }
      assert.deepEqual(reused, expectedReuse);
    }),
    { numRuns: 300 },
  );
});

test('a block given back more often than it was held is an error, not a second owner', () => {
  const pool = new BlockPool(3, () => {});
  const block = pool.allocate();
  pool.free(Int32Array.of(block), 1);
  assert.throws(() => pool.free(Int32Array.of(block), 1), /freed more often/);
});

test('a pool without a block to give is refused with the number it needs', () => {
  for (const blockCount of [0, 1, 1.5, Number.NaN, -3]) {
    assert.throws(() => new BlockPool(blockCount, () => {}), /at least 2/);
  }
});
