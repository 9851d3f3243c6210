/** The dashboard: asks /metrics every second and draws the last five minutes. */

import { Chart } from './chart.ts';
import { element } from './dom.ts';
import { count, duration, percent } from './format.ts';
import { type CurveName, MetricsHistory } from './metrics-history.ts';
import { describeServer } from './server-state.ts';

const POLL_MS = 1000;

const CHARTS: readonly { readonly chart: () => Chart; readonly curves: readonly CurveName[] }[] = [
  {
    chart: () =>
      new Chart({
        title: 'Requests',
        caption: 'Running are decoded together in one batch; waiting ones have not started.',
        curves: [
          { label: 'running', tone: 'first' },
          { label: 'waiting', tone: 'second' },
        ],
        format: count,
        leastMax: 4,
      }),
    curves: ['running', 'waiting'],
  },
  {
    chart: () =>
      new Chart({
        title: 'Tokens per second',
        caption: 'Over the last 5 seconds, all requests together.',
        curves: [
          { label: 'generated', tone: 'first' },
          { label: 'prompt', tone: 'second' },
        ],
        format: count,
        leastMax: 10,
      }),
    curves: ['generationRate', 'promptRate'],
  },
  {
    chart: () =>
      new Chart({
        title: 'Key/value cache in use',
        caption: 'Share of the cache blocks that running requests hold. Near 100 % requests wait.',
        curves: [{ label: 'of all blocks', tone: 'first' }],
        format: percent,
        leastMax: 1,
        fixedMax: 1,
      }),
    curves: ['cacheUse'],
  },
  {
    chart: () =>
      new Chart({
        title: 'Time to first token',
        caption:
          'From request to first token, last 30 seconds. Half were faster than p50, 99 of 100 than p99.',
        curves: [
          { label: 'p50', tone: 'first' },
          { label: 'p99', tone: 'second' },
        ],
        format: duration,
        leastMax: 0.05,
      }),
    curves: ['firstTokenP50', 'firstTokenP99'],
  },
  {
    chart: () =>
      new Chart({
        title: 'Time between tokens',
        caption:
          'Pause between two tokens of an answer, last 30 seconds. Half were shorter than p50, 99 of 100 than p99.',
        curves: [
          { label: 'p50', tone: 'first' },
          { label: 'p99', tone: 'second' },
        ],
        format: duration,
        leastMax: 0.02,
      }),
    curves: ['interTokenP50', 'interTokenP99'],
  },
  {
    chart: () =>
      new Chart({
        title: 'Prefix cache hits',
        caption: 'Share of prompt tokens found in the cache, over the last 30 seconds.',
        curves: [{ label: 'of prompt tokens', tone: 'first' }],
        format: percent,
        leastMax: 1,
        fixedMax: 1,
      }),
    curves: ['prefixHitRate'],
  },
];

export class Dashboard {
  readonly #history = new MetricsHistory();
  readonly #charts = CHARTS.map(({ chart, curves }) => ({ chart: chart(), curves }));
  readonly #state = element('div', { class: 'server-state' });
  readonly #fetchMetrics: () => Promise<string>;
  #isVisible = false;
  #isReachable = true;

  /** `fetchMetrics` gives the text of /metrics or rejects. */
  constructor(container: HTMLElement, fetchMetrics: () => Promise<string>) {
    this.#fetchMetrics = fetchMetrics;
    container.append(
      this.#state,
      element('div', { class: 'cards' }, ...this.#charts.map(({ chart }) => chart.element)),
    );
  }

  /** Polls for as long as the page lives, so that the history is there when the tab is opened. */
  async run(): Promise<never> {
    for (;;) {
      const started = Date.now();
      await this.#poll(started);
      await new Promise((resolve) => setTimeout(resolve, POLL_MS - (Date.now() - started)));
    }
  }

  setVisible(isVisible: boolean): void {
    this.#isVisible = isVisible;
    this.#draw(Date.now());
  }

  async #poll(at: number): Promise<void> {
    try {
      this.#history.add(at, await this.#fetchMetrics());
      this.#isReachable = true;
    } catch {
      this.#history.addGap(at);
      this.#isReachable = false;
    }
    this.#draw(at);
  }

  #draw(now: number): void {
    if (!this.#isVisible) return;
    const { tone, headline, detail } = describeServer({
      isReachable: this.#isReachable,
      running: this.#history.latest('running'),
      waiting: this.#history.latest('waiting'),
      cacheUse: this.#history.latest('cacheUse'),
      generationRate: this.#history.latest('generationRate'),
    });
    this.#state.className = `server-state tone-${tone}`;
    this.#state.replaceChildren(
      element('span', { class: 'state-dot', 'aria-hidden': 'true' }),
      element('div', {}, element('h1', {}, headline), element('p', {}, detail)),
    );
    for (const { chart, curves } of this.#charts) {
      chart.update(
        now,
        curves.map((name) => this.#history.curve(name)),
      );
    }
  }
}
