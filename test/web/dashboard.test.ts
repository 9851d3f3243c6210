import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { areaPath, linePath, niceMax } from '#web/chart-geometry.ts';
import { MetricsHistory } from '#web/metrics-history.ts';
import { histogramOf, parseMetrics, quantileBetween, sumOf } from '#web/metrics-text.ts';
import { describeServer } from '#web/server-state.ts';

test('metrics are read with labels, escapes, infinities and several engines', () => {
  const samples = parseMetrics(
    [
      '# HELP vllm:num_requests_running Running.',
      'vllm:num_requests_running{model_name="a \\"b\\" \\\\ {x}",engine="0"} 2',
      'vllm:num_requests_running{model_name="c",engine="1"} 3 1700000000000',
      'bare_total 1.5e3',
      'nonsense',
      'h_bucket{le="+Inf"} 4',
    ].join('\n'),
  );
  assert.equal(sumOf(samples, 'vllm:num_requests_running'), 5);
  assert.equal(samples[0]?.labels.model_name, 'a "b" \\ {x}');
  assert.equal(sumOf(samples, 'bare_total'), 1500);
  assert.equal(sumOf(samples, 'absent'), null);
  assert.deepEqual(histogramOf(samples, 'h')?.bounds, [Number.POSITIVE_INFINITY]);
});

const bounds = [0.1, 0.2, 0.4, 0.8, Number.POSITIVE_INFINITY];
const histogram = (values: readonly number[]) => ({
  bounds,
  counts: bounds.map((bound) => values.filter((value) => value <= bound).length),
});

test('a quantile lies in the bucket of the value that has that rank', () => {
  const value = fc.double({ min: 0.001, max: 0.79, noNaN: true });
  fc.assert(
    fc.property(
      fc.array(value, { maxLength: 40 }),
      fc.array(value, { minLength: 1, maxLength: 40 }),
      fc.constantFrom(0.5, 0.9, 0.99),
      (before, fresh, q) => {
        const result = quantileBetween(histogram(before), histogram([...before, ...fresh]), q);
        const sorted = [...fresh].sort((a, b) => a - b);
        const exact = sorted[Math.ceil(q * fresh.length) - 1] ?? 0;
        const upper = bounds.find((bound) => exact <= bound) ?? 0;
        const lower = bounds[bounds.indexOf(upper) - 1] ?? 0;
        assert.ok(
          result !== null && result >= lower && result <= upper,
          `${result} not near ${exact}`,
        );
      },
    ),
  );
});

test('a quantile of nothing is a gap, and a restarted server counts from zero', () => {
  assert.equal(quantileBetween(histogram([0.3]), histogram([0.3]), 0.5), null);
  const restarted = quantileBetween(histogram([0.3, 0.3, 0.3]), histogram([0.15]), 0.5);
  assert.ok(restarted !== null && restarted > 0.1 && restarted <= 0.2);
  assert.equal(quantileBetween(null, histogram([5]), 0.99), 0.8);
});

const exposition = (tokens: number, hits = 0, queries = 0): string =>
  `vllm:generation_tokens_total ${tokens}\nvllm:prefix_cache_hits_total ${hits}\nvllm:prefix_cache_queries_total ${queries}\n`;

test('rates follow the counters, survive a restart and leave a gap while the server is away', () => {
  const history = new MetricsHistory();
  for (let second = 0; second <= 10; second += 1)
    history.add(second * 1000, exposition(second * 40));
  assert.equal(history.latest('generationRate'), 40);
  history.addGap(11_000);
  assert.equal(history.latest('generationRate'), null);
  history.add(12_000, exposition(30));
  const afterRestart = history.latest('generationRate');
  assert.ok(afterRestart !== null && afterRestart >= 0);
  assert.deepEqual(
    history.curve('generationRate').map(({ value }) => value === null),
    [true, ...Array<boolean>(10).fill(false), true, false],
  );
});

test('the prefix hit rate is the share of the last seconds, unknown without queries', () => {
  const history = new MetricsHistory();
  history.add(0, exposition(0, 100, 1000));
  history.add(1000, exposition(0, 100, 1000));
  assert.equal(history.latest('prefixHitRate'), null);
  history.add(2000, exposition(0, 175, 1100));
  assert.equal(history.latest('prefixHitRate'), 0.75);
});

test('five minutes are kept and no more', () => {
  const history = new MetricsHistory();
  for (let second = 0; second < 400; second += 1) history.add(second * 1000, exposition(second));
  const points = history.curve('generationRate');
  assert.equal(points.length, 301);
  assert.equal(points[0]?.at, 99_000);
});

test('an axis ends at a round number not below the highest value', () => {
  fc.assert(
    fc.property(fc.double({ min: 0, max: 1e9, noNaN: true }), (value) => {
      const max = niceMax(value, 1);
      assert.ok(max >= value * (1 - 1e-9) && max >= 1 && max <= Math.max(1, value * 2.5001));
    }),
  );
});

test('curves break at gaps', () => {
  const frame = { left: 0, top: 0, width: 100, height: 10, from: 0, to: 100, max: 10 };
  const points = [
    { at: 0, value: 0 },
    { at: 10, value: 10 },
    { at: 20, value: null },
    { at: 30, value: 5 },
  ];
  assert.equal(linePath(frame, points), 'M0 10L10 0M30 5');
  assert.equal(areaPath(frame, points), 'M0 10L0 10L10 0L10 10ZM30 10L30 5L30 10Z');
});

test('the server is described in one line, with what to do when it is full or gone', () => {
  const calm = { isReachable: true, running: 0, waiting: 0, cacheUse: 0, generationRate: 0 };
  assert.equal(describeServer(calm).tone, 'idle');
  assert.equal(describeServer({ ...calm, running: 1 }).headline, 'Serving 1 request, none waiting');
  const full = describeServer({ ...calm, running: 4, waiting: 2, cacheUse: 0.99 });
  assert.equal(full.tone, 'busy');
  assert.match(full.detail, /raise the cache memory/);
  assert.equal(describeServer({ ...calm, isReachable: false }).tone, 'down');
});
