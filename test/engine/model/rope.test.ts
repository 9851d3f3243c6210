import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { createConfigReader } from '#engine/model/config.ts';
import { ModelError } from '#engine/model/errors.ts';
import { readRope } from '#engine/model/rope.ts';
import { FIXTURES } from '../../support/golden.ts';

interface Case {
  readonly config: Record<string, unknown> & { readonly head_dim: number };
  readonly inverseFrequencies: readonly number[];
  readonly magnitude: number;
}
const cases: Record<string, Case> = JSON.parse(
  readFileSync(join(FIXTURES, 'rope', 'scaling.json'), 'utf8'),
);
const rope = (config: Record<string, unknown>, headSize = 4) =>
  readRope(createConfigReader({ max_position_embeddings: 128, ...config }, 'config'), headSize);

for (const [name, { config, inverseFrequencies, magnitude }] of Object.entries(cases)) {
  test(`rotary scaling ${name} gives the frequencies and magnitude of transformers`, () => {
    const received = rope(config, config.head_dim);
    assert.equal(received.inverseFrequencies.length, inverseFrequencies.length);
    for (const [index, expected] of inverseFrequencies.entries()) {
      const difference = Math.abs(received.inverseFrequencies[index]! / expected - 1);
      // Two units in the last place of fp32.
      assert.ok(difference < 2.4e-7, `frequency ${index} is off by ${difference}`);
    }
    assert.ok(Math.abs(received.magnitude - magnitude) < 1e-12);
  });
}

test('unscaled frequencies are theta to the power of -2i/D', () => {
  const plain = [1, Math.fround(0.01)];
  assert.deepEqual([...rope({ rope_theta: 10000 }).inverseFrequencies], plain);
  assert.deepEqual([...rope({ rope_theta: 10000, rope_scaling: null }).inverseFrequencies], plain);
  // Configs may leave theta to its default, or hold it with the scaling.
  assert.deepEqual([...rope({}).inverseFrequencies], plain);
  const parameters = { rope_type: 'default', rope_theta: 10000 };
  assert.deepEqual([...rope({ rope_parameters: parameters }).inverseFrequencies], plain);
});

test('factors stored by a GGUF file divide the frequencies one by one', () => {
  const scaling = { rope_type: 'frequency_factors', factors: [1, 8] };
  const { inverseFrequencies } = rope({ rope_scaling: scaling });
  assert.deepEqual([...inverseFrequencies], [1, Math.fround(Math.fround(0.01) / 8)]);
});

test('linear and yarn lengthen the context by their factor, llama3 says its own length', () => {
  const yarn = { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 128 };
  assert.equal(rope({}).maxPositions, 128);
  assert.equal(rope({ rope_scaling: { type: 'linear', factor: 2 } }).maxPositions, 256);
  assert.equal(rope({ rope_scaling: yarn }).maxPositions, 512);
  assert.equal(rope({ max_position_embeddings: 512, rope_scaling: yarn }).maxPositions, 512);
  const llama3 = cases['llama3 as in Llama 3.1']!.config;
  assert.equal(rope(llama3, llama3.head_dim).maxPositions, 131072);
});

const refused: readonly [string, Record<string, unknown>, ModelError['code'], string][] = [
  [
    'dynamic scaling',
    { rope_scaling: { type: 'dynamic', factor: 2 } },
    'MODEL_FEATURE_UNSUPPORTED',
    'dynamic',
  ],
  [
    'longrope scaling',
    { rope_scaling: { rope_type: 'longrope' } },
    'MODEL_FEATURE_UNSUPPORTED',
    'longrope',
  ],
  ['mrope sections', { rope_scaling: { type: 'mrope' } }, 'MODEL_FEATURE_UNSUPPORTED', 'mrope'],
  [
    'partial rotation',
    { partial_rotary_factor: 0.5 },
    'MODEL_FEATURE_UNSUPPORTED',
    'partial_rotary_factor',
  ],
  [
    'linear scaling without a factor',
    { rope_scaling: { type: 'linear' } },
    'MODEL_CONFIG_INVALID',
    "'factor'",
  ],
  ['a negative theta', { rope_theta: -1 }, 'MODEL_CONFIG_INVALID', "'rope_theta'"],
  ['a scaling that is text', { rope_scaling: 'yarn' }, 'MODEL_CONFIG_INVALID', "'rope_scaling'"],
  [
    'too few stored factors',
    { rope_scaling: { rope_type: 'frequency_factors', factors: [1] } },
    'MODEL_CONFIG_INVALID',
    "'factors'",
  ],
];

for (const [what, config, code, mention] of refused) {
  test(`${what} is refused by name`, () => {
    assert.throws(
      () => rope(config),
      (error) =>
        error instanceof ModelError && error.code === code && error.message.includes(mention),
    );
  });
}
