/** What a step is to compute, as the scheduler decided it, and what came of it for each sequence. */
import type { TokenLogprobs } from './request.ts';
import type { Sequence } from './sequence.ts';

/** Tokens `start .. start + count` of one sequence in a step. */
export interface PlanEntry {
  readonly sequence: Sequence;
  readonly start: number;
  readonly count: number;
  /** First logit row of the sequence in the step. */
  readonly firstRow: number;
  /** Prompt positions whose successor's log-probability is wanted: the first, and how many; a row each. */
  readonly promptRowStart: number;
  readonly promptRowCount: number;
  /** The step reaches the last known token: the row after the prompt rows draws the next. */
  readonly samples: boolean;
}

export interface Plan {
  readonly lane: number;
  readonly entries: PlanEntry[];
  tokenCount: number;
  rowCount: number;
}

export interface Finish {
  /** 'undrawable': no id was left to draw, because of bans or because the logits are not numbers. */
  readonly reason: 'stop' | 'length' | 'undrawable';
  readonly stopReason: number | null;
}

/** What one step did for one sequence. */
export interface Progress {
  readonly sequence: Sequence;
  readonly entry: PlanEntry;
  /** The sampled token; undefined while the prompt is not through. */
  readonly tokenId: number | undefined;
  readonly logprobs: TokenLogprobs | undefined;
  readonly finish: Finish | undefined;
}

/** Prompt log-probability rows of a step, at most: each costs a row of the language model head. */
export const PROMPT_ROWS_PER_STEP = 32;
