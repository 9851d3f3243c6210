import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import fc from 'fast-check';
import { CheckpointError, type CheckpointErrorCode } from '#engine/weights/errors.ts';
import { readSafetensors } from '#engine/weights/safetensors.ts';
import { refusesWith } from '../../support/checkpoint-error.ts';
import {
  safetensorsBytes,
  safetensorsOf,
  temporaryDirectory,
  writeBytes,
} from '../../support/checkpoint-files.ts';

const write = (context: TestContext, bytes: Uint8Array) =>
  writeBytes(temporaryDirectory(context), 'model.safetensors', bytes);
const entry = (begin: unknown, end: unknown, shape: unknown = [2], dtype: unknown = 'F32') => ({
  dtype,
  shape,
  data_offsets: [begin, end],
});

test('safetensors tensors come with file offsets, types and shapes from the header alone', (t) => {
  const header = {
    __metadata__: { format: 'pt' },
    b: { dtype: 'BF16', shape: [2, 3], data_offsets: [8, 20] },
    a: { dtype: 'F32', shape: [2], data_offsets: [0, 8] },
    empty: { dtype: 'F16', shape: [0, 4], data_offsets: [20, 20] },
  };
  const path = write(t, safetensorsBytes(header, 20));
  const start = 8 + JSON.stringify(header).length;
  const tensors = readSafetensors(path);
  assert.deepEqual([...tensors.keys()].sort(), ['a', 'b', 'empty']);
  assert.deepEqual(tensors.get('b'), {
    name: 'b',
    type: 'bf16',
    shape: [2, 3],
    bytes: { path, offset: start + 8, byteLength: 12 },
  });
  assert.deepEqual(tensors.get('empty')?.bytes, { path, offset: start + 20, byteLength: 0 });
});

const hostile: readonly [string, CheckpointErrorCode, readonly string[], Buffer][] = [
  ['no bytes at all', 'CHECKPOINT_TRUNCATED', ['8 bytes', '0 bytes'], Buffer.alloc(0)],
  [
    'a header of 2^60 bytes',
    'CHECKPOINT_LIMIT_EXCEEDED',
    ['1152921504606846976', '100000000'],
    safetensorsBytes('{}', 0, 2n ** 60n),
  ],
  [
    'a header longer than the file',
    'CHECKPOINT_TRUNCATED',
    ['5000 bytes'],
    safetensorsBytes('{}', 0, 5000n),
  ],
  ['a header that is not JSON', 'CHECKPOINT_HEADER_INVALID', ['JSON'], safetensorsBytes('{"a":')],
  ['a header that is a list', 'CHECKPOINT_HEADER_INVALID', ['an array'], safetensorsBytes('[]')],
  [
    'a name that is not UTF-8',
    'CHECKPOINT_HEADER_INVALID',
    ['UTF-8'],
    Buffer.concat([
      safetensorsBytes('{"', 0, 6n),
      Buffer.from([0xff]),
      Buffer.from('":1}'.slice(0, 3)),
    ]),
  ],
  [
    'the same tensor twice',
    'CHECKPOINT_HEADER_INVALID',
    ["'a' again"],
    safetensorsBytes(
      `{"a":${JSON.stringify(entry(0, 8))},"\\u0061":${JSON.stringify(entry(8, 16))}}`,
      16,
    ),
  ],
  [
    'the same key twice within an entry',
    'CHECKPOINT_HEADER_INVALID',
    ["'dtype' again"],
    safetensorsBytes('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"dtype":"F16"}}', 8),
  ],
  [
    'ten thousand nested lists',
    'CHECKPOINT_TENSOR_INVALID',
    ["'a'"],
    safetensorsBytes(`{"a":{"dtype":"F32","shape":${'['.repeat(1e4)}${']'.repeat(1e4)}}}`),
  ],
  [
    'overlapping tensors',
    'CHECKPOINT_TENSOR_INVALID',
    ["'b'", 'overlaps'],
    safetensorsBytes({ a: entry(0, 8), b: entry(4, 12) }, 12),
  ],
  [
    'a hole between tensors',
    'CHECKPOINT_TENSOR_INVALID',
    ["'b'", 'hole'],
    safetensorsBytes({ a: entry(0, 8), b: entry(16, 24) }, 24),
  ],
  [
    'bytes after the last tensor',
    'CHECKPOINT_HEADER_INVALID',
    ['after the last'],
    safetensorsBytes({ a: entry(0, 8) }, 9),
  ],
  [
    'a range beyond the file',
    'CHECKPOINT_TRUNCATED',
    ["'a'", '[0, 8]'],
    safetensorsBytes({ a: entry(0, 8) }, 7),
  ],
  [
    'a range that ends before it begins',
    'CHECKPOINT_TENSOR_INVALID',
    ["'a'", '[8,0]'],
    safetensorsBytes({ a: entry(8, 0) }, 8),
  ],
  [
    'a range with text in it',
    'CHECKPOINT_TENSOR_INVALID',
    ["'a'"],
    safetensorsBytes({ a: entry(0, '8') }, 8),
  ],
  [
    'a shape that does not match the bytes',
    'CHECKPOINT_TENSOR_INVALID',
    ["'a'", '12 bytes', 'received 8'],
    safetensorsBytes({ a: entry(0, 8, [3]) }, 8),
  ],
  [
    'a negative dimension',
    'CHECKPOINT_TENSOR_INVALID',
    ["'a'", '-2'],
    safetensorsBytes({ a: entry(0, 8, [-2]) }, 8),
  ],
  [
    'a fractional dimension',
    'CHECKPOINT_TENSOR_INVALID',
    ["'a'", '0.5'],
    safetensorsBytes({ a: entry(0, 8, [4, 0.5]) }, 8),
  ],
  [
    'a NaN dimension, which JSON writes as null',
    'CHECKPOINT_TENSOR_INVALID',
    ["'a'", 'null'],
    safetensorsBytes({ a: entry(0, 8, [Number.NaN]) }, 8),
  ],
  [
    'dimensions whose product overflows',
    'CHECKPOINT_TENSOR_INVALID',
    ["'a'", '2^53'],
    safetensorsBytes({ a: entry(0, 8, [2 ** 30, 2 ** 30]) }, 8),
  ],
  [
    'a type that no kernel reads',
    'CHECKPOINT_TYPE_UNSUPPORTED',
    ["'a'", 'F8_E4M3', 'BF16'],
    safetensorsBytes({ a: entry(0, 2, [2], 'F8_E4M3') }, 2),
  ],
  [
    'a type named like a property of every object',
    'CHECKPOINT_TYPE_UNSUPPORTED',
    ["'a'", 'constructor'],
    safetensorsBytes({ a: entry(0, 8, [2], 'constructor') }, 8),
  ],
  [
    'an entry that is a number',
    'CHECKPOINT_TENSOR_INVALID',
    ["'a'"],
    safetensorsBytes({ a: 3 }, 0),
  ],
];

for (const [what, code, mentions, bytes] of hostile) {
  test(`a safetensors file with ${what} is refused as ${code}`, async (t) => {
    const path = write(t, bytes);
    await refusesWith(code, ['model.safetensors', ...mentions], () => readSafetensors(path));
  });
}

test('a missing safetensors file is refused by name', async () => {
  await refusesWith('CHECKPOINT_NOT_FOUND', ['/nowhere/x.safetensors'], () =>
    readSafetensors('/nowhere/x.safetensors'),
  );
});

test('no damage to a safetensors file does anything but load within the file or be refused', (t) => {
  const path = write(t, Buffer.alloc(0));
  const sound = safetensorsOf({ 'model.a': [2, 3], 'model.b': [4], c: [1] });
  const damaged = fc
    .tuple(
      fc.array(fc.tuple(fc.nat(sound.length - 1), fc.nat(255)), { maxLength: 4 }),
      fc.nat(sound.length),
    )
    .map(([changes, length]) => {
      const bytes = Buffer.from(sound);
      for (const [at, value] of changes) bytes[at] = value;
      return bytes.subarray(0, length === 0 ? sound.length : length);
    });
  fc.assert(
    fc.property(fc.oneof(damaged, fc.uint8Array({ maxLength: 200 })), (bytes) => {
      writeFileSync(path, bytes);
      try {
        for (const { bytes: range } of readSafetensors(path).values()) {
          assert.ok('offset' in range && range.offset + range.byteLength <= bytes.length);
        }
      } catch (error) {
        if (!(error instanceof CheckpointError)) throw error;
      }
    }),
    { numRuns: 1500 },
  );
});
