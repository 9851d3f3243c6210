/** The batch modes by the name that users give. */
import { continuous } from './continuous.ts';
import type { BatchPolicy } from './policy.ts';
import { sequential } from './sequential.ts';
import { fixedBatch } from './static.ts';
import { threads } from './threads.ts';

export const BATCH_MODES = {
  Continuous: continuous,
  Sequential: sequential,
  Static: fixedBatch,
  Threads: threads,
} as const satisfies Record<string, BatchPolicy>;

export type BatchMode = keyof typeof BATCH_MODES;
