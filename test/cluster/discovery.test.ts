import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { isNotFound } from '#operator/kube/errors.ts';
import { type KubeObject, objectPath, RESOURCES } from '#operator/kube/resource.ts';
import { applyCrd } from '../../scripts/cluster/control-plane.ts';
import { eventually } from '../../scripts/cluster/processes.ts';
import { Deployments } from '../support/cluster/deployments.ts';
import { startTestCluster, type TestCluster } from '../support/cluster/operator.ts';
import { podMonitorCrd } from '../support/cluster/optional-crds.ts';
import { noCluster } from '../support/cluster/requirements.ts';

describe('kinds that a cluster may not serve, on a real one', {
  skip: noCluster(),
  timeout: 300_000,
}, () => {
  let cluster: TestCluster;
  let deployments: Deployments;
  const crdPath = objectPath(RESOURCES.customResourceDefinition, podMonitorCrd.metadata.name);

  before(async () => {
    cluster = await startTestCluster();
    await cluster.startOperator();
    deployments = new Deployments(cluster.client);
  });
  after(() => cluster?.stop());

  const monitorOf = async (name: string): Promise<KubeObject | undefined> => {
    try {
      const path = objectPath(RESOURCES.podMonitor, name, 'default');
      return (await cluster.client.request({ method: 'GET', path })) as KubeObject;
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  };
  const untilMonitored = async (name: string): Promise<KubeObject> =>
    (await eventually(`${name} has a PodMonitor`, () => monitorOf(name), {
      timeoutMs: 40_000,
    })) as KubeObject;

  test('without the CRD a deployment becomes ready; when the CRD comes, every deployment gets its PodMonitor', async () => {
    await Promise.all([deployments.create('first'), deployments.create('second')]);
    await Promise.all([deployments.untilReady('first'), deployments.untilReady('second')]);
    await applyCrd(cluster.client, podMonitorCrd);
    for (const name of ['first', 'second']) {
      const { metadata, spec } = await untilMonitored(name);
      const { metadata: owner } = await deployments.get(name);
      assert.equal(metadata.ownerReferences?.[0]?.uid, owner.uid);
      const [pod] = await deployments.pods(name);
      const { matchLabels } = (spec as { selector: { matchLabels: Record<string, string> } })
        .selector;
      for (const [label, value] of Object.entries(matchLabels)) {
        assert.equal(pod?.metadata.labels?.[label], value);
      }
    }
  });

  test('a PodMonitor that somebody changes is set back, and one that is deleted is made again', async () => {
    const path = objectPath(RESOURCES.podMonitor, 'first', 'default');
    const { uid } = (await untilMonitored('first')).metadata;
    await cluster.client.request({
      method: 'PATCH',
      path,
      query: { fieldManager: 'somebody' },
      contentType: 'application/merge-patch+json',
      body: { spec: { podMetricsEndpoints: [{ port: 'other' }] } },
    });
    await eventually('the port is ours again', async () => {
      const monitor = await monitorOf('first');
      return JSON.stringify(monitor?.spec).includes('"port":"http"');
    });
    await cluster.client.request({ method: 'DELETE', path });
    await eventually('it is made again', async () => {
      const monitor = await monitorOf('first');
      return monitor !== undefined && monitor.metadata.uid !== uid;
    });
  });

  test('when the CRD goes, deployments are still reconciled, and it may come back', async () => {
    await cluster.client.request({ method: 'DELETE', path: crdPath });
    await deployments.create('third');
    await deployments.untilReady('third');
    await deployments.patch('first', { spec: { replicas: 2 } });
    await deployments.untilReady('first');
    await eventually('the CRD is gone', () =>
      cluster.client.request({ method: 'GET', path: crdPath }).then(() => false, isNotFound),
    );
    await applyCrd(cluster.client, podMonitorCrd);
    for (const name of ['first', 'third']) await untilMonitored(name);
  });
});
