/** What /metrics says: of the operator its counters and the histogram of its reconciles, of the API server how long writes took. */
interface Sample {
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly value: number;
}

const WRITES: ReadonlySet<string> = new Set(['create', 'apply', 'update', 'patch', 'delete']);

export class MetricsReading {
  readonly #samples: readonly Sample[];

  constructor(text: string) {
    this.#samples = text.split('\n').flatMap((line): Sample[] => {
      const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line);
      if (match === null) return [];
      const pairs = [...(match[2] ?? '').matchAll(/(\w+)="([^"]*)"/g)];
      const labels = Object.fromEntries(pairs.map(([, key, value]) => [key, value]));
      return [{ name: match[1]!, labels, value: Number(match[3]) }];
    });
  }

  /** Sum over all label sets. */
  value(name: string, test: (labels: Sample['labels']) => boolean = () => true): number {
    return this.#samples
      .filter((sample) => sample.name === name && test(sample.labels))
      .reduce((sum, { value }) => sum + value, 0);
  }

  /** All reconciles since the start, or since `before`. */
  reconciles(before?: MetricsReading): Distribution {
    const name = 'nvlm_operator_reconcile_seconds_bucket';
    const bounds = [
      ...new Set(this.#samples.filter((one) => one.name === name).map(({ labels }) => labels.le!)),
    ];
    const at = (le: string): number => {
      const isIt = (labels: Sample['labels']): boolean => labels.le === le;
      return this.value(name, isIt) - (before?.value(name, isIt) ?? 0);
    };
    return new Distribution(
      bounds.filter((le) => le !== '+Inf').map(Number),
      bounds.filter((le) => le !== '+Inf').map(at),
      at('+Inf'),
    );
  }

  failedReconciles(): number {
    const isFailed = ({ outcome }: Sample['labels']): boolean => outcome === 'error';
    return this.value('nvlm_operator_reconcile_seconds_count', isFailed);
  }

  /** Calls of the API server that write, since `before`. */
  writes(before: MetricsReading): number {
    const isWrite = ({ verb }: Sample['labels']): boolean => WRITES.has(verb ?? '');
    const name = 'nvlm_operator_api_call_seconds_count';
    return this.value(name, isWrite) - before.value(name, isWrite);
  }

  /** Mean seconds of writes of all clients, as the API server counts them. */
  meanServerWrite(): number {
    const isWrite = ({ verb = '' }: Sample['labels']): boolean =>
      /^(POST|PUT|PATCH|APPLY|DELETE)$/.test(verb);
    const name = 'apiserver_request_duration_seconds';
    return this.value(`${name}_sum`, isWrite) / this.value(`${name}_count`, isWrite);
  }

  calls() {
    const rows = this.#samples
      .filter(({ name }) => name === 'nvlm_operator_api_call_seconds_count')
      .map(({ labels, value }) => ({
        verb: labels.verb ?? '',
        code: labels.code ?? '',
        count: value,
        seconds: this.value(
          'nvlm_operator_api_call_seconds_sum',
          ({ verb, code }) => verb === labels.verb && code === labels.code,
        ),
      }));
    const calls = rows.filter(({ verb }) => verb !== 'watch');
    const sum = (of: (row: (typeof rows)[number]) => number): number =>
      calls.reduce((total, row) => total + of(row), 0);
    return { rows, total: sum(({ count }) => count), seconds: sum(({ seconds }) => seconds) };
  }
}

/** A cumulative histogram. */
export class Distribution {
  /** Seconds. */
  readonly bounds: readonly number[];
  readonly count: number;
  readonly #atMost: readonly number[];

  constructor(bounds: readonly number[], atMost: readonly number[], count: number) {
    this.bounds = bounds;
    this.#atMost = atMost;
    this.count = count;
  }

  get shares(): number[] {
    return this.#atMost.map((value) => value / this.count);
  }

  /** Interpolated within its bucket, as Prometheus does; infinite beyond the last bound. */
  quantile(share: number): number {
    const wanted = share * this.count;
    const index = this.#atMost.findIndex((value) => value >= wanted);
    if (index < 0) return Number.POSITIVE_INFINITY;
    const from = index === 0 ? 0 : this.bounds[index - 1]!;
    const below = index === 0 ? 0 : this.#atMost[index - 1]!;
    const inBucket = this.#atMost[index]! - below;
    return from + (this.bounds[index]! - from) * (inBucket === 0 ? 1 : (wanted - below) / inBucket);
  }

  get summary() {
    return { count: this.count, p50: this.quantile(0.5), p99: this.quantile(0.99) };
  }
}
