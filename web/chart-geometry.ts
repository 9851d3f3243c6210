/** From points to SVG paths and axis ticks. Pure numbers and strings. */

import type { Point } from './metrics-history.ts';

export interface Frame {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
  /** Milliseconds since the epoch at the left and right edge. */
  readonly from: number;
  readonly to: number;
  /** The value at the top edge; the bottom edge is 0. */
  readonly max: number;
}

/** The least of 1, 2, 2.5, 5 times a power of ten that is not below the value and not below `least`. */
export function niceMax(value: number, least: number): number {
  const wanted = Math.max(value, least);
  const power = 10 ** Math.floor(Math.log10(wanted));
  const factor = [1, 2, 2.5, 5, 10].find((step) => step * power >= wanted * (1 - 1e-9)) ?? 10;
  return factor * power;
}

export function xOf(frame: Frame, at: number): number {
  return frame.left + ((at - frame.from) / (frame.to - frame.from)) * frame.width;
}

export function yOf(frame: Frame, value: number): number {
  return frame.top + frame.height * (1 - Math.min(value, frame.max) / frame.max);
}

/** Runs of points without a gap. */
function runs(points: readonly Point[]): { at: number; value: number }[][] {
  const result: { at: number; value: number }[][] = [];
  let isOpen = false;
  for (const { at, value } of points) {
    if (value === null) {
      isOpen = false;
      continue;
    }
    if (!isOpen) result.push([]);
    isOpen = true;
    result.at(-1)?.push({ at, value });
  }
  return result;
}

const round = (value: number): string => String(Math.round(value * 10) / 10);

/** `d` of a line through the points, broken at gaps. */
export function linePath(frame: Frame, points: readonly Point[]): string {
  return runs(points)
    .map((run) =>
      run
        .map(
          ({ at, value }, i) =>
            `${i === 0 ? 'M' : 'L'}${round(xOf(frame, at))} ${round(yOf(frame, value))}`,
        )
        .join(''),
    )
    .join('');
}

/** `d` of the area between the line and the bottom edge. */
export function areaPath(frame: Frame, points: readonly Point[]): string {
  const bottom = round(frame.top + frame.height);
  return runs(points)
    .map((run) => {
      const first = run[0];
      const last = run.at(-1);
      if (first === undefined || last === undefined) return '';
      const line = run
        .map(({ at, value }) => `L${round(xOf(frame, at))} ${round(yOf(frame, value))}`)
        .join('');
      return `M${round(xOf(frame, first.at))} ${bottom}${line}L${round(xOf(frame, last.at))} ${bottom}Z`;
    })
    .join('');
}

/** The point nearest in time, or null when there are none. */
export function nearestPoint(points: readonly Point[], at: number): Point | null {
  let nearest: Point | null = null;
  for (const point of points) {
    if (nearest === null || Math.abs(point.at - at) < Math.abs(nearest.at - at)) nearest = point;
  }
  return nearest;
}
