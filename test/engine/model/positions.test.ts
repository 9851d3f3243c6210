import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { resamplePositions } from '#engine/model/positions.ts';

interface Case {
  readonly from: number;
  readonly to: number;
  readonly width: number;
  readonly table: readonly number[];
  readonly resampled: readonly number[];
}
const cases: readonly Case[] = JSON.parse(readFileSync('test/fixtures/positions.json', 'utf8'));

for (const { from, to, width, table, resampled } of cases)
  test(`position embeddings of a grid of ${from} on one of ${to} are those of PyTorch's bicubic interpolation`, () => {
    const found = resamplePositions(Float32Array.from(table), from, to, width);
    assert.equal(found.length, to * to * width);
    resampled.forEach((wanted, i) => {
      assert.ok(Math.abs(found[i]! - wanted) <= 2e-6, `${i}: ${found[i]} for ${wanted}`);
    });
  });
