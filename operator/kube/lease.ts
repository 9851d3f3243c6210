/**
 * One leader among the replicas of the operator, by a Lease. Two rules of client-go are kept: another holder's clock is never read (a
 * lease has run out when it has not changed for its duration, by our own monotonic clock), and a leader that cannot renew stops
 * before the others may start. On top of that leadership is a fence: its AbortSignal goes into every write, so that a write that
 * is still on its way when the lease is lost is cut.
 */
import { hostname } from 'node:os';
import type { KubeClient } from './client.ts';
import { type Clock, pause, systemClock } from './clock.ts';
import { isConflict, isNotFound, KubeError } from './errors.ts';
import { collectionPath, type KubeObject, objectPath, RESOURCES } from './resource.ts';

export interface LeaseOptions {
  readonly client: KubeClient;
  readonly name: string;
  readonly namespace: string;
  /** Unique among the replicas. */
  readonly identity: string;
  readonly durationSeconds?: number;
  readonly clock?: Clock;
  /** The wall clock, for the times that people read. */
  readonly wallClock?: () => Date;
  readonly random?: () => number;
  /** A failed attempt; the election goes on. */
  readonly onError?: (error: unknown) => void;
}

interface LeaseSpec {
  readonly holderIdentity?: string;
  readonly leaseDurationSeconds?: number;
  readonly acquireTime?: string;
  readonly renewTime?: string;
  readonly leaseTransitions?: number;
}
type Lease = KubeObject & { readonly spec?: LeaseSpec };

/** RFC 3339 with six digits: the API server refuses a MicroTime with three. */
export const microTime = (date: Date): string =>
  date.toISOString().replace(/(\.\d{3})Z$/, '$1000Z');

export const defaultIdentity = (): string => `${hostname()}_${crypto.randomUUID()}`;

export class LeaseElection {
  readonly #options: LeaseOptions;
  readonly #clock: Clock;
  readonly #durationMs: number;
  /** The record as last seen, and when it was seen to change. */
  #observed: { readonly record: string; readonly atMs: number } | undefined;
  #leading: AbortController | undefined;

  constructor(options: LeaseOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#durationMs = (options.durationSeconds ?? 15) * 1000;
  }

  get isLeader(): boolean {
    return this.#leading !== undefined && !this.#leading.signal.aborted;
  }

  /**
   * Competes until `signal` aborts. `lead` runs while this replica leads; its signal aborts when the lease is lost or `signal`
   * does, and the lease is given up only after `lead` has ended. Never rejects for what the API server answers.
   */
  async run(lead: (fence: AbortSignal) => Promise<void>, signal: AbortSignal): Promise<void> {
    const { random = Math.random } = this.#options;
    while (!signal.aborted) {
      const acquiredAt = this.#clock.now();
      if (await this.#attempt(signal)) await this.#lead(lead, acquiredAt, signal);
      else {
        const waitMs = this.#isAway ? this.#retryMs : this.#durationMs / 6;
        await pause(this.#clock, waitMs * (1 + random() * 0.2), signal);
      }
    }
  }

  async #lead(
    lead: (fence: AbortSignal) => Promise<void>,
    acquiredAt: number,
    signal: AbortSignal,
  ): Promise<void> {
    const leading = new AbortController();
    this.#leading = leading;
    const stop = (): void => leading.abort();
    signal.addEventListener('abort', stop, { once: true });
    if (signal.aborted) stop();
    const ended = lead(leading.signal).finally(stop);
    await this.#renewUntilLost(acquiredAt, leading);
    await ended.catch((error: unknown) => this.#options.onError?.(error));
    signal.removeEventListener('abort', stop);
    this.#leading = undefined;
    await this.#release();
  }

  /** Renews at a third of the duration; gives up, and aborts, with a third of it left. */
  async #renewUntilLost(acquiredAt: number, leading: AbortController): Promise<void> {
    let renewedAt = acquiredAt;
    let cancel = (): void => {};
    const fence = (): void => {
      cancel();
      const left = (this.#durationMs * 2) / 3 - (this.#clock.now() - renewedAt);
      cancel = this.#clock.setTimer(() => leading.abort(), Math.max(left, 0));
    };
    fence();
    while (!leading.signal.aborted) {
      const waitMs = this.#isAway ? this.#retryMs : this.#durationMs / 3;
      await pause(this.#clock, waitMs, leading.signal);
      if (leading.signal.aborted) break;
      // Counted from before the request: that is the latest time that the others may count from.
      const startedAt = this.#clock.now();
      const outcome = await this.#attempt(leading.signal, 'renew');
      if (outcome) {
        renewedAt = startedAt;
        fence();
      } else if (this.#isHeldByAnother) leading.abort();
    }
    cancel();
  }

  #isHeldByAnother = false;
  /** There was no server, and has been no good answer since: it is looked for more often than a lease that somebody holds. */
  #isAway = false;

  get #retryMs(): number {
    return this.#durationMs / 15;
  }

  /** Takes or renews the lease; false when somebody else has it or the API server did not answer. */
  async #attempt(signal: AbortSignal, purpose: 'acquire' | 'renew' = 'acquire'): Promise<boolean> {
    try {
      const outcome = await this.#takeOrRenew(signal, purpose);
      this.#isAway = false;
      return outcome;
    } catch (error) {
      // A server that comes back begins with errors.
      this.#isAway ||= error instanceof KubeError && error.code === 'KUBE_UNREACHABLE';
      // A conflict: another replica was faster.
      if (!signal.aborted && !isConflict(error)) this.#options.onError?.(error);
      return false;
    }
  }

  async #takeOrRenew(signal: AbortSignal, purpose: 'acquire' | 'renew'): Promise<boolean> {
    const { client, name, namespace, identity, wallClock = () => new Date() } = this.#options;
    const path = objectPath(RESOURCES.lease, name, namespace);
    const timeoutMs = this.#durationMs / 3;
    this.#isHeldByAnother = false;
    let lease: Lease | undefined;
    try {
      lease = (await client.request({ method: 'GET', path, signal, timeoutMs })) as Lease;
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
    const now = microTime(wallClock());
    const durationSeconds = this.#durationMs / 1000;
    if (lease === undefined) {
      const created = (await client.request({
        method: 'POST',
        path: collectionPath(RESOURCES.lease, namespace),
        body: {
          apiVersion: 'coordination.k8s.io/v1',
          kind: 'Lease',
          metadata: { name, namespace },
          spec: {
            holderIdentity: identity,
            leaseDurationSeconds: durationSeconds,
            acquireTime: now,
            renewTime: now,
            leaseTransitions: 0,
          },
        },
        signal,
        timeoutMs,
      })) as Lease;
      this.#observe(created);
      return true;
    }
    this.#observe(lease);
    const { spec = {} } = lease;
    const isOurs = spec.holderIdentity === identity;
    const isFree = !spec.holderIdentity;
    if (!isOurs && !isFree && !this.#hasRunOut(spec)) {
      this.#isHeldByAnother = true;
      return false;
    }
    if (purpose === 'renew' && !isOurs) {
      this.#isHeldByAnother = true;
      return false;
    }
    const updated = (await client.request({
      method: 'PUT',
      path,
      // With its resourceVersion: of two replicas that try at once, one gets a conflict.
      body: {
        ...lease,
        spec: {
          ...spec,
          holderIdentity: identity,
          leaseDurationSeconds: durationSeconds,
          renewTime: now,
          acquireTime: isOurs ? (spec.acquireTime ?? now) : now,
          leaseTransitions: (spec.leaseTransitions ?? 0) + (isOurs ? 0 : 1),
        },
      },
      signal,
      timeoutMs,
    })) as Lease;
    this.#observe(updated);
    return true;
  }

  #observe(lease: Lease): void {
    const record = `${lease.metadata.uid} ${lease.metadata.resourceVersion} ${JSON.stringify(lease.spec)}`;
    if (this.#observed?.record !== record) this.#observed = { record, atMs: this.#clock.now() };
  }

  #hasRunOut({ leaseDurationSeconds }: LeaseSpec): boolean {
    const durationMs = (leaseDurationSeconds ?? this.#durationMs / 1000) * 1000;
    return this.#observed !== undefined && this.#clock.now() - this.#observed.atMs >= durationMs;
  }

  /** Hands the lease over at once, so that a rollout of the operator does not cost a lease's duration. */
  async #release(): Promise<void> {
    const { client, name, namespace, identity, wallClock = () => new Date() } = this.#options;
    const path = objectPath(RESOURCES.lease, name, namespace);
    try {
      const lease = (await client.request({ method: 'GET', path, timeoutMs: 2000 })) as Lease;
      if (lease.spec?.holderIdentity !== identity) return;
      const spec = { ...lease.spec, holderIdentity: '', renewTime: microTime(wallClock()) };
      await client.request({
        method: 'PUT',
        path,
        body: { ...lease, spec: { ...spec, leaseDurationSeconds: 1 } },
        timeoutMs: 2000,
      });
    } catch (error) {
      // It then runs out by itself.
      if (!isConflict(error)) this.#options.onError?.(error);
    }
  }
}
