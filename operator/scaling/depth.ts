/**
 * The queue depth of every NVLMDeployment, from the last figures of its engines. An engine that does not answer keeps its last value,
 * marked stale: one bad pod neither blocks the others nor looks like an empty queue.
 */
import { type Clock, systemClock } from '../kube/clock.ts';
import type { EngineFigures, EngineLoading } from './scrape.ts';
import { Throughput } from './throughput.ts';

const loadingStep = 0.05;

/** The part of a phase of loading that is told, 0 to 1: in steps, because each is a write of the status. */
export const toldFraction = ({ fraction }: EngineLoading): number =>
  Math.floor(fraction / loadingStep) * loadingStep;

export interface PodFigures extends EngineFigures {
  /** The last scrape failed. */
  readonly isStale: boolean;
  readonly ageMs: number;
}

export interface Depth {
  /** Requests that wait: in the engines, and held before them. */
  readonly waiting: number;
  readonly running: number;
  /** Some engine's figures are old, or it never gave any. */
  readonly isStale: boolean;
  readonly ageMs: number;
}

interface Entry {
  /** Undefined for a pod that is there and has never answered. */
  readonly figures: EngineFigures | undefined;
  readonly atMs: number;
  isStale: boolean;
}

export class DepthBook {
  readonly #clock: Clock;
  /** Deployment -> pod -> figures. */
  readonly #pods = new Map<string, Map<string, Entry>>();
  /** Deployment -> when a request was last seen, on the clock. */
  readonly #activeAt = new Map<string, number>();
  readonly #throughput = new Throughput();
  #hasLooked = false;

  constructor(clock: Clock = systemClock) {
    this.#clock = clock;
  }

  /** Notes an answer; `deployment` and `pod` are keys. Answers whether it shows a request since the last one. */
  record(deployment: string, pod: string, figures: EngineFigures): boolean {
    const pods = this.#pods.get(deployment) ?? new Map<string, Entry>();
    const previous = pods.get(pod);
    pods.set(pod, { figures, atMs: this.#clock.now(), isStale: false });
    this.#pods.set(deployment, pods);
    if (figures.tokens !== undefined) {
      this.#throughput.record(deployment, pod, figures.tokens, this.#clock.now());
    }
    const isActive =
      figures.waiting + figures.running > 0 ||
      (previous?.figures !== undefined && figures.finished !== previous.figures.finished);
    if (isActive) this.touch(deployment);
    return isActive;
  }

  /** Notes another sign that somebody wants the deployment. */
  touch(deployment: string): void {
    this.#activeAt.set(deployment, this.#clock.now());
  }

  /** Notes that a pod did not answer. */
  miss(deployment: string, pod: string): void {
    const entry = this.#pods.get(deployment)?.get(pod);
    if (entry !== undefined) entry.isStale = true;
  }

  /** Takes these pods of each deployment for all that there are: others are forgotten, and one that has not answered yet is stale. */
  expect(present: ReadonlyMap<string, ReadonlySet<string>>): void {
    this.#hasLooked = true;
    for (const [deployment, pods] of this.#pods) {
      for (const pod of pods.keys()) {
        if (!present.get(deployment)?.has(pod)) pods.delete(pod);
      }
      this.#throughput.keep(deployment, present.get(deployment) ?? new Set());
      if (pods.size === 0) this.#pods.delete(deployment);
    }
    const atMs = this.#clock.now();
    for (const [deployment, names] of present) {
      const pods = this.#pods.get(deployment) ?? new Map<string, Entry>();
      for (const name of names) {
        if (!pods.has(name)) pods.set(name, { figures: undefined, atMs, isStale: true });
      }
      this.#pods.set(deployment, pods);
    }
  }

  forget(deployment: string): void {
    this.#pods.delete(deployment);
    this.#activeAt.delete(deployment);
    this.#throughput.forget(deployment);
  }

  podFigures(deployment: string, pod: string): PodFigures | undefined {
    const entry = this.#pods.get(deployment)?.get(pod);
    if (entry?.figures === undefined) return undefined;
    return { ...entry.figures, isStale: entry.isStale, ageMs: this.#clock.now() - entry.atMs };
  }

  /** Pods that are loading their model, with how far they are. */
  loadingOf(deployment: string): ReadonlyMap<string, EngineLoading> {
    const pods = [...(this.#pods.get(deployment) ?? [])];
    return new Map(
      pods.flatMap(([pod, { figures, isStale }]) =>
        figures?.loading === undefined || isStale ? [] : [[pod, figures.loading]],
      ),
    );
  }

  /** The sum over the pods that ever answered: 0, not nothing, for a deployment without pods. Stale until somebody looked at all. */
  depthOf(deployment: string): Depth {
    const entries = [...(this.#pods.get(deployment)?.values() ?? [])];
    const answers = entries.filter(({ figures }) => figures !== undefined);
    return {
      waiting: answers.reduce((sum, { figures }) => sum + (figures?.waiting ?? 0), 0),
      running: answers.reduce((sum, { figures }) => sum + (figures?.running ?? 0), 0),
      isStale: !this.#hasLooked || entries.some(({ isStale }) => isStale),
      ageMs: Math.max(0, ...answers.map(({ atMs }) => this.#clock.now() - atMs)),
    };
  }

  /** Generated over all pods, a figure that changes every 30 s at most; undefined while nothing was watched for so long. */
  tokensPerSecond(deployment: string): number | undefined {
    return this.#throughput.of(deployment);
  }

  /** Milliseconds since a request was last seen; undefined when none was. */
  idleMs(deployment: string): number | undefined {
    const activeAt = this.#activeAt.get(deployment);
    return activeAt === undefined ? undefined : this.#clock.now() - activeAt;
  }
}
