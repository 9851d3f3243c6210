import assert from 'node:assert/strict';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import type { StorageType, WeightSource } from '#kernels/program.ts';
import { dequantise, roundToBfloat16 } from '#kernels/reference/dequantise.ts';
import { readWeight } from '#kernels/reference/weights.ts';
import { STORAGE_FORMATS } from '#kernels/storage.ts';
import { plainWeight } from '../support/weights.ts';
import { assertClose } from './harness.ts';

interface Golden {
  readonly source: string;
  readonly cases: Record<string, { readonly bytes: string; readonly values: string }>;
}
const golden = JSON.parse(
  readFileSync(new URL('../fixtures/kernels/dequantise.json', import.meta.url), 'utf8'),
) as Golden;

function floats(base64: string): Float32Array {
  return new Float32Array(Uint8Array.from(Buffer.from(base64, 'base64')).buffer);
}

for (const [type, { bytes, values }] of Object.entries(golden.cases)) {
  test(`${type} blocks decode to the values of the gguf package`, () => {
    const expected = floats(values);
    const { blockLength } = STORAGE_FORMATS[type as StorageType];
    // The package rounds scale * level and the minimum to fp32 one by one, this decoder rounds once: the difference is a few
    // units in the last place of the largest value that cancels, bounded by twice the block's range.
    const bound = expected.map((_, i) => {
      const from = i - (i % blockLength);
      const block = expected.subarray(from, from + blockLength);
      return 2 ** -22 * 2 * (Math.max(...block) - Math.min(...block));
    });
    const exact = blockLength === 1;
    const decoded = dequantise(type as StorageType, Buffer.from(bytes, 'base64'));
    if (exact) assert.deepEqual(decoded, expected);
    else assertClose(decoded, expected, bound, type);
  });
}

test('every storage type but f32 has golden blocks', () => {
  assert.deepEqual(
    Object.keys(STORAGE_FORMATS)
      .filter((type) => type !== 'f32')
      .sort(),
    Object.keys(golden.cases).sort(),
  );
});

test('bfloat16 rounds to nearest, ties to even, and keeps infinities and NaN', () => {
  const cases = [
    [1, 1],
    [1 + 2 ** -8, 1],
    [1 + 3 * 2 ** -8, 1 + 2 ** -6],
    [1 + 2 ** -8 + 2 ** -20, 1 + 2 ** -7],
    [-(1 + 3 * 2 ** -8), -(1 + 2 ** -6)],
    [3.4028234663852886e38, Number.POSITIVE_INFINITY],
    [Number.NEGATIVE_INFINITY, Number.NEGATIVE_INFINITY],
    [0, 0],
  ] as const;
  for (const [value, rounded] of cases) assert.equal(roundToBfloat16(value), rounded);
  assert.ok(Number.isNaN(roundToBfloat16(Number.NaN)));
});

test('rows stored in interleaved rotary order come back in half-split order', () => {
  // Two heads of 4 rows, one value each, named by head and logical row: stored 0, 2, 1, 3 within a head.
  const weight: WeightSource = {
    ...plainWeight('q', [8, 1], [0, 2, 1, 3, 10, 12, 11, 13]),
    rowOrder: { kind: 'interleavedToHalf', headSize: 4 },
  };
  assert.deepEqual([...readWeight(weight)], [0, 1, 2, 3, 10, 11, 12, 13]);
});

test('a weight is read from its range of a file, and a truncated file is refused by name', () => {
  const path = join(tmpdir(), `nvlm-weight-${process.pid}.bin`);
  const values = Float32Array.of(9, 1, 2, 3);
  writeFileSync(path, new Uint8Array(values.buffer));
  try {
    const weight = (offset: number): WeightSource => ({
      name: 'norm',
      type: 'f32',
      shape: [3],
      bytes: { path, offset, byteLength: 12 },
    });
    assert.deepEqual([...readWeight(weight(4))], [1, 2, 3]);
    assert.throws(() => readWeight(weight(8)), {
      code: 'KERNEL_WEIGHT_INVALID',
      message: /norm.*expected 12 bytes.*received 8.*truncated/,
    });
  } finally {
    rmSync(path);
  }
});
