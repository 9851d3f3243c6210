/** What sets the batch modes apart: how many lanes there are, how many sequences share one, and when new ones may join. */

export interface ModeLimits {
  readonly maxSequences: number;
  /** Forward runners at hand. */
  readonly forwardCount: number;
  readonly staticWindowMs: number;
}

/** The requests as a policy sees them. */
export interface QueueView {
  /** Waiting and not chosen for any batch yet. */
  readonly newcomers: number;
  /** Chosen and not finished: running, or waiting to be resumed. */
  readonly selected: number;
  /** How long the oldest newcomer has waited. */
  readonly oldestWaitMs: number;
}

export interface BatchPolicy {
  /** Forward runners that decode at the same time. */
  laneCount(limits: ModeLimits): number;
  /** Sequences in one step of a lane, at most. */
  sequencesPerLane(limits: ModeLimits): number;
  /** How many newcomers are chosen now, in order of rank. A chosen one starts as soon as tokens and blocks allow. */
  openings(view: QueueView, limits: ModeLimits): number;
  /** Time after which `openings` is to be asked again though nothing else has happened; undefined: never. */
  wakeAfterMs(view: QueueView, limits: ModeLimits): number | undefined;
}
