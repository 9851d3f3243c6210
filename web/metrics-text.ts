/** Reads the Prometheus text format, as far as the dashboard needs it: sample lines with their labels. */

export interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

const sampleLine = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const labelPair = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;
const escapes: Readonly<Record<string, string>> = { '\\n': '\n', '\\"': '"', '\\\\': '\\' };

function toNumber(text: string): number {
  if (text === '+Inf') return Infinity;
  return text === '-Inf' ? -Infinity : Number(text);
}

/** All samples in order; comments, blank lines and lines of another shape are passed over. */
export function parseMetrics(text: string): Sample[] {
  const samples: Sample[] = [];
  for (const line of text.split('\n')) {
    if (line.startsWith('#')) continue;
    const match = sampleLine.exec(line);
    if (match === null) continue;
    const [, name = '', labelText = '', valueText = ''] = match;
    const labels = Object.fromEntries(
      [...labelText.matchAll(labelPair)].map(([, key = '', value = '']) => [
        key,
        value.replace(/\\[n"\\]/g, (sequence) => escapes[sequence] ?? sequence),
      ]),
    );
    samples.push({ name, labels, value: toNumber(valueText) });
  }
  return samples;
}

/** The sum over all label sets (one per model and engine), or null when the metric is absent. */
export function sumOf(samples: readonly Sample[], name: string): number | null {
  const values = samples.filter((sample) => sample.name === name).map((sample) => sample.value);
  return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0);
}

/** Upper bounds in seconds, ascending, the last one infinite; counts are cumulative as exposed. */
export interface Histogram {
  readonly bounds: readonly number[];
  readonly counts: readonly number[];
}

/** A histogram summed over its label sets, or null when absent. */
export function histogramOf(samples: readonly Sample[], name: string): Histogram | null {
  const byBound = new Map<number, number>();
  for (const sample of samples) {
    if (sample.name !== `${name}_bucket`) continue;
    const bound = toNumber(sample.labels.le ?? '+Inf');
    byBound.set(bound, (byBound.get(bound) ?? 0) + sample.value);
  }
  if (byBound.size === 0) return null;
  const bounds = [...byBound.keys()].sort((a, b) => a - b);
  return { bounds, counts: bounds.map((bound) => byBound.get(bound) ?? 0) };
}

/**
 * The q-quantile of what was observed between two readings, linear within a bucket as Prometheus' histogram_quantile; null
 * when nothing was. Above the last finite bound that bound is given. Counters that fell (a restart) count from zero.
 */
export function quantileBetween(
  before: Histogram | null,
  after: Histogram,
  q: number,
): number | null {
  const isSameShape = before?.bounds.length === after.bounds.length;
  const hasReset = isSameShape && after.counts.some((count, i) => count < (before.counts[i] ?? 0));
  const counts = after.counts.map((count, i) =>
    isSameShape && !hasReset ? count - (before.counts[i] ?? 0) : count,
  );
  const total = counts.at(-1) ?? 0;
  if (total <= 0) return null;
  const rank = q * total;
  const index = counts.findIndex((count) => count >= rank);
  const upper = after.bounds[index] ?? Infinity;
  const lower = after.bounds[index - 1] ?? 0;
  if (upper === Infinity) return lower;
  const below = counts[index - 1] ?? 0;
  const inside = (counts[index] ?? 0) - below;
  return inside === 0 ? upper : lower + (upper - lower) * ((rank - below) / inside);
}
