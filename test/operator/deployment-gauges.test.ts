import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import { registerDeploymentGauges } from '#operator/deployment-gauges.ts';
import { OperatorMetrics } from '#operator/metrics.ts';
import { DepthBook } from '#operator/scaling/depth.ts';

const chat = {
  metadata: { namespace: 'team-a', name: 'chat' },
  spec: { replicas: 3 },
  status: {
    phase: 'Updating',
    readyReplicas: 1,
    servingReplicas: 2,
    drainingReplicas: 1,
    tokensPerSecond: 120,
    conditions: [
      { type: 'Accepted', status: 'True', reason: 'Feasible' },
      { type: 'Ready', status: 'False', reason: 'RollingOut' },
    ],
  },
} as unknown as NVLMDeployment;
/** One that the operator has not looked at yet. */
const fresh = {
  metadata: { namespace: 'team-b', name: 'new' },
  spec: { replicas: 1 },
} as unknown as NVLMDeployment;

/** What is served, without the lines about types. */
async function served(metrics: OperatorMetrics): Promise<string[]> {
  const text = await metrics.registry.metrics();
  return text.split('\n').filter((line) => line !== '' && !line.startsWith('#'));
}

describe('the gauges of an NVLMDeployment', () => {
  test('tell its demand, its replicas, its phase and its conditions', async () => {
    const metrics = new OperatorMetrics();
    const depths = new DepthBook();
    depths.expect(new Map([['team-a/chat', new Set(['team-a/chat-1', 'team-a/chat-2'])]]));
    depths.record('team-a/chat', 'team-a/chat-1', { waiting: 5, running: 7, finished: 0 } as never);
    depths.record('team-a/chat', 'team-a/chat-2', { waiting: 1, running: 2, finished: 0 } as never);
    registerDeploymentGauges(metrics, { list: () => [chat, fresh] }, depths);
    const a = 'namespace="team-a",name="chat"';
    const b = 'namespace="team-b",name="new"';
    const lines = (await served(metrics)).filter((line) => line.startsWith('nvlm_deployment_'));
    assert.deepEqual(lines, [
      `nvlm_deployment_queue_depth{${a}} 6`,
      `nvlm_deployment_queue_depth{${b}} 0`,
      `nvlm_deployment_queue_depth_is_stale{${a}} 0`,
      `nvlm_deployment_queue_depth_is_stale{${b}} 0`,
      `nvlm_deployment_tokens_per_second{${a}} 120`,
      `nvlm_deployment_tokens_per_second{${b}} 0`,
      `nvlm_deployment_running_requests{${a}} 9`,
      `nvlm_deployment_running_requests{${b}} 0`,
      `nvlm_deployment_desired_replicas{${a}} 3`,
      `nvlm_deployment_desired_replicas{${b}} 1`,
      `nvlm_deployment_ready_replicas{${a}} 1`,
      `nvlm_deployment_ready_replicas{${b}} 0`,
      `nvlm_deployment_serving_replicas{${a}} 2`,
      `nvlm_deployment_serving_replicas{${b}} 0`,
      `nvlm_deployment_draining_replicas{${a}} 1`,
      `nvlm_deployment_draining_replicas{${b}} 0`,
      `nvlm_deployment_phase{${a},phase="Updating"} 1`,
      `nvlm_deployment_condition{${a},type="Accepted",status="True",reason="Feasible"} 1`,
      `nvlm_deployment_condition{${a},type="Ready",status="False",reason="RollingOut"} 1`,
    ]);
  });

  test('are gone with it, and a phase that it left with the next scrape', async () => {
    const metrics = new OperatorMetrics();
    let list: readonly NVLMDeployment[] = [chat];
    registerDeploymentGauges(metrics, { list: () => list }, new DepthBook());
    const phases = async () =>
      (await served(metrics)).filter((line) => line.startsWith('nvlm_deployment_phase'));
    assert.match((await phases()).join(), /phase="Updating"/);
    list = [{ ...chat, status: { ...chat.status, phase: 'Ready' } } as NVLMDeployment];
    assert.deepEqual(await phases(), [
      'nvlm_deployment_phase{namespace="team-a",name="chat",phase="Ready"} 1',
    ]);
    list = [];
    assert.deepEqual(
      (await served(metrics)).filter((line) => line.startsWith('nvlm_deployment_')),
      [],
    );
  });
});
