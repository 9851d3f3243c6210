/**
 * The queue depth of every NVLMDeployment, from the last figures of its engines. An engine that does not answer keeps its last value,
 * marked stale: one bad pod neither blocks the others nor looks like an empty queue.
 */
import { type Clock, systemClock } from '../kube/clock.ts';
import type { EngineFigures } from './scrape.ts';

export interface PodFigures extends EngineFigures {
  /** The last scrape failed, or none was made yet. */
  readonly isStale: boolean;
  readonly ageMs: number;
}

export interface Depth {
  /** Requests that wait: in the engines, and held before them. */
  readonly waiting: number;
  readonly running: number;
  /** Some engine's figures are old. */
  readonly isStale: boolean;
  readonly ageMs: number;
}

interface Entry {
  figures: EngineFigures;
  atMs: number;
  isStale: boolean;
}

export class DepthBook {
  readonly #clock: Clock;
  /** Deployment -> pod -> figures. */
  readonly #pods = new Map<string, Map<string, Entry>>();
  /** Deployment -> when a request was last seen, on the clock. */
  readonly #activeAt = new Map<string, number>();

  constructor(clock: Clock = systemClock) {
    this.#clock = clock;
  }

  /** Notes an answer; `deployment` and `pod` are keys. Answers whether it shows a request since the last one. */
  record(deployment: string, pod: string, figures: EngineFigures): boolean {
    const pods = this.#pods.get(deployment) ?? new Map<string, Entry>();
    const previous = pods.get(pod);
    pods.set(pod, { figures, atMs: this.#clock.now(), isStale: false });
    this.#pods.set(deployment, pods);
    const isActive =
      figures.waiting + figures.running > 0 ||
      (previous !== undefined && figures.finished !== previous.figures.finished);
    if (isActive) this.#activeAt.set(deployment, this.#clock.now());
    return isActive;
  }

  /** Notes that a pod did not answer. */
  miss(deployment: string, pod: string): void {
    const entry = this.#pods.get(deployment)?.get(pod);
    if (entry !== undefined) entry.isStale = true;
  }

  /** Forgets pods that are not among the present ones of their deployment. */
  keepOnly(present: ReadonlyMap<string, ReadonlySet<string>>): void {
    for (const [deployment, pods] of this.#pods) {
      for (const pod of pods.keys()) {
        if (!present.get(deployment)?.has(pod)) pods.delete(pod);
      }
      if (pods.size === 0) this.#pods.delete(deployment);
    }
  }

  forget(deployment: string): void {
    this.#pods.delete(deployment);
    this.#activeAt.delete(deployment);
  }

  podFigures(deployment: string, pod: string): PodFigures | undefined {
    const entry = this.#pods.get(deployment)?.get(pod);
    if (entry === undefined) return undefined;
    return { ...entry.figures, isStale: entry.isStale, ageMs: this.#clock.now() - entry.atMs };
  }

  /** The sum over the pods that ever answered: 0, not nothing, for a deployment without pods. */
  depthOf(deployment: string): Depth {
    const entries = [...(this.#pods.get(deployment)?.values() ?? [])];
    return {
      waiting: entries.reduce((sum, { figures }) => sum + figures.waiting, 0),
      running: entries.reduce((sum, { figures }) => sum + figures.running, 0),
      isStale: entries.some(({ isStale }) => isStale),
      ageMs: Math.max(0, ...entries.map(({ atMs }) => this.#clock.now() - atMs)),
    };
  }

  /** Milliseconds since a request was last seen; undefined when none was. */
  idleMs(deployment: string): number | undefined {
    const activeAt = this.#activeAt.get(deployment);
    return activeAt === undefined ? undefined : this.#clock.now() - activeAt;
  }
}
