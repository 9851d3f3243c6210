import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import { deploymentTree, drawTree } from '#operator/plugin/tree.ts';

test('a message of several lines, as the last words of an engine are, stays one line of the tree', () => {
  const message =
    'Pod chat-1 ended 2 times, last with:   Load /nowhere ...\n✖ Load /nowhere   failed\nCHECKPOINT_NOT_FOUND: /nowhere\n';
  const deployment = {
    metadata: { name: 'chat', namespace: 'ns' },
    spec: { model: { source: '/nowhere' }, parallelism: { tensor: 1, pipeline: 1 } },
    status: {
      phase: 'Degraded',
      reason: 'CrashLoop',
      conditions: [{ type: 'Degraded', status: 'True', reason: 'CrashLoop', message }],
    },
  } as unknown as NVLMDeployment;
  const event = {
    apiVersion: 'events.k8s.io/v1',
    kind: 'Event',
    metadata: { name: 'e' },
    type: 'Warning',
    reason: 'CrashLoop',
    note: message,
    eventTime: '2026-01-01T00:00:00.000000Z',
  };
  const tree = deploymentTree({ deployment, pods: [], children: [], events: [event] });
  const lines = drawTree(tree, (text) => text);
  assert.deepEqual(lines, [
    'ns/chat  Degraded (CrashLoop)  - ready',
    '├─ model /nowhere on 1 GPUs a replica',
    '├─ Degraded=True CrashLoop: Pod chat-1 ended 2 times, last with:   Load /nowhere ... ✖ Load /nowhere   failed CHECKPOINT_NOT_FOUND: /nowhere',
    '└─ events, newest first',
    '   └─ 2026-01-01T00:00:00  CrashLoop: Pod chat-1 ended 2 times, last with:   Load /nowhere ... ✖ Load /nowhere   failed CHECKPOINT_NOT_FOUND: /nowhere',
  ]);
});
