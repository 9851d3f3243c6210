/** May this user read this metric: the API server says, by a SubjectAccessReview; its answers are kept for a few seconds. */
import type { KubeClient } from '../kube/client.ts';
import { type Clock, systemClock } from '../kube/clock.ts';
import { collectionPath, RESOURCES } from '../kube/resource.ts';
import type { User } from './front-proxy.ts';

export interface ResourceAccess {
  readonly group: string;
  readonly version: string;
  readonly namespace?: string;
  readonly resource: string;
  readonly subresource?: string;
  readonly name?: string;
}

export interface AuthorizerOptions {
  readonly client: KubeClient;
  readonly clock?: Clock;
  readonly allowedForMs?: number;
  readonly deniedForMs?: number;
}

const maxEntries = 2000;

export class Authorizer {
  readonly #options: AuthorizerOptions;
  readonly #clock: Clock;
  readonly #answers = new Map<string, { readonly isAllowed: boolean; readonly untilMs: number }>();

  constructor(options: AuthorizerOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
  }

  /** Throws KubeError when the API server does not answer. */
  async isAllowed(user: User, access: ResourceAccess): Promise<boolean> {
    // The API server's own aggregator, which asks with every right there is.
    if (user.groups.includes('system:masters')) return true;
    const key = JSON.stringify([user, access]);
    const known = this.#answers.get(key);
    if (known !== undefined && known.untilMs > this.#clock.now()) return known.isAllowed;
    const { client, allowedForMs = 10_000, deniedForMs = 5_000 } = this.#options;
    const review = (await client.request({
      method: 'POST',
      path: collectionPath(RESOURCES.subjectAccessReview),
      body: {
        apiVersion: 'authorization.k8s.io/v1',
        kind: 'SubjectAccessReview',
        spec: {
          user: user.name,
          ...(user.uid !== undefined && { uid: user.uid }),
          groups: user.groups,
          extra: user.extra,
          resourceAttributes: { ...access, verb: 'get' },
        },
      },
      timeoutMs: 5000,
    })) as { status?: { allowed?: boolean } };
    const isAllowed = review.status?.allowed === true;
    if (this.#answers.size >= maxEntries) this.#answers.clear();
    const untilMs = this.#clock.now() + (isAllowed ? allowedForMs : deniedForMs);
    this.#answers.set(key, { isAllowed, untilMs });
    return isAllowed;
  }
}
