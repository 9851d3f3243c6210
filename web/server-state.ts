/** The server's state in one line, from the newest readings. */

import { count, percent } from './format.ts';

export interface ServerState {
  readonly tone: 'idle' | 'good' | 'busy' | 'down';
  readonly headline: string;
  readonly detail: string;
}

/** Null readings are unknown; `isReachable` is false when the last poll failed. */
export function describeServer(reading: {
  readonly isReachable: boolean;
  readonly running: number | null;
  readonly waiting: number | null;
  readonly cacheUse: number | null;
  readonly generationRate: number | null;
}): ServerState {
  if (!reading.isReachable) {
    return {
      tone: 'down',
      headline: 'No answer from the server',
      detail: 'Check that the engine runs; this page keeps asking and goes on by itself.',
    };
  }
  const running = reading.running ?? 0;
  const waiting = reading.waiting ?? 0;
  const cacheUse = reading.cacheUse ?? 0;
  const requests = (n: number): string => (n === 1 ? '1 request' : `${n} requests`);
  const detail = `${count(reading.generationRate ?? 0)} tokens per second, cache ${percent(cacheUse)} full.`;
  if (running + waiting === 0)
    return { tone: 'idle', headline: 'Idle', detail: 'No request is running or waiting.' };
  if (waiting === 0)
    return { tone: 'good', headline: `Serving ${requests(running)}, none waiting`, detail };
  const reason =
    cacheUse > 0.95
      ? 'The cache is full: raise the cache memory or lower the number of sequences.'
      : 'More requests than run at once: they start as others finish.';
  return {
    tone: 'busy',
    headline: `Serving ${requests(running)}, ${waiting} waiting`,
    detail: `${detail} ${reason}`,
  };
}
