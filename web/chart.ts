/** One live chart: curves over the last minutes with axes, a legend that carries the values, and a crosshair. */

import {
  areaPath,
  type Frame,
  linePath,
  nearestPoint,
  niceMax,
  xOf,
  yOf,
} from './chart-geometry.ts';
import { element, svgElement } from './dom.ts';
import { duration, NO_VALUE } from './format.ts';
import { HISTORY_MS, type Point } from './metrics-history.ts';

export interface CurveStyle {
  readonly label: string;
  /** Colour class: the first of a chart is filled. */
  readonly tone: 'first' | 'second';
}

export interface ChartOptions {
  readonly title: string;
  /** What the numbers mean, in one sentence. */
  readonly caption: string;
  readonly curves: readonly CurveStyle[];
  readonly format: (value: number) => string;
  /** The axis never ends below this. */
  readonly leastMax: number;
  /** A fixed end of the axis, for shares. */
  readonly fixedMax?: number;
}

const MARGIN = { left: 54, right: 6, top: 8, bottom: 20 };
const HEIGHT = 150;
/** The time axis grows with what there is to show. */
const SPANS = [
  { ms: 60_000, ticks: [0, 15, 30, 45] },
  { ms: 120_000, ticks: [0, 30, 60, 90] },
  { ms: HISTORY_MS, ticks: [0, 60, 120, 180, 240] },
] as const;

export class Chart {
  readonly element: HTMLElement;
  readonly #options: ChartOptions;
  readonly #svg = svgElement('svg', { class: 'chart', role: 'img', height: String(HEIGHT) });
  readonly #values: HTMLElement[];
  readonly #when = element('span', { class: 'chart-when' });
  #points: readonly (readonly Point[])[] = [];
  #now = 0;
  /** Pointer position in pixels from the left edge of the chart, or null when it is elsewhere. */
  #pointerX: number | null = null;

  constructor(options: ChartOptions) {
    this.#options = options;
    this.#values = options.curves.map(() => element('strong', {}, NO_VALUE));
    const legend = options.curves.map((curve, i) =>
      element(
        'span',
        { class: `legend tone-${curve.tone}` },
        this.#values[i] ?? null,
        element('span', { class: 'legend-label' }, curve.label),
      ),
    );
    this.element = element(
      'section',
      { class: 'card' },
      element('div', { class: 'card-head' }, element('h2', {}, options.title), this.#when),
      element('div', { class: 'legends' }, ...legend),
      element('div', { class: 'chart-box' }),
      element('p', { class: 'hint' }, options.caption),
    );
    this.element.querySelector('.chart-box')?.append(this.#svg);
    this.#svg.addEventListener('pointermove', (event) => {
      this.#pointerX = event.clientX - this.#svg.getBoundingClientRect().left;
      this.#draw();
    });
    this.#svg.addEventListener('pointerleave', () => {
      this.#pointerX = null;
      this.#draw();
    });
    new ResizeObserver(() => this.#draw()).observe(this.#svg);
  }

  /** One list of points per curve; `now` is the right edge, milliseconds since the epoch. */
  update(now: number, points: readonly (readonly Point[])[]): void {
    this.#now = now;
    this.#points = points;
    this.#draw();
  }

  #draw(): void {
    const width = this.#svg.clientWidth;
    if (width === 0 || this.#now === 0) return;
    const highest = Math.max(0, ...this.#points.flat().map((point) => point.value ?? 0));
    const frame: Frame = {
      left: MARGIN.left,
      top: MARGIN.top,
      width: width - MARGIN.left - MARGIN.right,
      height: HEIGHT - MARGIN.top - MARGIN.bottom,
      from: this.#now - this.#span.ms,
      to: this.#now,
      max: this.#options.fixedMax ?? niceMax(highest, this.#options.leastMax),
    };
    this.#svg.replaceChildren(
      ...this.#axes(frame),
      ...this.#curves(frame),
      ...this.#readout(frame),
    );
    this.#svg.setAttribute('aria-label', this.#description(highest));
  }

  #axes(frame: Frame): SVGElement[] {
    const right = frame.left + frame.width;
    const rows = [0, 0.5, 1].flatMap((share) => {
      const y = yOf(frame, share * frame.max);
      const label = svgElement('text', {
        class: 'tick',
        x: String(frame.left - 8),
        y: String(y + 4),
        'text-anchor': 'end',
      });
      label.textContent = this.#options.format(share * frame.max);
      return [
        svgElement('line', {
          class: share === 0 ? 'axis' : 'grid',
          x1: String(frame.left),
          x2: String(right),
          y1: String(y),
          y2: String(y),
        }),
        label,
      ];
    });
    const columns = this.#span.ticks.map((seconds) => {
      const label = svgElement('text', {
        class: 'tick',
        x: String(xOf(frame, frame.to - seconds * 1000)),
        y: String(HEIGHT - 4),
        'text-anchor': seconds === 0 ? 'end' : 'middle',
      });
      label.textContent = seconds === 0 ? 'now' : `−${shortTime(seconds)}`;
      return label;
    });
    return [...rows, ...columns.filter((_, i) => frame.width > 240 || i % 2 === 0)];
  }

  get #span() {
    const oldest = Math.min(this.#now, ...this.#points.map((points) => points[0]?.at ?? this.#now));
    return SPANS.find(({ ms }) => this.#now - oldest <= ms) ?? SPANS[2];
  }

  #curves(frame: Frame): SVGElement[] {
    return this.#options.curves.flatMap(({ tone }, i) => {
      const points = this.#points[i] ?? [];
      const line = svgElement('path', { class: `line tone-${tone}`, d: linePath(frame, points) });
      if (tone !== 'first') return [line];
      return [svgElement('path', { class: `area tone-${tone}`, d: areaPath(frame, points) }), line];
    });
  }

  /** Puts the values at the pointer, or the newest ones, into the legend; draws the crosshair. */
  #readout(frame: Frame): SVGElement[] {
    const x = this.#pointerX;
    const at =
      x === null || x < frame.left
        ? frame.to
        : frame.from + ((x - frame.left) / frame.width) * (frame.to - frame.from);
    const marks: SVGElement[] = [];
    for (const [i, points] of this.#points.entries()) {
      const point = nearestPoint(points, at);
      const value = point?.value ?? null;
      const target = this.#values[i];
      if (target !== undefined)
        target.textContent = value === null ? NO_VALUE : this.#options.format(value);
      if (point === null || value === null) continue;
      marks.push(
        svgElement('circle', {
          class: `mark tone-${this.#options.curves[i]?.tone ?? 'first'}`,
          cx: String(xOf(frame, point.at)),
          cy: String(yOf(frame, value)),
          r: '3',
        }),
      );
    }
    this.#when.textContent =
      at === frame.to ? '' : `${duration(Math.round((frame.to - at) / 1000))} ago`;
    if (at !== frame.to && x !== null) {
      marks.unshift(
        svgElement('line', {
          class: 'crosshair',
          x1: String(x),
          x2: String(x),
          y1: String(frame.top),
          y2: String(frame.top + frame.height),
        }),
      );
    }
    return marks;
  }

  #description(highest: number): string {
    const { curves, format, title } = this.#options;
    const newest = curves.map(({ label }, i) => {
      const value = this.#points[i]?.at(-1)?.value ?? null;
      return `${label} ${value === null ? 'unknown' : format(value)}`;
    });
    return `${title}, last ${shortTime(this.#span.ms / 1000)}. Now: ${newest.join(', ')}. Highest: ${format(highest)}.`;
  }
}

const shortTime = (seconds: number): string =>
  seconds % 60 === 0 ? `${seconds / 60} min` : `${seconds} s`;
