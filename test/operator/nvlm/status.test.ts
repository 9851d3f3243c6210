import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { NVLMDeployment, NVLMDeploymentStatus } from '#crds/nvlm-deployment.ts';
import { makeStatus, type StatusInput } from '#operator/nvlm/status.ts';
import type { EngineLoading } from '#operator/scaling/scrape.ts';
import { rolloutPod } from '../../support/rollout-world.ts';

const deployment = {
  apiVersion: 'serving.nvlm.dev/v1alpha1',
  kind: 'NVLMDeployment',
  metadata: { name: 'chat', namespace: 'ns', generation: 1 },
  spec: { replicas: 2, rollout: { maxSurge: 0, maxUnavailable: 1 } },
} as NVLMDeployment;

const statusOf = (
  ready: readonly boolean[],
  {
    loading = {},
    hasRoute = true,
    tokensPerSecond,
    before,
  }: {
    readonly loading?: Readonly<Record<string, EngineLoading>>;
    readonly hasRoute?: boolean;
    readonly tokensPerSecond?: number;
    readonly before?: NVLMDeploymentStatus;
  } = {},
): NVLMDeploymentStatus => {
  const input: StatusInput = {
    deployment: before === undefined ? deployment : { ...deployment, status: before },
    pods: ready.map((isReady, i) => rolloutPod(`chat-${i}`, 'r1', { isReady })),
    podObjects: [],
    revision: 'r1',
    problems: [],
    accepted: { status: 'True', reason: 'Feasible', message: '' },
    drifts: [],
    depth: { waiting: 0, running: 0, isStale: false, ageMs: 0 },
    tokensPerSecond,
    hasRoute,
    loading: new Map(Object.entries(loading)),
    metrics: { status: 'served', message: '' },
    lastActiveTime: undefined,
    capacity: undefined,
    model: undefined,
    now: new Date('2026-01-01T00:00:00Z'),
  };
  return makeStatus(input);
};

const tell = (ready: readonly boolean[], loading: Readonly<Record<string, EngineLoading>> = {}) => {
  const status = statusOf(ready, { loading });
  const condition = status.conditions?.find(({ type }) => type === 'ModelCached');
  return {
    phase: status.phase,
    told: `${condition?.status} ${condition?.reason}`,
    message: condition?.message ?? '',
  };
};

describe('what is told of the model', () => {
  test('is nothing as long as no engine has said anything', () => {
    const { told, phase } = tell([false, false]);
    assert.equal(told, 'Unknown NotReady');
    assert.equal(phase, 'Starting');
  });

  test('is how far each engine has downloaded, in steps, and the phase says so', () => {
    const { told, phase, message } = tell([false, false], {
      'ns/chat-1': { phase: 'downloading', fraction: 0.437 },
      'ns/chat-0': { phase: 'extracting', fraction: 1 },
    });
    assert.equal(told, 'False Downloading');
    assert.equal(phase, 'Downloading');
    assert.match(message, /pod chat-0: extracting, 100 %; pod chat-1: downloading, 40 %/);
  });

  test('is that it is there, once engines read it from their disk', () => {
    const { told, phase, message } = tell([false, false], {
      'ns/chat-0': { phase: 'repack weights', fraction: 0.2 },
    });
    assert.equal(told, 'True Cached');
    assert.equal(phase, 'Starting');
    assert.match(message, /repack weights, 20 %/);
  });

  test('is the download of a new replica beside one that serves, which stays the phase', () => {
    const { told, phase } = tell([true, false], {
      'ns/chat-1': { phase: 'downloading', fraction: 0.1 },
    });
    assert.equal(told, 'False Downloading');
    assert.equal(phase, 'Updating');
  });

  test('is that it is there while replicas serve', () => {
    assert.equal(tell([true, true]).told, 'True Cached');
  });
});

describe('the way to the engines', () => {
  const of = ({ conditions = [], phase, reason }: NVLMDeploymentStatus) => {
    const show = (wanted: string) => {
      const found = conditions.find(({ type }) => type === wanted);
      return `${found?.status} ${found?.reason}`;
    };
    return { route: show('RouteReady'), ready: show('Ready'), phase: `${phase} ${reason}` };
  };

  test('is there when the Service leads to one', () => {
    assert.deepEqual(of(statusOf([true, true])), {
      route: 'True Routed',
      ready: 'True AllReady',
      phase: 'Ready AllReady',
    });
    assert.equal(of(statusOf([true, false])).route, 'True Routed');
  });

  test('is not there while nobody serves, which is no trouble of the way', () => {
    const told = of(statusOf([false, false], { hasRoute: false }));
    assert.equal(told.route, 'False TooFewServing');
    assert.equal(told.ready, 'False NotReady');
  });

  test('makes replicas that nobody can reach not Ready', () => {
    assert.deepEqual(of(statusOf([true, true], { hasRoute: false })), {
      route: 'False NoRoute',
      ready: 'False NoRoute',
      phase: 'Starting NoRoute',
    });
  });
});

test('the tokens a second stay as they were told while a new operator has not watched for long enough', () => {
  assert.equal(statusOf([true]).tokensPerSecond, undefined);
  const before = statusOf([true], { tokensPerSecond: 120 });
  assert.equal(before.tokensPerSecond, 120);
  assert.equal(statusOf([true], { before }).tokensPerSecond, 120);
  assert.equal(statusOf([true], { before, tokensPerSecond: 0 }).tokensPerSecond, 0);
  assert.equal(statusOf([], { before }).tokensPerSecond, 0, 'scaled to zero');
  assert.equal(statusOf([false], { before, tokensPerSecond: 120 }).tokensPerSecond, 0);
  assert.equal(statusOf([]).tokensPerSecond, undefined, 'there never were any');
});
