import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { planRollout, type RolloutPlan, type RolloutPod } from '#operator/nvlm/rollout.ts';
import {
  checkPlanner,
  DRAIN,
  rolloutPod as pod,
  RolloutWorld,
} from '../../support/rollout-world.ts';

const plan = (
  pods: readonly RolloutPod[],
  wanted: number,
  maxSurge: number,
  maxUnavailable: number,
) => planRollout({ ...DRAIN, pods, wanted, currentRevision: 'new', maxSurge, maxUnavailable });

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

/** Pods of which each has the revision that was wanted when it was made. */
class PodsWorld extends RolloutWorld {
  revision = 'r1';
  list: readonly RolloutPod[] = [];

  pods(): readonly RolloutPod[] {
    return this.list;
  }
  replace(change: (pod: RolloutPod) => RolloutPod | undefined): void {
    this.list = this.list.flatMap((one) => change(one) ?? []);
  }
  holding(): number {
    return this.list.filter(({ hasFailed }) => !hasFailed).length;
  }
  plan(): RolloutPlan {
    const { list: pods, wanted, revision: currentRevision, maxSurge, maxUnavailable } = this;
    return planRollout({ ...DRAIN, pods, wanted, currentRevision, maxSurge, maxUnavailable });
  }
  add(name: string, createdAtMs: number): void {
    this.list = [...this.list, pod(name, this.revision, { isReady: false, createdAtMs })];
  }
}

test('through edits, reverts, crashes and lost writes the budgets hold, and every rollout comes to its end', () => {
  checkPlanner({
    create: (wanted) => new PodsWorld(wanted),
    own: fc.oneof(
      fc.record({ revision: fc.constantFrom('r1', 'r2', 'r3') }),
      fc.record({ fail: fc.nat(20) }),
    ),
    happen: (world, action) => {
      if ('revision' in action) {
        world.revision = action.revision;
        return;
      }
      const failing = world.picked(action.fail);
      if (failing) world.update(failing.name, { isReady: false, hasFailed: true });
    },
    atEnd: ({ list, wanted, revision }) => {
      assert.equal(list.length, wanted);
      assert.ok(list.every((one) => one.revision === revision));
    },
  });
});
