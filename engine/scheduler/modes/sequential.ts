import type { BatchPolicy } from './policy.ts';

/** One request at a time, each to its end. */
export const sequential: BatchPolicy = {
  laneCount: () => 1,
  sequencesPerLane: () => 1,
  openings: ({ selected }) => (selected === 0 ? 1 : 0),
  wakeAfterMs: () => undefined,
};
