import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import type { KubeError } from '#operator/kube/errors.ts';
import { objectPath, RESOURCES, type ResourceType } from '#operator/kube/resource.ts';
import { NVLM_RESOURCE } from '#operator/nvlm/context.ts';
import { eventually } from '../../scripts/cluster/processes.ts';
import { Deployments, FAST_SCALING } from '../support/cluster/deployments.ts';
import {
  type OperatorProcess,
  startTestCluster,
  type TestCluster,
} from '../support/cluster/operator.ts';
import { noCluster } from '../support/cluster/requirements.ts';

describe('scaling on queue depth by the real HPA controller', {
  skip: noCluster(),
  timeout: 600_000,
}, () => {
  let cluster: TestCluster;
  let operator: OperatorProcess;
  let deployments: Deployments;

  before(async () => {
    cluster = await startTestCluster();
    operator = await cluster.startOperator();
    deployments = new Deployments(cluster.client);
  });
  after(() => cluster?.stop());

  const replicas = (wanted: number) =>
    deployments.until('chat', `has ${wanted} replicas`, ({ spec }) => spec.replicas === wanted, {
      timeoutMs: 60_000,
      explain: async () => (await cluster.kubectl('describe', 'hpa', 'chat')).output,
    });

  test('replicas follow the number of waiting requests, up and down', async () => {
    await deployments.create('chat', {
      autoscaling: { maxReplicas: 8, targetQueueDepth: 4, behavior: FAST_SCALING },
    });
    await deployments.untilReady('chat');
    cluster.engines.setTotal('chat', 12);
    await replicas(3);
    await deployments.untilReady('chat');
    cluster.engines.setTotal('chat', 24);
    await replicas(6);
    await deployments.untilReady('chat', { timeoutMs: 60_000 });
    cluster.engines.setTotal('chat', 0);
    await replicas(1);
    await eventually('one pod is left', async () => (await deployments.pods('chat')).length === 1);
    const { status } = await deployments.get('chat');
    const served = status?.conditions?.find(({ type }) => type === 'MetricsServed');
    assert.equal(served?.status, 'True');
  });

  test('an engine that does not answer neither hides the queue of the others nor looks empty', async () => {
    cluster.engines.set('steady-', 4);
    await deployments.create('steady', {
      replicas: 2,
      autoscaling: { maxReplicas: 4, targetQueueDepth: 4, behavior: FAST_SCALING },
    });
    const whole = (deployment: NVLMDeployment): boolean =>
      deployment.status?.queueDepth === 8 && deployment.spec.replicas === 2;
    await deployments.until('steady', 'has two replicas with 8 waiting', whole);
    const [first] = await deployments.pods('steady');
    assert.ok(first);
    cluster.engines.mute(first.metadata.name, true);
    // Three rounds of the HPA and more.
    await new Promise((resolve) => setTimeout(resolve, 8000));
    assert.ok(whole(await deployments.get('steady')));
    await deployments.delete('steady');
  });

  test('whoever may not read metrics is refused, and headers without the proxy’s certificate count for nothing', async () => {
    const path =
      '/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/nvlmdeployments.serving.nvlm.dev/chat/queue_depth';
    const granted = await cluster.kubectl('get', '--raw', path);
    assert.equal(JSON.parse(granted.output).items[0].metric.name, 'queue_depth');
    const old = await cluster.kubectl('get', '--raw', path.replace('v1beta2', 'v1beta1'));
    assert.equal(JSON.parse(old.output).items[0].metricName, 'queue_depth');
    const refused = await cluster.kubectl('get', '--raw', path, '--as=nobody');
    assert.match(refused.output, /nobody.*(may not|cannot)/);
    const unknown = await cluster.kubectl('get', '--raw', path.replace('chat', 'ghost'));
    assert.match(unknown.output, /NotFound|not found|no metric/i);
    const port = /"port":(\d+),"msg":"the metrics API listens"/.exec(operator.log())?.[1];
    process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0';
    try {
      const forged = await fetch(`https://127.0.0.1:${port}${path}`, {
        headers: { 'x-remote-user': 'system:admin', 'x-remote-group': 'system:masters' },
      });
      assert.equal(forged.status, 401);
    } finally {
      delete process.env.NODE_TLS_REJECT_UNAUTHORIZED;
    }
  });

  test('an idle deployment stops, and a wake signal starts it again', async () => {
    await deployments.create('sleepy', {
      autoscaling: { minReplicas: 0, maxReplicas: 2, idleTimeout: '3s' },
    });
    await deployments.untilReady('sleepy');
    await deployments.until('sleepy', 'sleeps', ({ status }) => status?.phase === 'ScaledToZero', {
      timeoutMs: 60_000,
    });
    await eventually('no pod is left', async () => (await deployments.pods('sleepy')).length === 0);
    const woken = await fetch(`${operator.url}/wake/default/sleepy`, { method: 'POST' });
    assert.equal(woken.status, 202);
    await deployments.untilReady('sleepy');
    assert.equal(
      (await fetch(`${operator.url}/wake/default/ghost`, { method: 'POST' })).status,
      404,
    );
  });

  test('a deployment that is asked something stays, however short its idle time', async () => {
    const [pod] = await deployments.pods('sleepy');
    assert.ok(pod);
    cluster.engines.set(pod.metadata.name, 0, 1);
    await new Promise((resolve) => setTimeout(resolve, 6000));
    assert.equal((await deployments.get('sleepy')).spec.replicas, 1);
    cluster.engines.set(pod.metadata.name, 0, 0);
    await deployments.until('sleepy', 'sleeps', ({ spec }) => spec.replicas === 0, {
      timeoutMs: 60_000,
    });
  });

  test('a replica count of zero that a user set is left alone', async () => {
    await deployments.create('paused', { replicas: 0, autoscaling: { maxReplicas: 2 } });
    await deployments.until('paused', 'rests', ({ status }) => status?.phase === 'ScaledToZero');
    await new Promise((resolve) => setTimeout(resolve, 3000));
    const scale = (await cluster.client.request({
      method: 'GET',
      path: `${objectPath(NVLM_RESOURCE, 'paused', 'default')}/scale`,
    })) as { spec: { replicas?: number } };
    assert.equal(scale.spec.replicas ?? 0, 0);
  });

  test('another provider of custom metrics is left alone, and the operator scales by itself', async () => {
    await operator.child.stop('SIGTERM');
    const type = RESOURCES.apiService;
    for (const version of ['v1beta2', 'v1beta1']) {
      const name = `${version}.custom.metrics.k8s.io`;
      await cluster.client.request({ method: 'DELETE', path: objectPath(type, name) });
      await cluster.client.apply(
        type,
        {
          apiVersion: 'apiregistration.k8s.io/v1',
          kind: 'APIService',
          metadata: { name },
          spec: {
            group: 'custom.metrics.k8s.io',
            version,
            service: { name: 'prometheus-adapter', namespace: 'monitoring', port: 443 },
            insecureSkipTLSVerify: true,
            groupPriorityMinimum: 100,
            versionPriority: 100,
          },
        },
        { fieldManager: 'prometheus', force: true },
      );
    }
    operator = await cluster.startOperator();
    cluster.engines.setTotal('alone', 0);
    await deployments.create('alone', {
      autoscaling: {
        maxReplicas: 4,
        targetQueueDepth: 4,
        behavior: { scaleDown: { stabilizationWindowSeconds: 5 } },
      },
    });
    const told = await deployments.until('alone', 'tells of the other provider', ({ status }) =>
      status?.conditions?.some(
        ({ type: condition, reason }) =>
          condition === 'MetricsServed' && reason === 'ForeignProvider',
      ),
    );
    const served = told.status?.conditions?.find(({ type: one }) => one === 'MetricsServed');
    assert.match(served?.message ?? '', /monitoring\/prometheus-adapter/);
    cluster.engines.setTotal('alone', 12);
    await deployments.until('alone', 'has three replicas', ({ spec }) => spec.replicas === 3);
    await deployments.untilReady('alone');
    cluster.engines.setTotal('alone', 0);
    await deployments.until('alone', 'has one replica', ({ spec }) => spec.replicas === 1, {
      timeoutMs: 60_000,
    });
    const path = objectPath(type, 'v1beta2.custom.metrics.k8s.io');
    const found = (await cluster.client.request({ method: 'GET', path })) as {
      spec: { service: { name: string } };
    };
    assert.equal(found.spec.service.name, 'prometheus-adapter');
  });

  test('beside another provider of custom metrics the external API serves the HPA, when the operator is told to use it', async () => {
    await operator.child.stop('SIGTERM');
    operator = await cluster.startOperator({ args: ['--metrics-api=external'] });
    const hpa = async () => {
      const path = objectPath(RESOURCES.horizontalPodAutoscaler, 'alone', 'default');
      return (await cluster.client.request({ method: 'GET', path })) as {
        spec: { metrics: { type: string }[] };
        status?: { conditions?: { type: string; status: string }[] };
      };
    };
    await eventually(
      'the HPA is back and reads',
      async () => {
        const { spec, status } = await hpa();
        const active = status?.conditions?.find(({ type }) => type === 'ScalingActive');
        return spec.metrics[0]?.type === 'External' && active?.status === 'True';
      },
      {
        timeoutMs: 60_000,
        explain: async () => (await cluster.kubectl('describe', 'hpa', 'alone')).output,
      },
    );
    await deployments.until('alone', 'is told so', ({ status }) =>
      status?.conditions?.some(
        ({ type, status: is, message }) =>
          type === 'MetricsServed' && is === 'True' && message.includes('external.metrics.k8s.io'),
      ),
    );
    await deployments.patch('alone', { spec: { autoscaling: { behavior: FAST_SCALING } } });
    cluster.engines.setTotal('alone', 12);
    await deployments.until('alone', 'has three replicas', ({ spec }) => spec.replicas === 3, {
      timeoutMs: 60_000,
      explain: async () => (await cluster.kubectl('describe', 'hpa', 'alone')).output,
    });
    cluster.engines.setTotal('alone', 0);
    await deployments.until('alone', 'has one replica', ({ spec }) => spec.replicas === 1, {
      timeoutMs: 60_000,
    });
  });

  test('an operator that is to serve no metrics takes its own API away, leaves the foreign one, and scales by itself', async () => {
    await operator.child.stop('SIGTERM');
    operator = await cluster.startOperator({ args: ['--metrics-api=none'] });
    const read = (type: ResourceType, name: string, namespace?: string) =>
      cluster.client
        .request({ method: 'GET', path: objectPath(type, name, namespace) })
        .catch((error: KubeError) => (error.status === 404 ? undefined : Promise.reject(error)));
    await eventually(
      'the external API is gone',
      async () =>
        (await read(RESOURCES.apiService, 'v1beta1.external.metrics.k8s.io')) === undefined,
      { timeoutMs: 30_000 },
    );
    assert.ok(await read(RESOURCES.apiService, 'v1beta2.custom.metrics.k8s.io'));
    await eventually(
      'its HPA is gone',
      async () => (await read(RESOURCES.horizontalPodAutoscaler, 'alone', 'default')) === undefined,
    );
    cluster.engines.setTotal('alone', 12);
    await deployments.until('alone', 'has three replicas', ({ spec }) => spec.replicas === 3);
    await deployments.until('alone', 'tells who scales it', ({ status }) =>
      status?.conditions?.some(
        ({ type, status: is, reason }) =>
          type === 'ScalingActive' && is === 'True' && reason === 'OwnScaling',
      ),
    );
  });

  test('discovery of the whole cluster is well with our API in it', async () => {
    const { code, output } = await cluster.kubectl('api-resources');
    assert.match(output, /nvlmdeployments +nvlm +serving\.nvlm\.dev\/v1alpha1/);
    // The foreign provider of this test does not exist, and kubectl says so; of ours it says nothing.
    assert.doesNotMatch(output, /external\.metrics\.k8s\.io.*(unable|error|stale)/i);
    assert.ok(code === 0 || output.includes('custom.metrics.k8s.io'), output);
  });
});
