import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { arrivalTimes, randomPrompts, type Sample, summarise } from '#bench/serve.ts';

const load = {
  requests: 3,
  rate: 2,
  promptTokens: 5,
  newTokens: 4,
  seed: 7,
  slo: { timeToFirstTokenMs: 100, timePerOutputTokenMs: 20 },
};

describe('arrivals of a load', () => {
  it('are a Poisson process: exponential gaps with the mean and variance of the rate', () => {
    const requests = 20_000;
    const times = arrivalTimes({ requests, rate: 5, seed: 3 });
    const gaps = times.map((time, i) => time - (times[i - 1] ?? 0));
    const mean = gaps.reduce((sum, gap) => sum + gap, 0) / requests;
    const variance = gaps.reduce((sum, gap) => sum + (gap - mean) ** 2, 0) / requests;
    assert.ok(gaps.every((gap) => gap >= 0));
    assert.ok(Math.abs(mean - 200) < 6, `mean gap ${mean} ms, seed 3`);
    assert.ok(
      Math.abs(Math.sqrt(variance) - 200) < 10,
      `deviation ${Math.sqrt(variance)} ms, seed 3`,
    );
  });

  it('are the same for the same seed, and all at once at an infinite rate', () => {
    assert.deepEqual(arrivalTimes(load), arrivalTimes(load));
    assert.notDeepEqual(arrivalTimes(load), arrivalTimes({ ...load, seed: 8 }));
    assert.deepEqual(arrivalTimes({ ...load, rate: Number.POSITIVE_INFINITY }), [0, 0, 0]);
  });

  it('carry prompts of the asked length, inside the vocabulary, no two alike', () => {
    const prompts = randomPrompts({ ...load, requests: 50 }, 2000);
    assert.ok(prompts.every((prompt) => prompt.length === 5));
    assert.ok(prompts.flat().every((id) => id >= 1000 && id < 2000));
    assert.equal(new Set(prompts.map(String)).size, 50);
  });
});

describe('figures of a load', () => {
  const sample = (first: number, end: number, tokens: number): Sample => ({
    startedAt: 1000,
    firstAt: 1000 + first,
    endedAt: 1000 + end,
    gaps: [],
    tokens,
    failed: tokens === 0,
  });

  it('count a request as goodput only when it meets every objective', () => {
    const figures = summarise(
      [sample(50, 110, 4), sample(150, 210, 4), sample(50, 350, 4), sample(50, 50, 1)],
      2,
      load,
    );
    assert.equal(figures.completed, 4);
    assert.equal(figures.goodputPerSecond, 1);
    assert.equal(figures.requestsPerSecond, 2);
    assert.equal(figures.outputTokensPerSecond, 6.5);
    assert.deepEqual(figures.timePerOutputTokenMs, [20, 20, 100, 0]);
    assert.deepEqual(figures.timeToFirstTokenMs, [50, 150, 50, 50]);
    assert.deepEqual(figures.latencyMs, [110, 210, 350, 50]);
  });

  it('keep failed requests out of every latency', () => {
    const figures = summarise([sample(Number.NaN, Number.NaN, 0), sample(50, 110, 4)], 1, load);
    assert.equal(figures.failed, 1);
    assert.equal(figures.completed, 1);
    assert.deepEqual(figures.timeToFirstTokenMs, [50]);
  });
});
