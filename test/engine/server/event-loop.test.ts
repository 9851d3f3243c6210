import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Registry } from 'prom-client';
import { registerEventLoop } from '#engine/server/event-loop.ts';

async function longest(registry: Registry, name: string): Promise<number> {
  const metric = await registry.getSingleMetric(name)!.get();
  return metric.values.find(({ labels }) => labels.quantile === '1')!.value;
}

test('work that holds the event loop up is told apart from waiting for a core', async () => {
  const registry = new Registry();
  registerEventLoop(registry);
  await sleep(10);
  await longest(registry, 'nvlm_event_loop_block_seconds');
  await longest(registry, 'nvlm_event_loop_work_seconds');

  // Asleep, as a thread that other threads keep from its core.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 80);
  await sleep(10);
  const starved = await longest(registry, 'nvlm_event_loop_block_seconds');
  const ownWork = await longest(registry, 'nvlm_event_loop_work_seconds');
  assert.ok(starved > 0.07, `held up ${starved} s`);
  assert.ok(ownWork < starved / 2, `${ownWork} s of work in ${starved} s of sleep`);

  const start = process.threadCpuUsage();
  let used = process.threadCpuUsage(start);
  while (used.user + used.system < 50_000) used = process.threadCpuUsage(start);
  await sleep(10);
  const work = await longest(registry, 'nvlm_event_loop_work_seconds');
  assert.ok(work > 0.04, `${work} s of 0.05 s of work`);
});
