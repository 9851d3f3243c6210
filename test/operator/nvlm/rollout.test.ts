import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { planRollout, type RolloutPod } from '#operator/nvlm/rollout.ts';

const base = { drainTimeoutMs: 60_000, minDrainMs: 2000 };
const pod = (name: string, revision: string, more: Partial<RolloutPod> = {}): RolloutPod => ({
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
const plan = (
  pods: readonly RolloutPod[],
  wanted: number,
  maxSurge: number,
  maxUnavailable: number,
) => planRollout({ ...base, pods, wanted, currentRevision: 'new', maxSurge, maxUnavailable });

describe('planning a rollout', () => {
  test('a new deployment gets all its pods at once', () => {
    assert.deepEqual(plan([], 3, 0, 1), { create: 3, drain: [], undrain: [], delete: [] });
  });

  test('with a surge a new pod is made before an old one goes', () => {
    const old = [pod('a', 'old'), pod('b', 'old')];
    assert.deepEqual(plan(old, 2, 1, 0), { create: 1, drain: [], undrain: [], delete: [] });
    const starting = pod('c', 'new', { isReady: false });
    assert.deepEqual(plan([...old, starting], 2, 1, 0), {
      create: 0,
      drain: [],
      undrain: [],
      delete: [],
    });
    assert.deepEqual(plan([...old, pod('c', 'new')], 2, 1, 0).drain, ['a']);
  });

  test('without a surge one old pod leaves first, and the next only when a new one serves', () => {
    const old = [pod('a', 'old', { inFlight: 3 }), pod('b', 'old', { inFlight: 1 })];
    assert.deepEqual(plan(old, 2, 0, 1), { create: 0, drain: ['b'], undrain: [], delete: [] });
    const starting = [pod('a', 'old'), pod('c', 'new', { isReady: false })];
    assert.deepEqual(plan(starting, 2, 0, 1), { create: 0, drain: [], undrain: [], delete: [] });
  });

  test('a draining pod is deleted when it is idle or out of time, and not before', () => {
    const busy = { isDraining: true, inFlight: 2, drainingMs: 5000 };
    assert.deepEqual(plan([pod('a', 'old', busy), pod('b', 'new')], 1, 1, 0).delete, []);
    const unknown = { ...busy, inFlight: undefined };
    assert.deepEqual(plan([pod('a', 'old', unknown), pod('b', 'new')], 1, 1, 0).delete, []);
    const idle = { ...busy, inFlight: 0 };
    assert.deepEqual(plan([pod('a', 'old', idle), pod('b', 'new')], 1, 1, 0).delete, ['a']);
    const late = { ...busy, drainingMs: 60_000 };
    assert.deepEqual(plan([pod('a', 'old', late), pod('b', 'new')], 1, 1, 0).delete, ['a']);
    const fresh = { ...idle, drainingMs: 100 };
    assert.deepEqual(plan([pod('a', 'old', fresh), pod('b', 'new')], 1, 1, 0).delete, []);
  });

  test('an edit back takes the draining pod in again and lets the new one go', () => {
    const pods = [
      pod('a', 'new', { isDraining: true, inFlight: 4 }),
      pod('b', 'broken', { isReady: false }),
    ];
    assert.deepEqual(plan(pods, 1, 1, 0), {
      create: 0,
      drain: [],
      undrain: ['a'],
      delete: ['b'],
    });
  });

  test('scaling down takes the idlest pod', () => {
    const pods = [pod('a', 'new', { inFlight: 5 }), pod('b', 'new', { inFlight: 0 })];
    assert.deepEqual(plan(pods, 1, 0, 1).drain, ['b']);
  });

  test('an old pod stands in again when the new ones break', () => {
    const pods = [
      pod('a', 'old', { isDraining: true, inFlight: 1, drainingMs: 10_000 }),
      pod('b', 'new', { isReady: false }),
    ];
    assert.deepEqual(plan(pods, 1, 1, 0).undrain, ['a']);
  });

  test('a failed pod is cleared away and replaced at once', () => {
    const failed = pod('a', 'new', { isReady: false, hasFailed: true });
    assert.deepEqual(plan([failed], 1, 0, 1), {
      create: 1,
      drain: [],
      undrain: [],
      delete: ['a'],
    });
  });
});

/** A cluster as the planner meets it: pods start, break and vanish at any time, and plans may be carried out in part. */
interface World {
  pods: (RolloutPod & { readonly id: number })[];
  wanted: number;
  revision: string;
  maxSurge: number;
  maxUnavailable: number;
  nextId: number;
}
type Action =
  | { readonly kind: 'edit'; readonly revision: string }
  | { readonly kind: 'scale'; readonly wanted: number }
  | { readonly kind: 'budget'; readonly maxSurge: number; readonly maxUnavailable: number }
  | { readonly kind: 'start' | 'crash' | 'fail' | 'finish' | 'vanish'; readonly pick: number }
  /** Reconcile; it dies after `writes` of its writes. */
  | { readonly kind: 'reconcile'; readonly writes: number };

const serving = (world: World): number =>
  world.pods.filter((p) => p.isReady && !p.isDraining && !p.isTerminating && !p.hasFailed).length;
const holding = (world: World): number => world.pods.filter((p) => !p.hasFailed).length;

function update(world: World, name: string, change: Partial<RolloutPod>): void {
  world.pods = world.pods.map((p) => (p.name === name ? { ...p, ...change } : p));
}

function reconcile(world: World, writes = Number.POSITIVE_INFINITY): number {
  const before = { serving: serving(world), holding: holding(world) };
  const next = planRollout({
    ...base,
    pods: world.pods,
    wanted: world.wanted,
    currentRevision: world.revision,
    maxSurge: world.maxSurge,
    maxUnavailable: world.maxUnavailable,
  });
  const steps = [
    ...next.undrain.map((name) => () => update(world, name, { isDraining: false, drainingMs: 0 })),
    ...next.drain.map((name) => () => update(world, name, { isDraining: true })),
    ...next.delete.map((name) => () => {
      const gone = world.pods.find((p) => p.name === name);
      if (gone?.hasFailed) world.pods = world.pods.filter((p) => p.name !== name);
      else update(world, name, { isTerminating: true });
    }),
    ...Array.from({ length: next.create }, () => () => {
      const id = world.nextId++;
      world.pods.push({
        ...pod(`p${id}`, world.revision, { isReady: false, createdAtMs: id }),
        id,
      });
    }),
  ];
  for (const step of steps.slice(0, writes)) {
    step();
    const floor = Math.min(before.serving, world.wanted - world.maxUnavailable);
    assert.ok(serving(world) >= floor, `serving ${serving(world)} fell below ${floor}`);
    const ceiling = Math.max(before.holding, world.wanted + world.maxSurge);
    assert.ok(holding(world) <= ceiling, `pods ${holding(world)} rose above ${ceiling}`);
  }
  return steps.length;
}

function act(world: World, action: Action): void {
  const live = world.pods.filter((p) => !p.isTerminating && !p.hasFailed);
  const picked = 'pick' in action ? live[action.pick % Math.max(live.length, 1)] : undefined;
  switch (action.kind) {
    case 'edit':
      world.revision = action.revision;
      break;
    case 'scale':
      world.wanted = action.wanted;
      break;
    case 'budget':
      world.maxSurge = action.maxSurge;
      world.maxUnavailable = Math.max(action.maxUnavailable, action.maxSurge === 0 ? 1 : 0);
      break;
    case 'start':
      if (picked) update(world, picked.name, { isReady: true, inFlight: action.pick % 3 });
      break;
    case 'crash':
      if (picked) update(world, picked.name, { isReady: false });
      break;
    case 'fail':
      if (picked) update(world, picked.name, { isReady: false, hasFailed: true });
      break;
    case 'finish':
      if (picked) update(world, picked.name, { inFlight: 0, drainingMs: picked.drainingMs + 3000 });
      break;
    case 'vanish':
      world.pods = world.pods.filter((p) => !p.isTerminating);
      break;
    case 'reconcile':
      reconcile(world, action.writes);
  }
}

/** Everything starts, finishes and goes as it should: does the rollout come to its end? */
function settle(world: World): void {
  for (let round = 0; round < 200; round++) {
    const steps = reconcile(world);
    const pending = world.pods.some((p) => !p.isReady || p.isTerminating || p.isDraining);
    if (steps === 0 && !pending) return;
    world.pods = world.pods
      .filter((p) => !p.isTerminating)
      .map((p) => ({
        ...p,
        isReady: true,
        inFlight: 0,
        drainingMs: p.isDraining ? p.drainingMs + 3000 : 0,
      }));
  }
  assert.fail(`no end: ${JSON.stringify(world)}`);
}

const action: fc.Arbitrary<Action> = fc.oneof(
  fc.record({ kind: fc.constant('edit' as const), revision: fc.constantFrom('r1', 'r2', 'r3') }),
  fc.record({ kind: fc.constant('scale' as const), wanted: fc.nat(5) }),
  fc.record({
    kind: fc.constant('budget' as const),
    maxSurge: fc.nat(2),
    maxUnavailable: fc.nat(2),
  }),
  fc.record({
    kind: fc.constantFrom('start' as const, 'crash' as const, 'fail' as const, 'finish' as const),
    pick: fc.nat(20),
  }),
  fc.record({ kind: fc.constant('vanish' as const), pick: fc.constant(0) }),
  fc.record({ kind: fc.constant('reconcile' as const), writes: fc.nat(4) }),
  fc.constant({ kind: 'reconcile' as const, writes: 100 }),
);

test('through edits, reverts, crashes and lost writes the budgets hold, and every rollout comes to its end', () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 60 }), fc.nat(4), (actions, wanted) => {
      const world: World = {
        pods: [],
        wanted,
        revision: 'r1',
        maxSurge: 0,
        maxUnavailable: 1,
        nextId: 0,
      };
      for (const next of actions) act(world, next);
      settle(world);
      assert.equal(world.pods.length, world.wanted);
      assert.ok(world.pods.every((p) => p.revision === world.revision));
    }),
    { numRuns: 3000 },
  );
});
