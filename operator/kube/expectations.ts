/**
 * What was written and has not come back by the watch yet. Acting on a cache that is older than one's own write makes a second
 * pod for every one; so a key waits until the store has caught up, or until so much time has passed that the event is taken for lost.
 */
import type { Clock } from './clock.ts';
import { systemClock } from './clock.ts';
import { type KubeObject, keyOf } from './resource.ts';
import type { Store } from './store.ts';

interface Expectation {
  /** Kind and key of the object. */
  readonly id: string;
  readonly isMet: () => boolean;
  readonly untilMs: number;
}

export class Expectations {
  readonly #byKey = new Map<string, Map<string, Expectation>>();
  readonly #clock: Clock;
  readonly #timeoutMs: number;

  constructor(clock: Clock = systemClock, timeoutMs = 60_000) {
    this.#clock = clock;
    this.#timeoutMs = timeoutMs;
  }

  /** `store` must have been told of `written`, which may be gone again by then. */
  expectWrite<T extends KubeObject>(key: string, store: Store<T>, written: KubeObject): void {
    const { uid, resourceVersion } = written.metadata;
    const objectKey = keyOf(written);
    const { clearings } = store;
    this.#add(key, `${written.kind} ${objectKey}`, () => {
      // Somebody may have deleted it before the key had its turn: the store is then past it without holding it.
      if (store.clearings !== clearings || isNotOlder(store.resourceVersion, resourceVersion)) {
        return true;
      }
      const seen = store.get(objectKey)?.metadata;
      if (seen === undefined) return false;
      // Re-made since: that was written after ours.
      return seen.uid !== uid || isNotOlder(seen.resourceVersion, resourceVersion);
    });
  }

  /** The object must leave `store`, or be marked as being deleted. */
  expectDelete<T extends KubeObject>(key: string, store: Store<T>, deleted: KubeObject): void {
    const objectKey = keyOf(deleted);
    this.#add(key, `${deleted.kind} ${objectKey}`, () => {
      const seen = store.get(objectKey)?.metadata;
      return (
        seen === undefined ||
        seen.uid !== deleted.metadata.uid ||
        seen.deletionTimestamp !== undefined
      );
    });
  }

  /** Whether the store shows everything that was written for the key, or should have by now. */
  isSatisfied(key: string): boolean {
    const pending = this.#byKey.get(key);
    if (pending === undefined) return true;
    const now = this.#clock.now();
    for (const [id, { isMet, untilMs }] of pending) {
      if (now >= untilMs || isMet()) pending.delete(id);
    }
    if (pending.size > 0) return false;
    this.#byKey.delete(key);
    return true;
  }

  forget(key: string): void {
    this.#byKey.delete(key);
  }

  #add(key: string, id: string, isMet: () => boolean): void {
    const pending = this.#byKey.get(key) ?? new Map<string, Expectation>();
    pending.set(id, { id, isMet, untilMs: this.#clock.now() + this.#timeoutMs });
    this.#byKey.set(key, pending);
  }
}

/** Kubernetes 1.35 promises what etcd always gave: versions of one type are decimal numbers that grow. */
function isNotOlder(seen: string | undefined, written: string | undefined): boolean {
  if (seen === written || written === undefined) return true;
  if (seen === undefined || !/^\d+$/.test(seen) || !/^\d+$/.test(written)) return false;
  return BigInt(seen) >= BigInt(written);
}
