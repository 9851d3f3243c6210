/**
 * Between 0 and 1 replica, where the HPA rests: idle deployments stop, a wake signal starts them. A pure decision. One that cannot see
 * all engines never stops them.
 */
export interface ZeroInput {
  readonly minReplicas: number;
  readonly replicas: number;
  readonly idleTimeoutMs: number;
  /** Value of the wake annotation, and the one that was last acted on. */
  readonly wake: string | undefined;
  readonly lastWake: string | undefined;
  readonly waiting: number;
  readonly running: number;
  /** Some engine did not say lately. */
  readonly isStale: boolean;
  readonly readyReplicas: number;
  /** Since the last request, or since the first replica became ready, whichever is later; undefined when neither happened. */
  readonly idleMs: number | undefined;
}

export type ZeroDecision =
  | { readonly scaleTo: 0 | 1 }
  /** Look again after so many milliseconds. */
  | { readonly lookAgainMs: number }
  | undefined;

export function decideZero(input: ZeroInput): ZeroDecision {
  const { minReplicas, replicas, wake, lastWake } = input;
  if (minReplicas > 0) return undefined;
  if (replicas === 0) {
    return wake !== undefined && wake !== lastWake ? { scaleTo: 1 } : undefined;
  }
  // The idle time runs from the first moment at which somebody could have been served.
  if (input.idleMs === undefined || input.readyReplicas === 0) return undefined;
  if (input.waiting + input.running > 0) return undefined;
  // Somebody wants it who may have seen no replica: that is a request, too.
  if (wake !== undefined && wake !== lastWake) return { lookAgainMs: input.idleTimeoutMs };
  const left = input.idleTimeoutMs - input.idleMs;
  if (left > 0) return { lookAgainMs: left };
  return input.isStale ? { lookAgainMs: 1000 } : { scaleTo: 0 };
}
