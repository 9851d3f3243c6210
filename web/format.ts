/** Numbers as the page shows them. */

export const NO_VALUE = '–';

/** 950 ms, 1.23 s, 2 min 05 s. */
export function duration(seconds: number): string {
  if (seconds < 0.0995) return `${Number((seconds * 1000).toFixed(1))} ms`;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 59.95) return `${Number(seconds.toFixed(seconds < 10 ? 2 : 1))} s`;
  const whole = Math.round(seconds);
  return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, '0')} s`;
}

/** Three digits of interest, then k and M: 0.8, 12.5, 348, 1.2k. */
export function count(value: number): string {
  if (value < 10) return String(Number(value.toFixed(1)));
  if (value < 1000) return String(Math.round(value));
  if (value < 1e6) return `${Number((value / 1e3).toFixed(1))}k`;
  return `${Number((value / 1e6).toFixed(1))}M`;
}

/** A share of one as percent. */
export function percent(share: number): string {
  const value = share * 100;
  return `${value > 0 && value < 10 ? Number(value.toFixed(1)) : Math.round(value)} %`;
}
