import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { type GroupsPlan, type Leader, planGroups } from '#operator/nvlm/groups.ts';
import type { RolloutPod } from '#operator/nvlm/rollout.ts';

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
const leader = (index: number, more: Partial<RolloutPod> = {}): Leader => ({
  index,
  pod: pod(`chat-group-${index}`, 'grouped', more),
});
const drained = { isDraining: true, drainingMs: 3000 };

describe('how many groups there are to be', () => {
  const plan = (groups: number, wanted: number, leaders: readonly Leader[]): GroupsPlan =>
    planGroups({
      ...base,
      pods: [],
      leaders,
      groups,
      isGrouped: true,
      wanted,
      currentRevision: 'grouped',
      maxSurge: 0,
      maxUnavailable: 1,
    });
  const still = { create: 0, drain: [], undrain: [], delete: [] };

  test('as many as are wanted, at once, and the controller makes them', () => {
    assert.deepEqual(plan(0, 3, []), { ...still, groups: 3 });
    assert.deepEqual(plan(1, 2, [leader(0)]), { ...still, groups: 2 });
  });

  test('a rolling update of the controller, with leaders missing and one too many, is left alone', () => {
    const rolling = [leader(0), leader(2, { isReady: false }), leader(3)];
    assert.deepEqual(plan(3, 3, rolling), { ...still, groups: 3 });
  });

  test('the last groups drain before the number is lowered, each down to the last that is busy', () => {
    const all = [leader(0), leader(1), leader(2)];
    const first = plan(3, 1, all);
    assert.deepEqual(first, { ...still, drain: ['chat-group-1', 'chat-group-2'], groups: 3 });
    const busy = { ...drained, inFlight: 2 };
    assert.equal(plan(3, 1, [leader(0), leader(1, busy), leader(2, drained)]).groups, 2);
    assert.equal(plan(3, 1, [leader(0), leader(1, drained), leader(2, busy)]).groups, 3);
    assert.equal(plan(3, 1, [leader(0), leader(1, drained), leader(2, drained)]).groups, 1);
    const late = { ...busy, drainingMs: 60_000 };
    assert.equal(plan(3, 1, [leader(0), leader(1, late), leader(2, drained)]).groups, 1);
  });

  test('a group that never served goes at once, and one that is wanted again is taken in again', () => {
    assert.equal(plan(2, 1, [leader(0), leader(1, { isReady: false })]).groups, 1);
    const back = plan(2, 2, [leader(0), leader(1, drained)]);
    assert.deepEqual(back, { ...still, undrain: ['chat-group-1'], groups: 2 });
  });
});

interface World {
  bare: RolloutPod[];
  leaders: Leader[];
  groups: number;
  isGrouped: boolean;
  wanted: number;
  maxSurge: number;
  maxUnavailable: number;
  nextId: number;
}
type Action =
  | { readonly kind: 'turn' | 'sync' | 'vanish' }
  | { readonly kind: 'scale'; readonly wanted: number }
  | { readonly kind: 'budget'; readonly maxSurge: number; readonly maxUnavailable: number }
  | { readonly kind: 'start' | 'crash' | 'finish'; readonly pick: number }
  | { readonly kind: 'reconcile'; readonly writes: number };

const all = ({ bare, leaders }: World): RolloutPod[] => [...bare, ...leaders.map((one) => one.pod)];
const serving = (world: World): number =>
  all(world).filter((p) => p.isReady && !p.isDraining && !p.isTerminating).length;
/** Replicas that have GPUs, or that the controller was told to make. */
const holding = ({ bare, leaders, groups }: World): number =>
  bare.length + groups + leaders.filter(({ index }) => index >= groups).length;

function update(world: World, name: string, change: Partial<RolloutPod>): void {
  world.bare = world.bare.map((p) => (p.name === name ? { ...p, ...change } : p));
  world.leaders = world.leaders.map((one) =>
    one.pod.name === name ? { ...one, pod: { ...one.pod, ...change } } : one,
  );
}

/** As the LeaderWorkerSet controller does: what is above the number goes, what is missing below it is made. */
function sync(world: World): void {
  world.leaders = world.leaders.map((one) =>
    one.index >= world.groups ? { ...one, pod: { ...one.pod, isTerminating: true } } : one,
  );
  const there = new Set(world.leaders.map(({ index }) => index));
  for (let index = 0; index < world.groups; index++) {
    if (!there.has(index)) world.leaders.push(leader(index, { isReady: false }));
  }
}

function reconcile(world: World, writes = Number.POSITIVE_INFINITY): number {
  const before = { serving: serving(world), holding: holding(world) };
  const next = planGroups({
    ...base,
    pods: world.bare,
    leaders: world.leaders,
    groups: world.groups,
    isGrouped: world.isGrouped,
    wanted: world.wanted,
    currentRevision: world.isGrouped ? 'grouped' : 'bare',
    maxSurge: world.maxSurge,
    maxUnavailable: world.maxUnavailable,
  });
  const steps = [
    ...next.undrain.map((name) => () => update(world, name, { isDraining: false, drainingMs: 0 })),
    ...next.drain.map((name) => () => update(world, name, { isDraining: true })),
    ...next.delete.map((name) => () => update(world, name, { isTerminating: true })),
    ...Array.from({ length: next.create }, () => () => {
      world.bare.push(pod(`p${world.nextId++}`, 'bare', { isReady: false }));
    }),
    ...(next.groups === world.groups
      ? []
      : [
          () => {
            const lost = world.leaders.filter(
              ({ index, pod: p }) => index >= next.groups && index < world.groups && p.isReady,
            );
            assert.ok(
              lost.every(({ pod: p }) => p.isDraining),
              'a serving group was taken away',
            );
            world.groups = next.groups;
          },
        ]),
  ];
  for (const step of steps.slice(0, writes)) {
    step();
    const floor = Math.min(before.serving, world.wanted - world.maxUnavailable);
    assert.ok(serving(world) >= floor, `serving ${serving(world)} fell below ${floor}`);
    const ceiling = Math.max(before.holding, world.wanted + world.maxSurge);
    assert.ok(holding(world) <= ceiling, `replicas ${holding(world)} rose above ${ceiling}`);
  }
  return steps.length;
}

function act(world: World, action: Action): void {
  const live = all(world).filter((p) => !p.isTerminating);
  const picked = 'pick' in action ? live[action.pick % Math.max(live.length, 1)] : undefined;
  switch (action.kind) {
    case 'turn':
      world.isGrouped = !world.isGrouped;
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
    case 'finish':
      if (picked) update(world, picked.name, { inFlight: 0, drainingMs: picked.drainingMs + 3000 });
      break;
    case 'sync':
      sync(world);
      break;
    case 'vanish':
      world.bare = world.bare.filter((p) => !p.isTerminating);
      world.leaders = world.leaders.filter((one) => !one.pod.isTerminating);
      break;
    case 'reconcile':
      reconcile(world, action.writes);
  }
}

function settle(world: World): void {
  for (let round = 0; round < 200; round++) {
    const steps = reconcile(world);
    sync(world);
    const pending = all(world).some((p) => !p.isReady || p.isTerminating || p.isDraining);
    if (steps === 0 && !pending) return;
    const settled = (p: RolloutPod): RolloutPod => ({
      ...p,
      isReady: true,
      inFlight: 0,
      drainingMs: p.isDraining ? p.drainingMs + 3000 : 0,
    });
    world.bare = world.bare.filter((p) => !p.isTerminating).map(settled);
    world.leaders = world.leaders
      .filter((one) => !one.pod.isTerminating)
      .map(({ index, pod: p }) => ({ index, pod: settled(p) }));
  }
  assert.fail(`no end: ${JSON.stringify(world)}`);
}

const action: fc.Arbitrary<Action> = fc.oneof(
  fc.constantFrom(
    { kind: 'turn' as const },
    { kind: 'sync' as const },
    { kind: 'vanish' as const },
    { kind: 'reconcile' as const, writes: 100 },
  ),
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
  fc.record({ kind: fc.constant('reconcile' as const), writes: fc.nat(4) }),
);

test('between single pods and groups, there and back at any time, the budgets hold and one kind is left', () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 60 }), fc.nat(4), (actions, wanted) => {
      const world: World = {
        bare: [],
        leaders: [],
        groups: 0,
        isGrouped: false,
        wanted,
        maxSurge: 0,
        maxUnavailable: 1,
        nextId: 0,
      };
      for (const next of actions) act(world, next);
      settle(world);
      const [groups, pods] = world.isGrouped ? [world.wanted, 0] : [0, world.wanted];
      assert.deepEqual(
        [world.leaders.length, world.groups, world.bare.length],
        [groups, groups, pods],
      );
    }),
    { numRuns: 3000 },
  );
});
