/**
 * A cluster as the planners of rollouts meet it: pods start, break and vanish at any time, plans may be carried out in part, or be made
 * from what a watch told before it fell behind.
 * `checkPlanner` runs random histories of it; after each write the budgets must hold, and every history must come to its end.
 */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import type { RolloutPlan, RolloutPod } from '#operator/nvlm/rollout.ts';

export const DRAIN = { drainTimeoutMs: 60_000, minDrainMs: 2000 };

/** A pod that serves nobody at the moment. */
export const rolloutPod = (
  name: string,
  revision: string,
  more: Partial<RolloutPod> = {},
): RolloutPod => ({
  name,
  revision,
  isReady: true,
  isDraining: false,
  isTerminating: false,
  hasFailed: false,
  inFlight: 0,
  drainingMs: 0,
  createdAtMs: 0,
  ...more,
});

/** What happens in every such cluster. */
type CommonAction =
  | { readonly kind: 'scale'; readonly wanted: number }
  | { readonly kind: 'budget'; readonly maxSurge: number; readonly maxUnavailable: number }
  | { readonly kind: 'start' | 'crash' | 'finish'; readonly pick: number }
  | { readonly kind: 'vanish' }
  /** The watches fall behind: the next reconcile goes by what is seen now. */
  | { readonly kind: 'gap' }
  /** Reconcile; it dies after `writes` of its writes. */
  | { readonly kind: 'reconcile'; readonly writes: number };

interface Seen<Plan> {
  readonly plan: Plan;
  readonly servingNames: readonly string[];
  readonly isReadySeen: ReadonlySet<string>;
  /** Replicas that must serve, and may hold GPUs. */
  readonly needed: number;
  readonly most: number;
}

export abstract class RolloutWorld<Plan extends RolloutPlan = RolloutPlan> {
  wanted: number;
  maxSurge = 0;
  maxUnavailable = 1;
  #nextId = 0;
  /** What the watches told last, when they are behind: a plan depends on nothing else. */
  #behind: Seen<Plan> | undefined;

  constructor(wanted: number) {
    this.wanted = wanted;
  }

  abstract pods(): readonly RolloutPod[];
  /** Puts what `change` makes of each pod in its place; undefined: the pod is gone. */
  abstract replace(change: (pod: RolloutPod) => RolloutPod | undefined): void;
  /** Replicas that have GPUs, or will have them without a further write. */
  abstract holding(): number;
  abstract plan(): Plan;
  abstract add(name: string, createdAtMs: number): void;
  /** Writes of a plan besides those for single pods. */
  protected furtherWrites(_plan: Plan): readonly (() => void)[] {
    return [];
  }
  /** What other controllers do. */
  sync(): void {}

  serving(): number {
    return this.#servingNames().length;
  }

  #servingNames(): string[] {
    return this.pods()
      .filter((pod) => pod.isReady && !pod.isDraining && !pod.isTerminating && !pod.hasFailed)
      .map(({ name }) => name);
  }

  #look(): Seen<Plan> {
    return {
      plan: this.plan(),
      servingNames: this.#servingNames(),
      isReadySeen: new Set(
        this.pods()
          .filter((pod) => pod.isReady)
          .map(({ name }) => name),
      ),
      needed: this.wanted - this.maxUnavailable,
      most: this.wanted + this.maxSurge,
    };
  }

  update(name: string, change: Partial<RolloutPod>): void {
    this.replace((pod) => (pod.name === name ? { ...pod, ...change } : pod));
  }

  /** One of the live pods, if there are any. */
  picked(pick: number): RolloutPod | undefined {
    const live = this.pods().filter((pod) => !pod.isTerminating && !pod.hasFailed);
    return live[pick % Math.max(live.length, 1)];
  }

  /** As the plan saw it: what has changed since is left alone. */
  #delete(name: string, isReadySeen: ReadonlySet<string>): void {
    this.replace((pod) => {
      if (pod.name !== name || pod.isReady !== isReadySeen.has(name)) return pod;
      return pod.hasFailed ? undefined : { ...pod, isTerminating: true };
    });
  }

  #create(): void {
    const id = this.#nextId++;
    this.add(`p${id}`, id);
  }

  /** Plans and carries out `writes` of the plan, the budgets checked after each. Returns how many writes the plan has. */
  reconcile(writes = Number.POSITIVE_INFINITY): number {
    const before = { serving: this.serving(), holding: this.holding() };
    const { plan, servingNames, isReadySeen, needed, most } = this.#behind ?? this.#look();
    // Whoever waits to see its own writes has caught up when it plans again.
    this.#behind = undefined;
    const serves = new Set(this.#servingNames());
    const lostUnseen = servingNames.filter((name) => !serves.has(name)).length;
    const steps = [
      ...plan.undrain.map((name) => () => {
        this.update(name, { isDraining: false, drainingMs: 0 });
      }),
      ...plan.drain.map((name) => () => this.update(name, { isDraining: true })),
      ...plan.delete.map((name) => () => this.#delete(name, isReadySeen)),
      ...Array.from({ length: plan.create }, () => () => this.#create()),
      ...this.furtherWrites(plan),
    ];
    for (const step of steps.slice(0, writes)) {
      step();
      const floor = Math.min(before.serving, needed - lostUnseen);
      assert.ok(this.serving() >= floor, `serving ${this.serving()} fell below ${floor}`);
      const ceiling = Math.max(before.holding, most);
      assert.ok(this.holding() <= ceiling, `replicas ${this.holding()} rose above ${ceiling}`);
    }
    return steps.length;
  }

  happen(action: CommonAction): void {
    const picked = 'pick' in action ? this.picked(action.pick) : undefined;
    switch (action.kind) {
      case 'scale':
        this.wanted = action.wanted;
        break;
      case 'budget':
        this.maxSurge = action.maxSurge;
        this.maxUnavailable = Math.max(action.maxUnavailable, action.maxSurge === 0 ? 1 : 0);
        break;
      case 'start':
        if (picked) this.update(picked.name, { isReady: true, inFlight: action.pick % 3 });
        break;
      case 'crash':
        if (picked) this.update(picked.name, { isReady: false });
        break;
      case 'finish':
        if (picked) this.update(picked.name, { inFlight: 0, drainingMs: picked.drainingMs + 3000 });
        break;
      case 'gap':
        this.#behind ??= this.#look();
        break;
      case 'vanish':
        this.replace((pod) => (pod.isTerminating ? undefined : pod));
        break;
      case 'reconcile':
        this.reconcile(action.writes);
    }
  }

  /** Everything starts, finishes and goes as it should: does the rollout come to its end? */
  settle(): void {
    this.#behind = undefined;
    for (let round = 0; round < 200; round++) {
      const steps = this.reconcile();
      this.sync();
      const pending = this.pods().some(
        (pod) => !pod.isReady || pod.isTerminating || pod.isDraining,
      );
      if (steps === 0 && !pending) return;
      this.replace((pod) =>
        pod.isTerminating
          ? undefined
          : {
              ...pod,
              isReady: true,
              inFlight: 0,
              drainingMs: pod.isDraining ? pod.drainingMs + 3000 : 0,
            },
      );
    }
    assert.fail(`no end: ${JSON.stringify(this)}`);
  }
}

const commonAction: fc.Arbitrary<CommonAction> = fc.oneof(
  fc.record({ kind: fc.constant('scale' as const), wanted: fc.nat(5) }),
  fc.record({
    kind: fc.constant('budget' as const),
    maxSurge: fc.nat(2),
    maxUnavailable: fc.nat(2),
  }),
  fc.record({
    kind: fc.constantFrom('start' as const, 'crash' as const, 'finish' as const),
    pick: fc.nat(20),
  }),
  fc.constantFrom({ kind: 'vanish' as const }, { kind: 'gap' as const }),
  fc.record({ kind: fc.constant('reconcile' as const), writes: fc.nat(4) }),
  fc.constant({ kind: 'reconcile' as const, writes: 100 }),
);

/** Random histories of what happens anywhere and of `own`, what happens in this world alone. */
export function checkPlanner<World extends RolloutWorld, Own>({
  create,
  own,
  happen,
  atEnd,
}: {
  readonly create: (wanted: number) => World;
  readonly own: fc.Arbitrary<Own>;
  readonly happen: (world: World, action: Own) => void;
  readonly atEnd: (world: World) => void;
}): void {
  const action = fc.oneof(
    { weight: 6, arbitrary: commonAction.map((common) => ({ common })) },
    { weight: 2, arbitrary: own.map((own) => ({ own })) },
  );
  fc.assert(
    fc.property(fc.array(action, { maxLength: 60 }), fc.nat(4), (actions, wanted) => {
      const world = create(wanted);
      for (const next of actions) {
        if ('common' in next) world.happen(next.common);
        else happen(world, next.own);
      }
      world.settle();
      atEnd(world);
    }),
    { numRuns: 3000 },
  );
}
