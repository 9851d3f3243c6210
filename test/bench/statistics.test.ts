import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { figure, figureWithSpread, mean, percentile, spread } from '#bench/statistics.ts';

describe('statistics of a bench', () => {
  it('interpolates percentiles between the neighbours, whatever the order of the samples', () => {
    const samples = [40, 10, 30, 20];
    assert.equal(percentile(samples, 0), 10);
    assert.equal(percentile(samples, 50), 25);
    assert.equal(percentile(samples, 100), 40);
    assert.ok(Math.abs(percentile(samples, 90) - 37) < 1e-9);
    assert.deepEqual(samples, [40, 10, 30, 20]);
  });

  it('has no figure for no samples', () => {
    assert.ok(Number.isNaN(percentile([], 50)));
    assert.ok(Number.isNaN(mean([])));
    assert.equal(figure(Number.NaN), '—');
  });

  it('shows three digits, and the range where there is one', () => {
    assert.equal(figure(1234.5), '1,235');
    assert.equal(figure(56.78), '56.8');
    assert.equal(figure(0.012345), '0.0123');
    assert.equal(figureWithSpread(spread([2, 1, 4])), '2 (1–4)');
    assert.equal(figureWithSpread(spread([3, 3])), '3');
  });
});
