import assert from 'node:assert/strict';
import { test } from 'node:test';
import { CONDITION_MEANINGS, CONDITION_TYPES, REASONS } from '#crds/conditions.ts';
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import type { MetricsState } from '#operator/nvlm/context.ts';
import type { PodProblem } from '#operator/nvlm/pod.ts';
import { type Finding, makeStatus, type StatusInput } from '#operator/nvlm/status.ts';
import { rolloutPod } from '../../support/rollout-world.ts';

const autoscaling = { minReplicas: 0, maxReplicas: 4, targetQueueDepth: 16 };
const specs = [0, 2].flatMap((replicas) =>
  [undefined, autoscaling].map((scaling) => ({
    replicas,
    rollout: { maxSurge: 0, maxUnavailable: 1 },
    ...(scaling && { autoscaling: scaling }),
  })),
);
const pod = (revision: string, isReady: boolean, isDraining = false) =>
  rolloutPod(`chat-${revision}`, revision, { isReady, isDraining });
const podSets = [
  [],
  [pod('r1', false)],
  [pod('r1', true), pod('r0', true, true)],
  [pod('r1', true), rolloutPod('chat-b', 'r1', { isReady: true })],
  [pod('r1', true), pod('r0', true)],
];
const accepted: readonly Finding[] = [
  { status: 'True', reason: 'Feasible', message: '' },
  { status: 'Unknown', reason: 'ModelUnknown', message: '' },
  { status: 'False', reason: 'InsufficientGpuMemory', message: '' },
  { status: 'False', reason: 'PipelineUnsupported', message: '' },
  { status: 'False', reason: 'LeaderWorkerSetMissing', message: '' },
];
const troubles: readonly (PodProblem['reason'] | undefined)[] = [
  undefined,
  'Unschedulable',
  'ImagePull',
  'OutOfMemory',
  'CrashLoop',
  'SecretMissing',
  'CacheUnusable',
  'LeaderWorkerSetMissing',
  'InvalidTemplate',
];
const metricsStates: readonly MetricsState['status'][] = [
  'served',
  'foreign',
  'unreachable',
  'off',
];
const loadings = [undefined, 'downloading', 'repack weights'];
const drifts = [undefined, true, false];

/** Every mixture of the states above: each condition is told for each. */
function* inputs(): Generator<StatusInput> {
  for (const spec of specs)
    for (const pods of podSets)
      for (const finding of accepted)
        for (const reason of troubles)
          for (const [index, status] of metricsStates.entries()) {
            const phase = loadings[index % loadings.length];
            const isRepaired = drifts[index % drifts.length];
            yield {
              deployment: {
                metadata: {
                  name: 'chat',
                  namespace: 'ns',
                  generation: 1,
                  ...(index === 3 && { deletionTimestamp: '2026-01-01T00:00:00Z' }),
                },
                spec,
              } as NVLMDeployment,
              pods,
              podObjects: [],
              tokensPerSecond: undefined,
              hasRoute: index % 2 === 0,
              revision: 'r1',
              problems: reason === undefined ? [] : [{ reason, message: '' }],
              accepted: finding,
              drifts:
                isRepaired === undefined
                  ? []
                  : [{ object: 'Service chat', manager: 'kubectl', fields: ['f'], isRepaired }],
              depth: { waiting: 0, running: 0, isStale: false, ageMs: 0 },
              loading: new Map(
                phase === undefined ? [] : [['ns/chat-r1', { phase, fraction: 0.5 }]],
              ),
              metrics: { status, message: '' },
              lastActiveTime: undefined,
              capacity: undefined,
              model: undefined,
              now: new Date(0),
            };
          }
}

test('a condition has only the reasons that its meaning names, and every one of those', () => {
  const seen = new Map(CONDITION_TYPES.map((type) => [type, new Set<string>()]));
  for (const input of inputs()) {
    for (const { type, reason } of makeStatus(input).conditions ?? []) seen.get(type)?.add(reason);
  }
  for (const type of CONDITION_TYPES) {
    const named = [...CONDITION_MEANINGS[type].reasons].sort();
    assert.deepEqual([...(seen.get(type) ?? [])].sort(), named, type);
  }
});

test('every reason but that of an event belongs to a condition', () => {
  const named = new Set(Object.values(CONDITION_MEANINGS).flatMap(({ reasons }) => reasons));
  assert.deepEqual(
    Object.keys(REASONS).filter((reason) => !named.has(reason as never)),
    ['Waking'],
  );
});
