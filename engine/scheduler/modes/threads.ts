import type { BatchPolicy } from './policy.ts';

/** A lane per forward runner, each decoding one request alone; weights and blocks are shared. */
export const threads: BatchPolicy = {
  laneCount: ({ forwardCount }) => forwardCount,
  sequencesPerLane: () => 1,
  openings: ({ newcomers }) => newcomers,
  wakeAfterMs: () => undefined,
};
