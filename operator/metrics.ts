/** The operator's own Prometheus metrics. */
import { Counter, Gauge, type GaugeConfiguration, Histogram, Registry } from 'prom-client';
import type { CallObserver } from './kube/client.ts';
import type { WorkQueueHooks } from './kube/queue.ts';
import type { ReflectorHooks } from './kube/reflector.ts';

const seconds = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30];

export class OperatorMetrics {
  readonly registry = new Registry();
  readonly #reconciles: Histogram<'outcome'>;
  readonly #retries: Counter;
  readonly #waits: Histogram;
  readonly #calls: Histogram<'verb' | 'code'>;
  readonly #restarts: Counter<'resource' | 'reason'>;
  readonly #lists: Counter<'resource'>;

  constructor() {
    const registers = [this.registry];
    const histogram = <L extends string>(name: string, help: string, labelNames: L[] = []) =>
      new Histogram({ name, help, labelNames, buckets: seconds, registers });
    const counter = <L extends string>(name: string, help: string, labelNames: L[] = []) =>
      new Counter({ name, help, labelNames, registers });
    this.#reconciles = histogram('nvlm_operator_reconcile_seconds', 'Time of one reconcile', [
      'outcome',
    ]);
    this.#retries = counter(
      'nvlm_operator_queue_retries_total',
      'Keys that came back after a failure',
    );
    this.#waits = histogram(
      'nvlm_operator_queue_wait_seconds',
      'Time from adding a key to working on it',
    );
    this.#calls = histogram('nvlm_operator_api_call_seconds', 'Calls of the API server', [
      'verb',
      'code',
    ]);
    this.#restarts = counter('nvlm_operator_watch_restarts_total', 'Watches that ended, by why', [
      'resource',
      'reason',
    ]);
    this.#lists = counter('nvlm_operator_lists_total', 'Complete lists', ['resource']);
  }

  readonly observeCall: CallObserver = (verb, code, elapsed) =>
    this.#calls.labels({ verb, code }).observe(elapsed);

  get queueHooks(): WorkQueueHooks {
    return {
      onStart: (_key, waited) => this.#waits.observe(waited),
      onEnd: (_key, elapsed, error) =>
        this.#reconciles
          .labels({ outcome: error === undefined ? 'success' : 'error' })
          .observe(elapsed),
      onRetry: () => this.#retries.inc(),
    };
  }

  reflectorHooks(resource: string): ReflectorHooks {
    return {
      onList: () => this.#lists.labels({ resource }).inc(),
      onRestart: (reason) => this.#restarts.labels({ resource, reason }).inc(),
    };
  }

  /** A gauge that is read when it is scraped; each answer is one series. */
  gauge<L extends string>(
    name: string,
    help: string,
    labelNames: readonly L[],
    read: () => Iterable<Series<L>>,
  ): void {
    new ReadGauge<L>({ name, help, labelNames: [...labelNames], registers: [this.registry] }, read);
  }
}

/** Labels and value. Labels that are the same object at every scrape are written out only once. */
export type Series<L extends string> = readonly [Readonly<Record<L, string>>, number];

/**
 * Keeps no series between scrapes, and hands its labels on as those that prom-client shares between the buckets of a histogram, whose
 * text it remembers: with thousands of series hashing and escaping labels is nearly all the time of a scrape.
 */
class ReadGauge<L extends string> extends Gauge<L> {
  readonly #read: () => Iterable<Series<L>>;

  constructor(configuration: GaugeConfiguration<L>, read: () => Iterable<Series<L>>) {
    super(configuration);
    this.#read = read;
  }

  override async get() {
    const values = Array.from(this.#read(), ([sharedLabels, value]) => ({
      labels: {},
      sharedLabels,
      value,
    }));
    return { ...(await super.get()), values };
  }
}
