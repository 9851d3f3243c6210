/**
 * Kinds that a cluster serves only where somebody installed them: looked for again and again, watched while they are there. The API
 * server's discovery is asked, not its CustomResourceDefinitions: every account may read it, and it lists a kind only once it works.
 */
import type { KubeClient } from './client.ts';
import { type Clock, pause, systemClock } from './clock.ts';
import { isNotFound } from './errors.ts';
import type { Reflector, ReflectorHooks } from './reflector.ts';
import type { KubeObject, ResourceType } from './resource.ts';
import type { Store } from './store.ts';

export interface OptionalKind {
  readonly type: ResourceType;
  readonly store: Store<KubeObject>;
  /** A new one for each time that the kind appears; it fills `store` and calls the hook. */
  readonly createReflector: (
    hooks: Required<Pick<ReflectorHooks, 'onRestart'>>,
  ) => Reflector<KubeObject>;
}

export interface OptionalKindsOptions {
  readonly client: KubeClient;
  readonly kinds: readonly OptionalKind[];
  /** A kind became available, or is not any more. */
  readonly onChange: (type: ResourceType, isAvailable: boolean) => void;
  /** Discovery was not answered: what was known stays. */
  readonly onError: (type: ResourceType, error: unknown) => void;
  readonly periodMs?: number;
  /** How long the first look waits for the lists of what is there. */
  readonly firstListMs?: number;
  readonly clock?: Clock;
}

interface Watching {
  readonly reflector: Reflector<KubeObject>;
  readonly stop: AbortController;
  readonly ended: Promise<void>;
  isAvailable: boolean;
}

export class OptionalKinds {
  readonly #options: OptionalKindsOptions;
  readonly #clock: Clock;
  readonly #watching = new Map<ResourceType, Watching>();
  #markLooked: () => void = () => {};
  /** Resolves when each kind was looked for once, and what is there was listed, or could not be in time. */
  readonly looked: Promise<void>;

  constructor(options: OptionalKindsOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.looked = new Promise((resolve) => {
      this.#markLooked = resolve;
    });
  }

  /** Served, and its store is filled: what is written before that could take over objects of others unseen. */
  isAvailable(type: ResourceType): boolean {
    return this.#watching.get(type)?.isAvailable ?? false;
  }

  /** Of the kinds that are there. */
  get reflectors(): readonly {
    readonly resource: string;
    readonly reflector: Reflector<KubeObject>;
  }[] {
    return [...this.#watching].map(([type, { reflector }]) => ({
      resource: type.plural,
      reflector,
    }));
  }

  /** Until `signal` aborts. Never rejects. */
  async run(signal: AbortSignal): Promise<void> {
    const { kinds, periodMs = 10_000, firstListMs = 10_000 } = this.#options;
    await Promise.all(kinds.map((kind) => this.#look(kind, signal)));
    const lists = [...this.#watching.values()].map(({ reflector }) => reflector.synced);
    const patience = new AbortController();
    await Promise.race([
      Promise.all(lists),
      pause(this.#clock, firstListMs, AbortSignal.any([signal, patience.signal])),
    ]);
    patience.abort();
    this.#markLooked();
    while (!signal.aborted) {
      await pause(this.#clock, periodMs, signal);
      if (!signal.aborted) await Promise.all(kinds.map((kind) => this.#look(kind, signal)));
    }
    for (const { stop, ended } of this.#watching.values()) {
      stop.abort();
      await ended;
    }
  }

  async #look(kind: OptionalKind, signal: AbortSignal): Promise<void> {
    const { type } = kind;
    let isServed: boolean;
    try {
      isServed = await this.#isServed(type, signal);
    } catch (error) {
      if (!signal.aborted) this.#options.onError(type, error);
      return;
    }
    const watching = this.#watching.get(type);
    if (isServed && watching === undefined) this.#start(kind);
    if (!isServed && watching !== undefined) await this.#end(kind, watching);
  }

  async #isServed({ group, version, kind }: ResourceType, signal: AbortSignal): Promise<boolean> {
    try {
      const path = `/apis/${group}/${version}`;
      const list = (await this.#options.client.request({
        method: 'GET',
        path,
        signal,
        timeoutMs: 5000,
      })) as { readonly resources?: readonly { readonly kind?: string }[] };
      return list.resources?.some((resource) => resource.kind === kind) ?? false;
    } catch (error) {
      if (isNotFound(error)) return false;
      throw error;
    }
  }

  #start(kind: OptionalKind): void {
    const { type, createReflector } = kind;
    const reflector = createReflector({
      // Gone before discovery was asked again; it may be back by then, without its objects.
      onRestart: (_reason, error) => {
        const current = this.#watching.get(type);
        if (isNotFound(error) && current?.reflector === reflector) void this.#end(kind, current);
      },
    });
    const stop = new AbortController();
    const watching: Watching = {
      reflector,
      stop,
      ended: reflector.run(stop.signal),
      isAvailable: false,
    };
    this.#watching.set(type, watching);
    void reflector.synced.then(() => {
      if (stop.signal.aborted) return;
      watching.isAvailable = true;
      this.#options.onChange(type, true);
    });
  }

  async #end({ type, store }: OptionalKind, watching: Watching): Promise<void> {
    this.#watching.delete(type);
    watching.stop.abort();
    await watching.ended;
    store.clear();
    if (watching.isAvailable) this.#options.onChange(type, false);
  }
}
