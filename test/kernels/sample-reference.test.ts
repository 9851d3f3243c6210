import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { philox4x32, uniformDraw } from '#kernels/reference/philox.ts';
import {
  adjustedLogits,
  candidates,
  logProbabilities,
  sampleRow,
  topIds,
} from '#kernels/reference/sample.ts';
import type { SamplingInputs } from '#kernels/step.ts';
import { greedySampling } from '../support/steps.ts';

test('philox gives the known answers of Random123', () => {
  const ones = 0xffffffff;
  const cases = [
    [
      [0, 0, 0, 0],
      [0, 0],
      [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8],
    ],
    [
      [ones, ones, ones, ones],
      [ones, ones],
      [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd],
    ],
    [
      [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344],
      [0xa4093822, 0x299f31d0],
      [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
    ],
  ] as const;
  for (const [counter, key, expected] of cases)
    assert.deepEqual(philox4x32(counter, key), [...expected]);
});

test('a draw is below 1 and made of the top 24 bits of the first word', () => {
  assert.equal(uniformDraw(0, 0, 0), (0x6627e8d5 >>> 8) / 2 ** 24);
  for (let position = 0; position < 2000; position++) assert.ok(uniformDraw(7, 9, position) < 1);
});

/** Adjusted logits of one row. */
function adjusted(
  raw: readonly number[],
  sampling: Partial<SamplingInputs>,
  validTokenCount = raw.length,
): number[] {
  return [
    ...adjustedLogits(Float32Array.from(raw), greedySampling(1, sampling), 0, validTokenCount),
  ];
}

test('bias adds up, bans and masks and padding forbid, NaN is forbidden', () => {
  const sampling = {
    biasOffsets: Int32Array.of(0, 4),
    biasIds: Int32Array.of(1, 1, 2, 5),
    biasValues: Float32Array.of(2, 0.5, -Infinity, 100),
    allowedMask: Uint32Array.of(0b110111),
  };
  assert.deepEqual(adjusted([1, 1, 1, 1, Number.NaN, 1], sampling, 5), [
    1,
    3.5,
    -Infinity,
    -Infinity,
    -Infinity,
    -Infinity,
  ]);
});

test('repetition divides positive logits and multiplies negative ones, of prompt and generated ids; the others count generated ids', () => {
  const sampling = {
    repetitionPenalty: Float32Array.of(2),
    frequencyPenalty: Float32Array.of(0.5),
    presencePenalty: Float32Array.of(10),
    seenOffsets: Int32Array.of(0, 3),
    seenIds: Int32Array.of(0, 1, 2),
    seenCounts: Int32Array.of(0, 3, 1),
  };
  assert.deepEqual(adjusted([4, 4, -4, 4], sampling), [2, 2 - 11.5, -8 - 10.5, 4]);
});

test('bias comes before the penalties', () => {
  const sampling = {
    repetitionPenalty: Float32Array.of(2),
    biasOffsets: Int32Array.of(0, 1),
    biasIds: Int32Array.of(0),
    biasValues: Float32Array.of(-5),
    seenOffsets: Int32Array.of(0, 1),
    seenIds: Int32Array.of(0),
    seenCounts: Int32Array.of(0),
  };
  assert.deepEqual(adjusted([3], sampling), [-4]);
});

const OFF = { temperature: 1, topK: 0, topP: 1, minP: 0 };
/** Ids that a draw from probabilities in eighths can give. */
function keptIds(eighths: readonly number[], options: Partial<typeof OFF>): number[] {
  const logits = Float32Array.from(eighths, (weight) => Math.log(weight / 8));
  return candidates(logits, { ...OFF, ...options }).map(({ id }) => id);
}

test('candidates come heaviest first, ties by lower id, cut by top-k, top-p and min-p in this order', () => {
  const eighths = [1, 4, 1, 2];
  assert.deepEqual(keptIds(eighths, {}), [1, 3, 0, 2]);
  assert.deepEqual(
    keptIds(eighths, { topK: 3 }),
    [1, 3, 0],
    'a tie at the border keeps the lower id',
  );
  assert.deepEqual(keptIds(eighths, { topK: 100 }), [1, 3, 0, 2]);
  assert.deepEqual(keptIds(eighths, { topP: 0 }), [1]);
  assert.deepEqual(keptIds(eighths, { topP: 0.49 }), [1]);
  assert.deepEqual(keptIds(eighths, { topP: 0.51 }), [1, 3]);
  assert.deepEqual(keptIds(eighths, { topP: 0.76 }), [1, 3, 0]);
  assert.deepEqual(
    keptIds(eighths, { topK: 2, topP: 0.6 }),
    [1],
    'top-p is of what top-k kept: 4/6 is enough',
  );
  assert.deepEqual(keptIds(eighths, { minP: 0.49 }), [1, 3]);
  assert.deepEqual(keptIds(eighths, { minP: 0.2 }), [1, 3, 0, 2]);
  assert.deepEqual(keptIds(eighths, { minP: 1 }), [1]);
  assert.deepEqual(keptIds(eighths, { temperature: 1e-30 }), [1, 3, 0, 2], 'nothing overflows');
  assert.deepEqual(keptIds([0, 8], {}), [1], 'a logit of -Infinity is no candidate');
});

test('a draw walks the cumulative weights in sorted order', () => {
  const logits = Float32Array.from([1, 4, 1, 2], (weight) => Math.log(weight));
  for (let position = 0; position < 500; position++) {
    const sampling = greedySampling(1, {
      temperature: Float32Array.of(1),
      seed: Uint32Array.of(5, 6),
      position: Uint32Array.of(position),
    });
    const u = uniformDraw(5, 6, position);
    const expected = u < 0.5 ? 1 : u < 0.75 ? 3 : u < 0.875 ? 0 : 2;
    assert.equal(sampleRow(logits, sampling, 0, 4), expected, `u ${u}`);
  }
});

test('log-probabilities are of raw logits over valid ids, and top ids leave out what has none', () => {
  const raw = Float32Array.of(Math.log(1), Math.log(3), Number.NaN, -Infinity, 50);
  const logprobs = logProbabilities(raw, 4);
  assert.ok(Math.abs(logprobs[0]! - Math.log(0.25)) < 1e-6);
  assert.ok(Math.abs(logprobs[1]! - Math.log(0.75)) < 1e-6);
  assert.deepEqual([...logprobs.subarray(2)], [-Infinity, -Infinity, -Infinity]);
  assert.deepEqual(topIds(raw, 5, 4), [1, 0]);
});

test('whatever the options, the best candidate is kept and a kept one never weighs less than a dropped one', () => {
  const logit = fc.float({ min: -40, max: 40, noNaN: true });
  const options = fc.record({
    temperature: fc.double({ min: 1e-3, max: 10, noNaN: true }),
    topK: fc.integer({ min: 0, max: 12 }),
    topP: fc.double({ min: 0, max: 1, noNaN: true }),
    minP: fc.double({ min: 0, max: 1, noNaN: true }),
  });
  fc.assert(
    fc.property(fc.array(logit, { minLength: 1, maxLength: 10 }), options, (values, chosen) => {
      const logits = Float32Array.from(values);
      const kept = candidates(logits, chosen);
      const best = logits.indexOf(Math.max(...logits));
      assert.equal(kept[0]?.id, best);
      if (chosen.topK > 0) assert.ok(kept.length <= chosen.topK);
      const ids = kept.map(({ id }) => id);
      const least = Math.min(...ids.map((id) => logits[id]!));
      for (let id = 0; id < logits.length; id++)
        if (!ids.includes(id)) assert.ok(logits[id]! <= least);
      for (const { weight } of kept.slice(1)) assert.ok(weight >= chosen.minP);
    }),
  );
});
