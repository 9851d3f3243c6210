/** How long the event loop was held up: by our own work, or because nobody gave its thread a core. */
import { createHistogram, type RecordableHistogram } from 'node:perf_hooks';
import { Gauge, type Registry } from 'prom-client';

const INTERVAL_MS = 2;

/**
 * Registers the longest time and the 99th percentile since the last scrape, in seconds: of the whole hold-up, and of the processor
 * time that the thread used meanwhile. Their difference is what other threads and processes took. The timer does not keep the process alive.
 */
export function registerEventLoop(registry: Registry): void {
  const blocks = createHistogram();
  const work = createHistogram();
  let lastAt = performance.now();
  let lastCpu = process.threadCpuUsage();
  setInterval(() => {
    const now = performance.now();
    const cpu = process.threadCpuUsage();
    const heldMs = Math.max(0, now - lastAt - INTERVAL_MS);
    const workedMs = (cpu.user + cpu.system - lastCpu.user - lastCpu.system) / 1000;
    record(blocks, heldMs);
    record(work, Math.min(heldMs, workedMs));
    lastAt = now;
    lastCpu = cpu;
  }, INTERVAL_MS).unref();
  register(
    registry,
    'nvlm_event_loop_block_seconds',
    'Time that the event loop was held up, since the last scrape.',
    blocks,
  );
  register(
    registry,
    'nvlm_event_loop_work_seconds',
    'Processor time of the event loop while it was held up, since the last scrape.',
    work,
  );
}

/** The histogram takes whole numbers from 1. */
function record(histogram: RecordableHistogram, ms: number): void {
  histogram.record(Math.max(1, Math.round(ms * 1e6)));
}

function register(
  registry: Registry,
  name: string,
  help: string,
  histogram: RecordableHistogram,
): void {
  new Gauge({
    name,
    help,
    labelNames: ['quantile'],
    registers: [registry],
    collect() {
      const isEmpty = histogram.count === 0;
      this.set({ quantile: '0.99' }, isEmpty ? 0 : histogram.percentile(99) / 1e9);
      this.set({ quantile: '1' }, isEmpty ? 0 : histogram.max / 1e9);
      histogram.reset();
    },
  });
}
