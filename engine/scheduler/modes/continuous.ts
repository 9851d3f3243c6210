import type { BatchPolicy } from './policy.ts';

/** One batch that requests join and leave at every step. */
export const continuous: BatchPolicy = {
  laneCount: () => 1,
  sequencesPerLane: ({ maxSequences }) => maxSequences,
  openings: ({ newcomers }) => newcomers,
  wakeAfterMs: () => undefined,
};
