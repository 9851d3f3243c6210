/** How long the event loop was blocked: by our own work, or because nobody gave this process a core. */
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { Gauge, type Registry } from 'prom-client';

const resolutionMs = 2;

/**
 * Registers the longest block since the last scrape and its 99th percentile, in seconds. The histogram of perf_hooks holds the time
 * between two ticks of its timer, which is the block and one tick; it does not keep
 * the process alive.
 */
export function registerEventLoop(registry: Registry): void {
  const histogram = monitorEventLoopDelay({ resolution: resolutionMs });
  histogram.enable();
  const blockSeconds = (nanoseconds: number): number =>
    Math.max(0, nanoseconds / 1e9 - resolutionMs / 1000);
  new Gauge({
    name: 'nvlm_event_loop_block_seconds',
    help: 'Time that the event loop was held up, since the last scrape.',
    labelNames: ['quantile'],
    registers: [registry],
    collect() {
      const isEmpty = histogram.count === 0;
      this.set({ quantile: '0.99' }, isEmpty ? 0 : blockSeconds(histogram.percentile(99)));
      this.set({ quantile: '1' }, isEmpty ? 0 : blockSeconds(histogram.max));
      histogram.reset();
    },
  });
}
