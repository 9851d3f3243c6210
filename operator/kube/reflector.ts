/**
 * Keeps a Store equal to what the API server has: a paginated LIST, then a WATCH that is taken up again from the last
 * resourceVersion, for as long as it runs. The informer of the Kubernetes library stops for good at the first error that is not
 * 410, does not notice a dead connection, and reports a re-made object as changed; those are the cases that this one is for.
 */
import { Backoff } from './backoff.ts';
import { errorOfStatus, type KubeClient } from './client.ts';
import { type Clock, pause, systemClock } from './clock.ts';
import { isGone, KubeError } from './errors.ts';
import { collectionPath, type KubeList, type KubeObject, type ResourceType } from './resource.ts';
import type { Store } from './store.ts';

export type RestartReason = 'closed' | 'gone' | 'error' | 'relist';

export interface ReflectorHooks {
  /** After each complete LIST. */
  onList?(count: number): void;
  /** An object or a bookmark came. */
  onEvent?(): void;
  /** A watch ended; `error` is absent when the server just closed it. */
  onRestart?(reason: RestartReason, error?: unknown): void;
}

export interface ReflectorOptions<T extends KubeObject> {
  readonly client: KubeClient;
  readonly type: ResourceType;
  readonly store: Store<T>;
  /** All namespaces when absent. */
  readonly namespace?: string;
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
  readonly hooks?: ReflectorHooks;
  /** Keeps who owns which field: half of an object's memory, as each pod has names of fields of its own. */
  readonly keepsManagedFields?: boolean;
  readonly clock?: Clock;
  /** In [0, 1). */
  readonly random?: () => number;
  readonly pageSize?: number;
  /** A watch that says nothing for so long is given up: the server sends a bookmark about every minute. */
  readonly inactivityMs?: number;
  /** A LIST at least so often, as a net under everything else; each after a share of it, so that the lists of many kinds and clients do not come together. */
  readonly relistMs?: number;
  readonly backoff?: { readonly baseMs: number; readonly maxMs: number };
}

/** The longest wait where no connection is to be had. */
const unreachableMs = 2000;
/** After so many tries errors are not of a server that starts. */
const maxRestarting = 60;

interface WatchEvent {
  readonly type: string;
  readonly object: KubeObject & { readonly code?: number; readonly message?: string };
}

export class Reflector<T extends KubeObject> {
  readonly #options: ReflectorOptions<T>;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #backoff: Backoff;
  /** From when there was no server until it has answered. */
  readonly #outage: Backoff;
  #resourceVersion: string | undefined;
  #listIsDueAt = Number.NEGATIVE_INFINITY;
  #lastEventAt: number | undefined;
  #markSynced: () => void = () => {};
  /** Resolves after the first complete LIST. */
  readonly synced: Promise<void>;
  #hasSynced = false;

  constructor(options: ReflectorOptions<T>) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? Math.random;
    const backoff = {
      ...(options.backoff ?? { baseMs: 500, maxMs: 30_000 }),
      random: this.#random,
    };
    this.#backoff = new Backoff(backoff);
    this.#outage = new Backoff({ ...backoff, maxMs: Math.min(backoff.maxMs, unreachableMs) });
    this.synced = new Promise((resolve) => {
      this.#markSynced = resolve;
    });
  }

  get hasSynced(): boolean {
    return this.#hasSynced;
  }

  /** Of the last list, object or bookmark; undefined before the first. */
  get lastEventAgeMs(): number | undefined {
    return this.#lastEventAt === undefined ? undefined : this.#clock.now() - this.#lastEventAt;
  }

  /** Lists and watches until `signal` aborts. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        if (this.#resourceVersion === undefined || this.#isRelistDue()) await this.#list(signal);
        const startedAt = this.#clock.now();
        const heard = await this.#watch(signal);
        if (signal.aborted) return;
        this.#options.hooks?.onRestart?.(this.#isRelistDue() ? 'relist' : 'closed');
        // A server that closes every watch at once must not be asked in a tight loop.
        if (heard || this.#clock.now() - startedAt > 1000) this.#backoff.reset();
        else await pause(this.#clock, this.#backoff.next(), signal);
      } catch (error) {
        if (signal.aborted) return;
        await this.#recover(error, signal);
      }
    }
  }

  async #recover(error: unknown, signal: AbortSignal): Promise<void> {
    const gone = isGone(error);
    this.#options.hooks?.onRestart?.(gone ? 'gone' : 'error', error);
    if (gone) this.#resourceVersion = undefined;
    const asked = error instanceof KubeError ? (error.retryAfterSeconds ?? 0) * 1000 : 0;
    const isUnreachable = error instanceof KubeError && error.code === 'KUBE_UNREACHABLE';
    // To ask where nobody listens costs nothing, and every second after the server is back, which begins with errors, is one without reconciles.
    const { failures } = this.#outage;
    if (isUnreachable || (failures > 0 && failures < maxRestarting)) {
      return pause(this.#clock, Math.max(this.#outage.next(), asked), signal);
    }
    // The first list after a 410 is made at once; a server that answers every one with 410 is backed off from.
    const wait = this.#backoff.next();
    if (gone && this.#backoff.failures === 1) return;
    await pause(this.#clock, Math.max(wait, asked), signal);
  }

  #isRelistDue(): boolean {
    return this.#clock.now() >= this.#listIsDueAt;
  }

  #heard(): void {
    this.#lastEventAt = this.#clock.now();
    this.#options.hooks?.onEvent?.();
  }

  #kept(object: T): T {
    if (this.#options.keepsManagedFields === true) return object;
    const { managedFields: _, ...metadata } = object.metadata;
    return { ...object, metadata };
  }

  get #selection(): Record<string, string> {
    const { labelSelector, fieldSelector } = this.#options;
    return { ...(labelSelector && { labelSelector }), ...(fieldSelector && { fieldSelector }) };
  }

  async #list(signal: AbortSignal): Promise<void> {
    const { client, type, namespace, store, pageSize = 500, relistMs = 1_800_000 } = this.#options;
    // Items of a list carry neither kind nor apiVersion.
    const { group, version, kind } = type;
    const apiVersion = group === '' ? version : `${group}/${version}`;
    const path = collectionPath(type, namespace);
    const items: T[] = [];
    let next: string | undefined;
    let resourceVersion: string | undefined;
    do {
      const page = (await client.request({
        method: 'GET',
        path,
        query: { limit: pageSize, continue: next, ...this.#selection },
        signal,
      })) as KubeList<T>;
      if (!Array.isArray(page?.items) || page.metadata?.resourceVersion === undefined) {
        throw new KubeError(
          'KUBE_PROTOCOL',
          `LIST ${path}: expected a list with a resourceVersion`,
        );
      }
      items.push(...page.items.map((item) => ({ ...this.#kept(item), apiVersion, kind })));
      resourceVersion = page.metadata.resourceVersion;
      next = page.metadata.continue || undefined;
    } while (next !== undefined);
    store.replace(items, resourceVersion);
    this.#resourceVersion = resourceVersion;
    this.#listIsDueAt = this.#clock.now() + relistMs * (0.5 + 0.5 * this.#random());
    this.#outage.reset();
    this.#heard();
    this.#options.hooks?.onList?.(items.length);
    this.#hasSynced = true;
    this.#markSynced();
  }

  /** Until the server closes it or a list is due; answers whether anything came. Throws what ends it otherwise. */
  async #watch(signal: AbortSignal): Promise<boolean> {
    const { client, type, namespace, store, inactivityMs = 150_000 } = this.#options;
    const untilRelist = this.#listIsDueAt - this.#clock.now();
    // Drawn at random, so that the watches of many clients do not end together.
    const seconds = Math.min(240 + Math.floor(this.#random() * 240), Math.ceil(untilRelist / 1000));
    const stream = client.stream(
      collectionPath(type, namespace),
      {
        watch: true,
        allowWatchBookmarks: true,
        timeoutSeconds: Math.max(seconds, 1),
        resourceVersion: this.#resourceVersion,
        ...this.#selection,
      },
      { signal, inactivityMs },
    );
    let heard = false;
    for await (const line of stream) {
      const { type: event, object } = line as WatchEvent;
      if (event === 'ERROR') {
        throw errorOfStatus(
          `WATCH ${collectionPath(type, namespace)}`,
          object?.code ?? 500,
          object,
        );
      }
      const resourceVersion = object?.metadata?.resourceVersion;
      if (resourceVersion === undefined) {
        throw new KubeError(
          'KUBE_PROTOCOL',
          `WATCH ${type.plural}: ${event} has no resourceVersion`,
        );
      }
      if (event === 'ADDED' || event === 'MODIFIED') store.set(this.#kept(object as unknown as T));
      else if (event === 'DELETED') store.delete(object as unknown as T);
      this.#resourceVersion = resourceVersion;
      heard = true;
      this.#backoff.reset();
      this.#outage.reset();
      this.#heard();
    }
    return heard;
  }
}
