import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { type GroupsPlan, type Leader, planGroups } from '#operator/nvlm/groups.ts';
import type { RolloutPod } from '#operator/nvlm/rollout.ts';
import {
  checkPlanner,
  DRAIN,
  rolloutPod as pod,
  RolloutWorld,
} from '../../support/rollout-world.ts';

const leader = (index: number, more: Partial<RolloutPod> = {}): Leader => ({
  index,
  pod: pod(`chat-group-${index}`, 'grouped', more),
});
const drained = { isDraining: true, drainingMs: 3000 };

describe('how many groups there are to be', () => {
  const plan = (groups: number, wanted: number, leaders: readonly Leader[]): GroupsPlan =>
    planGroups({
      ...DRAIN,
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
    assert.deepEqual(first, { ...still, drain: ['chat-group-2', 'chat-group-1'], groups: 3 });
    const busy = { ...drained, inFlight: 2 };
    assert.equal(plan(3, 1, [leader(0), leader(1, busy), leader(2, drained)]).groups, 2);
    assert.equal(plan(3, 1, [leader(0), leader(1, drained), leader(2, busy)]).groups, 3);
    assert.equal(plan(3, 1, [leader(0), leader(1, drained), leader(2, drained)]).groups, 1);
    const late = { ...busy, drainingMs: 60_000 };
    assert.equal(plan(3, 1, [leader(0), leader(1, late), leader(2, drained)]).groups, 1);
  });

  test('the last group stays as long as it is needed because those that are to stay do not serve yet', () => {
    const starting = [0, 1].map((index) => leader(index, { isReady: false }));
    const last = leader(2, { inFlight: 2 });
    assert.deepEqual(plan(3, 2, [...starting, last]), { ...still, groups: 3 });
    const started = plan(3, 2, [leader(0), leader(1, { isReady: false }), last]);
    assert.deepEqual(started, { ...still, drain: ['chat-group-2'], groups: 3 });
  });

  test('a group that never served goes at once, and one that is wanted again is taken in again', () => {
    assert.equal(plan(2, 1, [leader(0), leader(1, { isReady: false })]).groups, 1);
    const back = plan(2, 2, [leader(0), leader(1, drained)]);
    assert.deepEqual(back, { ...still, undrain: ['chat-group-1'], groups: 2 });
  });
});

/** Replicas that are single pods or groups, as the deployment says at the time; `sync` is the LeaderWorkerSet controller. */
class GroupsWorld extends RolloutWorld<GroupsPlan> {
  isGrouped = false;
  groups = 0;
  bare: readonly RolloutPod[] = [];
  leaders: readonly Leader[] = [];

  pods(): readonly RolloutPod[] {
    return [...this.bare, ...this.leaders.map((one) => one.pod)];
  }
  replace(change: (pod: RolloutPod) => RolloutPod | undefined): void {
    this.bare = this.bare.flatMap((one) => change(one) ?? []);
    this.leaders = this.leaders.flatMap(({ index, pod: one }) => {
      const changed = change(one);
      return changed === undefined ? [] : { index, pod: changed };
    });
  }
  /** Those that the controller was told to make count too. */
  holding(): number {
    const above = this.leaders.filter(({ index }) => index >= this.groups);
    return this.bare.length + this.groups + above.length;
  }
  plan(): GroupsPlan {
    const { bare: pods, leaders, groups, isGrouped, wanted, maxSurge, maxUnavailable } = this;
    const currentRevision = isGrouped ? 'grouped' : 'bare';
    const budget = { maxSurge, maxUnavailable };
    return planGroups({
      ...DRAIN,
      ...budget,
      pods,
      leaders,
      groups,
      isGrouped,
      wanted,
      currentRevision,
    });
  }
  add(name: string, createdAtMs: number): void {
    this.bare = [...this.bare, pod(name, 'bare', { isReady: false, createdAtMs })];
  }
  protected override furtherWrites({ groups }: GroupsPlan): readonly (() => void)[] {
    if (groups === this.groups) return [];
    return [
      () => {
        const lost = this.leaders.filter(
          ({ index, pod: one }) => index >= groups && index < this.groups && one.isReady,
        );
        const areDraining = lost.every(({ pod: one }) => one.isDraining);
        assert.ok(areDraining, 'a serving group was taken away');
        this.groups = groups;
      },
    ];
  }
  /** What is above the number goes, what is missing below it is made. */
  override sync(): void {
    this.leaders = this.leaders.map(({ index, pod: one }) => ({
      index,
      pod: index >= this.groups ? { ...one, isTerminating: true } : one,
    }));
    const there = new Set(this.leaders.map(({ index }) => index));
    for (let index = 0; index < this.groups; index++) {
      if (!there.has(index)) this.leaders = [...this.leaders, leader(index, { isReady: false })];
    }
  }
}

test('between single pods and groups, there and back at any time, the budgets hold and one kind is left', () => {
  checkPlanner({
    create: (wanted) => new GroupsWorld(wanted),
    own: fc.constantFrom('turn' as const, 'sync' as const),
    happen: (world, action) => {
      if (action === 'sync') world.sync();
      else world.isGrouped = !world.isGrouped;
    },
    atEnd: (world) => {
      const [groups, pods] = world.isGrouped ? [world.wanted, 0] : [0, world.wanted];
      assert.deepEqual(
        [world.leaders.length, world.groups, world.bare.length],
        [groups, groups, pods],
      );
    },
  });
});
