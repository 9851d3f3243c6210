import type { BatchPolicy } from './policy.ts';

/**
 * Collects requests until the batch is full or the oldest has waited for the window, then runs that batch to the end of its
 * longest member: places of members that end early stay empty, as rows of padding would.
 */
export const fixedBatch: BatchPolicy = {
  laneCount: () => 1,
  sequencesPerLane: ({ maxSequences }) => maxSequences,
  openings: ({ selected, newcomers, oldestWaitMs }, { maxSequences, staticWindowMs }) => {
    const isReady = newcomers >= maxSequences || (newcomers > 0 && oldestWaitMs >= staticWindowMs);
    return selected === 0 && isReady ? maxSequences : 0;
  },
  wakeAfterMs: ({ selected, newcomers, oldestWaitMs }, { staticWindowMs }) =>
    selected === 0 && newcomers > 0 ? Math.max(0, staticWindowMs - oldestWaitMs) : undefined,
};
