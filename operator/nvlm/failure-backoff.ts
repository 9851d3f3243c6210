/** Pods that fail for good are replaced with growing pauses: a node that refuses every pod at once must not be fed pods in a loop. */
import { type Clock, systemClock } from '../kube/clock.ts';
import type { RolloutPlan, RolloutPod } from './rollout.ts';

const baseMs = 5000;
const maxMs = 300_000;

interface Failures {
  readonly names: Set<string>;
  count: number;
  untilMs: number;
}

export class FailureBackoff {
  readonly #clock: Clock;
  readonly #failures = new Map<string, Failures>();

  constructor(clock: Clock = systemClock) {
    this.#clock = clock;
  }

  /**
   * The plan without the replacement of failed pods as long as a pause lasts, and the milliseconds that are left of it. A pod that serves
   * ends the count: what failed was not the spec.
   */
  apply<P extends RolloutPlan>(
    key: string,
    pods: readonly RolloutPod[],
    plan: P,
  ): { readonly plan: P; readonly waitMs: number | undefined } {
    const failed = pods.filter((pod) => pod.hasFailed && !pod.isTerminating);
    const known = this.#failures.get(key) ?? { names: new Set(), count: 0, untilMs: 0 };
    if (pods.some((pod) => pod.isReady)) known.count = 0;
    const fresh = failed.filter((pod) => !known.names.has(pod.name));
    if (fresh.length > 0) {
      for (const pod of fresh) known.names.add(pod.name);
      known.untilMs = this.#clock.now() + Math.min(maxMs, baseMs * 2 ** known.count);
      known.count++;
      this.#failures.set(key, known);
    }
    const waitMs = known.untilMs - this.#clock.now();
    if (failed.length === 0 || waitMs <= 0) return { plan, waitMs: undefined };
    const names = new Set(failed.map((pod) => pod.name));
    return {
      plan: {
        ...plan,
        create: Math.max(0, plan.create - failed.length),
        delete: plan.delete.filter((name) => !names.has(name)),
      },
      waitMs,
    };
  }

  forget(key: string): void {
    this.#failures.delete(key);
  }
}
