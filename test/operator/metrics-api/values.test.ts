import assert from 'node:assert/strict';
import { test } from 'node:test';
import { customMetricList, type MetricSample } from '#operator/metrics-api/values.ts';

const textOf = (value: number): string => {
  const object = { apiVersion: 'v1', kind: 'Pod', namespace: 'ns', name: 'p' };
  const sample: MetricSample = { object, metric: 'm', value, at: new Date(0), windowSeconds: 15 };
  const { items } = customMetricList('v1beta2', [sample]) as { items: { value: string }[] };
  return items[0]?.value ?? '';
};

test('a value is a Quantity: whole numbers plain, zero too, fractions in thousandths', () => {
  assert.equal(textOf(0), '0');
  assert.equal(textOf(42), '42');
  assert.equal(textOf(1.5), '1500m');
  assert.equal(textOf(0.0004), '0m');
  // The grammar of Quantity: <signedNumber><suffix>, and a decimal exponent is a suffix.
  for (const value of [1e9, 123456789012, 1e21]) {
    assert.match(textOf(value), /^[+-]?\d+(\.\d+)?(m|[eE][+-]?\d+)?$/);
  }
});
