/** Another wall clock for a process, by libfaketime; its timers and monotonic clock stay real. */
import { globSync } from 'node:fs';

const library = (): string | undefined => globSync('/usr/lib/*/faketime/libfaketimeMT.so.1')[0];

/** Why clocks cannot be skewed, or false. Under CI a missing library fails the test. */
export function noSkewedClock(): string | false {
  if (process.env.CI || library() !== undefined) return false;
  return 'no libfaketime; install the package libfaketime';
}

/** Environment of a process whose clock is so far ahead; behind when negative. */
export function skewedClock(seconds: number): Record<string, string> {
  if (seconds === 0) return {};
  const preload = library();
  if (preload === undefined) throw new Error('A skewed clock needs the package libfaketime');
  return {
    LD_PRELOAD: preload,
    FAKETIME: `${seconds < 0 ? '' : '+'}${seconds}s`,
    FAKETIME_DONT_FAKE_MONOTONIC: '1',
  };
}
