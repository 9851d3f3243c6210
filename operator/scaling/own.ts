/**
 * Scales on queue depth without an HPA, where somebody else serves custom.metrics.k8s.io: up at once, down to the highest number that was
 * called for within the stabilisation window, by the HPA's own rule for an Object metric with AverageValue.
 */
import { type Clock, systemClock } from '../kube/clock.ts';

export interface OwnScalingInput {
  readonly key: string;
  readonly replicas: number;
  readonly waiting: number;
  /** Some engine did not say lately: nothing is taken away. */
  readonly isStale: boolean;
  readonly target: number;
  readonly minReplicas: number;
  readonly maxReplicas: number;
  readonly stabilizationMs: number;
}

/** Between two looks of a process that leads. */
const longestPauseMs = 10_000;
/** As `--horizontal-pod-autoscaler-tolerance` of the controller manager: so near to the target nothing is changed. */
const tolerance = 0.1;

export class OwnScaler {
  readonly #clock: Clock;
  /** Deployment -> what was called for, and when. */
  readonly #calls = new Map<string, { readonly atMs: number; readonly replicas: number }[]>();

  constructor(clock: Clock = systemClock) {
    this.#clock = clock;
  }

  /** The number of replicas to have now; undefined when it is the present one. */
  decide(input: OwnScalingInput): number | undefined {
    const { key, replicas, waiting, isStale, target, minReplicas, maxReplicas } = input;
    const now = this.#clock.now();
    const least = Math.max(1, minReplicas);
    const isNear = Math.abs(waiting / (target * replicas) - 1) <= tolerance;
    const asked = isNear ? replicas : Math.ceil(waiting / target);
    const wanted = Math.min(maxReplicas, Math.max(least, asked));
    const calls = this.#calls.get(key) ?? [];
    const recent = calls.filter(({ atMs }) => now - atMs <= input.stabilizationMs);
    const sinceLast = now - (calls.at(-1)?.atMs ?? Number.NEGATIVE_INFINITY);
    // The first look, after a start or a time without the lease too: what runs was called for by somebody.
    if (sinceLast > input.stabilizationMs + longestPauseMs) recent.push({ atMs: now, replicas });
    recent.push({ atMs: now, replicas: wanted });
    this.#calls.set(key, recent);
    const settled = Math.max(wanted, ...recent.map((call) => call.replicas));
    const next = wanted >= replicas ? wanted : isStale ? replicas : Math.min(replicas, settled);
    return next === replicas ? undefined : next;
  }

  forget(key: string): void {
    this.#calls.delete(key);
  }
}
