import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type BlockPlanOptions, planBlocks } from '#engine/cache/plan-blocks.ts';

const MIB = 2 ** 20;
/** 4 sequences of 64 blocks, a mebibyte each, on a machine of a gibibyte. */
const plan = (overrides: Partial<BlockPlanOptions> = {}) =>
  planBlocks({
    wanted: undefined,
    blockBytes: MIB,
    blockSize: 32,
    maxModelLength: 2048,
    maxSequences: 4,
    totalBytes: 1024 * MIB,
    availableBytes: 800 * MIB,
    ...overrides,
  });

test('memory becomes blocks: what was named, a share of what is available, or three tenths of it', () => {
  assert.equal(plan({ wanted: { bytes: 100.5 * MIB } }), 100);
  assert.equal(plan({ wanted: { share: 0.25 } }), 200);
  assert.equal(plan(), 240);
  assert.equal(plan({ availableBytes: 100 * MIB }), 65, 'one full context and the padding block');
  assert.equal(plan({ wanted: { bytes: 700 * MIB } }), 257, 'no more than the sequences can use');
});

test('cache memory larger than the machine is refused with what the machine has', () => {
  assert.throws(() => plan({ wanted: { bytes: 2 ** 60 } }), {
    code: 'CACHE_MEMORY_TOO_LARGE',
    message:
      /asks for 1099511627776MiB, and the machine has 1024MiB, of which 800MiB are available/,
  });
});

test('a cache beyond what is available is refused, though the machine has as much in all', () => {
  const few = { availableBytes: 200 * MIB, wanted: { bytes: 1000 * MIB } };
  assert.throws(() => plan(few), {
    code: 'CACHE_MEMORY_TOO_LARGE',
    message: /257MiB, and 200MiB are available.*Lower --kv-cache-memory/,
  });
  assert.throws(() => plan({ availableBytes: 50 * MIB }), {
    code: 'CACHE_MEMORY_TOO_LARGE',
    message: /--max-model-length to at most 1568/,
  });
});

test('a share that is too small for one request is refused as a size is', () => {
  assert.throws(() => plan({ wanted: { share: 0.05 } }), {
    code: 'CACHE_MEMORY_TOO_SMALL',
    message:
      '--kv-cache-memory of 5% of 800MiB, or 40MiB holds 1248 tokens, and one request may have 2048. ' +
      'Set --kv-cache-memory to at least 65MiB, or --max-model-length to at most 1248.',
  });
});

test('cache memory too small for one request is refused with numbers that then are enough', () => {
  fc.assert(
    fc.property(
      fc.record({
        bytes: fc.integer({ min: 0, max: 64 * MIB }),
        blockBytes: fc.integer({ min: 1000, max: MIB }),
        maxModelLength: fc.integer({ min: 2048, max: 4096 }),
      }),
      ({ bytes, ...options }) => {
        let message = '';
        try {
          plan({ ...options, wanted: { bytes } });
        } catch (error) {
          assert.equal((error as { code: string }).code, 'CACHE_MEMORY_TOO_SMALL');
          ({ message } = error as Error);
        }
        if (message === '') return;
        const [, mebibytes] = /at least (\d+)MiB/.exec(message)!;
        plan({ ...options, wanted: { bytes: Number(mebibytes) * MIB }, maxSequences: 1 });
        const [, tokens] = /at most (\d+)\./.exec(message) ?? [];
        if (tokens === undefined) return;
        plan({ ...options, maxModelLength: Number(tokens), wanted: { bytes } });
      },
    ),
    { numRuns: 500 },
  );
});
