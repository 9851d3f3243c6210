import assert from 'node:assert/strict';
import { test } from 'node:test';
import { measurePeak } from '#kernels/cpu.ts';
import { cpuBackends } from '../support/backends.ts';

const skip = cpuBackends()[0]!.skip;

test('the peaks that benches divide by are positive numbers, one per unit', { skip }, () => {
  const peak = measurePeak(1);
  assert.deepEqual(Object.keys(peak).sort(), ['bfloat16', 'float32', 'int8', 'readBytes']);
  for (const [unit, perSecond] of Object.entries(peak))
    assert.ok(perSecond > 0 && Number.isFinite(perSecond), `${unit}: ${perSecond}`);
});

test('peaks of no threads are refused by name', { skip }, () => {
  assert.throws(() => measurePeak(0), { code: 'KERNEL_OPTION_INVALID', message: /^threads: / });
});
