import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { ANNOTATIONS } from '#charts/labels.ts';
import { objectPath, RESOURCES } from '#operator/kube/resource.ts';
import { eventually, SETUP_MS } from '../../scripts/cluster/processes.ts';
import { Deployments } from '../support/cluster/deployments.ts';
import {
  NAMESPACE,
  type OperatorProcess,
  startTestCluster,
  type TestCluster,
} from '../support/cluster/operator.ts';
import { noCluster } from '../support/cluster/requirements.ts';
import { noSkewedClock } from '../support/cluster/skewed-clock.ts';

const skewSeconds = 600;
/** Long enough that a machine under load renews in time: who leads is what is looked at here. */
const args = ['--lease-duration=12s'];
const handoverMs = 60_000;
/** A machine under load, and what the API server rounds away. */
const slackMs = 15_000;

describe('operators whose clocks are ten minutes ahead and behind, on a real control plane', {
  skip: noCluster() || noSkewedClock(),
  timeout: 600_000,
}, () => {
  let cluster: TestCluster;
  let deployments: Deployments;
  let ahead: OperatorProcess;
  let behind: OperatorProcess;

  before(async () => {
    cluster = await startTestCluster();
    deployments = new Deployments(cluster.client);
    ahead = await cluster.startOperator({ args, clockSeconds: skewSeconds });
    await untilLeads(ahead, 'the one ahead', SETUP_MS);
    behind = await cluster.startOperator({ args, clockSeconds: -skewSeconds });
  });
  after(() => cluster?.stop());

  const metric = async ({ url }: OperatorProcess): Promise<string> =>
    (await fetch(`${url}/metrics`)).text();
  const gauge = async (operator: OperatorProcess, name: string): Promise<number> =>
    Number(new RegExp(`^nvlm_operator_${name} (\\S+)$`, 'm').exec(await metric(operator))?.[1]);
  const untilLeads = async (
    operator: OperatorProcess,
    who: string,
    timeoutMs = handoverMs,
  ): Promise<void> => {
    const leads = async (): Promise<boolean> => (await gauge(operator, 'is_leader')) === 1;
    await eventually(`${who} leads`, leads, { timeoutMs });
  };
  /** Writes besides those of the Lease and of questions. */
  const writes = async (operator: OperatorProcess): Promise<number> =>
    [
      ...(await metric(operator)).matchAll(
        /^nvlm_operator_api_call_seconds_count\{verb="(apply|patch|delete)".*\} (\d+)$/gm,
      ),
    ]
      .map(([, , count]) => Number(count))
      .reduce((sum, count) => sum + count, 0);
  const isNow = (text: string | undefined, what: string): void => {
    const off = Math.abs(Date.parse(text ?? '') - Date.now());
    assert.ok(off < slackMs, `${what} is ${text}, ${off} ms off`);
  };

  test('one leads as long as it runs, and the other writes nothing', async () => {
    await deployments.create('chat', { replicas: 2 });
    await deployments.untilReady('chat', { timeoutMs: SETUP_MS });
    for (let i = 0; i < 20; i++) {
      assert.equal((await gauge(ahead, 'is_leader')) + (await gauge(behind, 'is_leader')), 1);
      await sleep(400);
    }
    assert.equal(await gauge(ahead, 'is_leader'), 1);
    assert.equal(await writes(behind), 0);
    assert.ok((await writes(ahead)) > 0);
  });

  test('each knows how far it is off, and writes the API server’s time', async () => {
    const offset = async (operator: OperatorProcess) => gauge(operator, 'clock_offset_seconds');
    assert.ok(Math.abs((await offset(ahead)) + skewSeconds) < 5, String(await offset(ahead)));
    assert.ok(Math.abs((await offset(behind)) - skewSeconds) < 5, String(await offset(behind)));
    const path = objectPath(RESOURCES.lease, 'nvlm-operator', NAMESPACE);
    const lease = (await cluster.client.request({ method: 'GET', path })) as {
      spec: { renewTime: string };
    };
    isNow(lease.spec.renewTime, 'renewTime');
    const { status, metadata } = await deployments.get('chat');
    for (const { type, lastTransitionTime } of status?.conditions ?? []) {
      const sinceMs = Date.parse(lastTransitionTime) - Date.parse(metadata.creationTimestamp ?? '');
      assert.ok(sinceMs > -slackMs && sinceMs < 120_000, `${type}: ${lastTransitionTime}`);
    }
  });

  test('the metrics API of the one ahead is believed: its certificate is valid already', async () => {
    await eventually('queue depth is read through the API server', async () => {
      const { code, output } = await cluster.kubectl(
        'get',
        '--raw',
        '/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/nvlmdeployments.serving.nvlm.dev/chat/queue_depth',
      );
      if (code !== 0) throw new Error(output);
      return true;
    });
  });

  test('streams that drain under the one behind are not cut by the one ahead that takes over', async () => {
    await deployments.create('streaming', { drain: { timeout: '10m' } });
    await deployments.untilReady('streaming', { timeoutMs: 60_000 });
    await ahead.child.stop('SIGKILL');
    await untilLeads(behind, 'the one behind');
    const [pod] = await deployments.pods('streaming');
    assert.ok(pod);
    cluster.engines.set(pod.metadata.name, 0, 2);
    await deployments.patch('streaming', { spec: { replicas: 0 } });
    await deployments.until('streaming', 'drains', ({ status }) => status?.drainingReplicas === 1);
    const [draining] = await deployments.pods('streaming');
    isNow(draining?.metadata.annotations?.[ANNOTATIONS.drainingSince], 'draining-since');
    ahead = await cluster.startOperator({ args, clockSeconds: skewSeconds });
    await behind.child.stop('SIGTERM');
    await untilLeads(ahead, 'the one ahead');
    await sleep(4000);
    const pods = await deployments.pods('streaming');
    assert.equal(pods.length, 1);
    assert.equal(pods[0]?.metadata.deletionTimestamp, undefined);
    cluster.engines.set(pod.metadata.name, 0, 0);
    await eventually('it is gone', async () => (await deployments.pods('streaming')).length === 0);
  });

  test('idle time, and the wait for a model’s description, are neither cut short nor drawn out after a change of leaders', async () => {
    await deployments.create('sleepy', {
      autoscaling: { minReplicas: 0, maxReplicas: 2, idleTimeout: '40s' },
    });
    await deployments.untilReady('sleepy');
    const readyAt = performance.now();
    behind = await cluster.startOperator({ args, clockSeconds: -skewSeconds });
    await ahead.child.stop('SIGTERM');
    await untilLeads(behind, 'the one behind');
    // Its model is never described here: a pod is made once the wait for that is over.
    await deployments.create('late');
    await deployments.untilReady('late', { timeoutMs: 60_000 });
    ahead = await cluster.startOperator({ args, clockSeconds: skewSeconds });
    await behind.child.stop('SIGTERM');
    await untilLeads(ahead, 'the one ahead');
    if (performance.now() - readyAt < 30_000) {
      await sleep(2000);
      assert.equal((await deployments.get('sleepy')).spec.replicas, 1, 'not before its time');
    }
    await deployments.until('sleepy', 'sleeps', ({ spec }) => spec.replicas === 0, {
      timeoutMs: 90_000,
    });
  });
});
