import assert from 'node:assert/strict';
import { globSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { enginePodTemplate } from '#charts/engine-pod.ts';
import { OPERATOR_NAME } from '#charts/labels.ts';
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import { readServeOptions } from '#engine/options.ts';
import { isNotFound } from '#operator/kube/errors.ts';
import {
  collectionPath,
  type KubeObject,
  objectPath,
  RESOURCES,
  type ResourceType,
} from '#operator/kube/resource.ts';
import { NVLM_RESOURCE } from '#operator/nvlm/context.ts';
import { type ControlPlane, startControlPlane } from '../../scripts/cluster/control-plane.ts';
import { createNodes } from '../../scripts/cluster/nodes.ts';
import { operatorKubeconfig } from '../../scripts/cluster/operator-account.ts';
import { type Child, eventually, startChild } from '../../scripts/cluster/processes.ts';
import { Deployments } from '../support/cluster/deployments.ts';
import { CHART, type Helm, readManifest, startHelm } from '../support/cluster/helm.ts';
import { noCluster } from '../support/cluster/requirements.ts';

const namespace = 'gpu-serving';
const crdType = {
  group: 'apiextensions.k8s.io',
  version: 'v1',
  kind: 'CustomResourceDefinition',
  plural: 'customresourcedefinitions',
  namespaced: false,
};
const deploymentType = {
  group: 'apps',
  version: 'v1',
  kind: 'Deployment',
  plural: 'deployments',
  namespaced: true,
};

const plurals: Readonly<Record<string, string>> = {
  NVLMDeployment: NVLM_RESOURCE.plural,
  PersistentVolumeClaim: 'persistentvolumeclaims',
  Secret: 'secrets',
};
/** Of the kinds that examples hold. */
function typeOf({ apiVersion, kind }: KubeObject): ResourceType {
  const plural = plurals[kind];
  assert.ok(plural, `an example holds a ${kind}: tell its plural here`);
  const [version = '', group = ''] = apiVersion.split('/').reverse();
  return { group, version, kind, plural, namespaced: true };
}

interface OperatorDeployment extends KubeObject {
  readonly spec: { template: { spec: { containers: readonly [{ args: readonly string[] }] } } };
  readonly status?: { readonly availableReplicas?: number };
}

/** One test after the other, as the life of a release goes. */
describe('the Helm chart on a real control plane', { skip: noCluster(), timeout: 600_000 }, () => {
  let plane: ControlPlane;
  let helm: Helm;
  let operator: Child | undefined;
  let deployments: Deployments;

  before(async () => {
    plane = await startControlPlane({ kwok: true });
    helm = await startHelm(plane.kubeconfig);
    await createNodes(plane.client, [
      { prefix: 'a100', count: 2, product: 'NVIDIA-A100-SXM4-80GB', gpus: 8 },
      { prefix: 'cpu', count: 1 },
    ]);
    deployments = new Deployments(plane.client);
  });
  after(async () => {
    await operator?.stop('SIGTERM', 5000);
    helm?.stop();
    await plane?.stop();
  });

  const get = async <T = KubeObject>(path: string): Promise<T | undefined> => {
    try {
      return (await plane.client.request({ method: 'GET', path })) as T;
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  };
  const crd = () => get(objectPath(crdType, 'nvlmdeployments.serving.nvlm.dev'));
  const installedOperator = () =>
    get<OperatorDeployment>(objectPath(deploymentType, OPERATOR_NAME, namespace));
  const release = (action: 'install' | 'upgrade', chart = CHART, ...more: readonly string[]) =>
    helm.succeed(
      ...[action, 'nvlm-operator', chart, '--namespace', namespace, '--wait', '--timeout', '90s'],
      ...more,
    );

  test('installs with one command, and the operators come up', async () => {
    const notes = await release('install', CHART, '--create-namespace');
    assert.match(
      notes,
      new RegExp(`kubectl -n ${namespace} rollout status deployment/nvlm-operator`),
    );
    assert.equal((await installedOperator())?.status?.availableReplicas, 2);
    assert.equal((await crd())?.metadata.annotations?.['helm.sh/resource-policy'], 'keep');
  });

  test('the operator works under the rights and the options that the chart gives it', async () => {
    const kubeconfig = await operatorKubeconfig(plane, namespace, 7200);
    const args = (await installedOperator())?.spec.template.spec.containers[0].args ?? [];
    operator = startChild(
      'operator',
      process.execPath,
      [
        'operator/main.ts',
        ...args.filter((argument) => !/^--(metrics-)?port=/.test(argument)),
        `--kubeconfig=${kubeconfig}`,
        '--port=0',
        '--metrics-port=0',
        '--describe-timeout=500ms',
      ],
      { logFile: join(plane.folder, 'log/operator.log'), env: { NODE_EXTRA_CA_CERTS: '' } },
    );
    const child = operator;
    await deployments.create('chat', { parallelism: { tensor: 1 } });
    await eventually('it has a pod', async () => (await deployments.pods('chat')).length === 1, {
      timeoutMs: 60_000,
      explain: () => child.tail(),
    });
    await eventually(
      'the metrics API is registered, and belongs to the installation',
      async () => {
        const found = await get(objectPath(RESOURCES.apiService, 'v1beta2.custom.metrics.k8s.io'));
        return found?.metadata.ownerReferences?.[0]?.kind === 'ClusterRole';
      },
      { timeoutMs: 30_000, explain: () => child.tail() },
    );
    assert.doesNotMatch(child.tail(20_000), /forbidden/i);
  });

  for (const file of globSync('examples/*.yaml').sort()) {
    test(`takes ${file}, and the engine takes what becomes of it`, async () => {
      const objects = readManifest(file);
      assert.ok(objects.some(({ kind }) => kind === 'NVLMDeployment'));
      for (const object of objects) {
        const made = await plane.client.request({
          method: 'POST',
          path: collectionPath(typeOf(object), 'default'),
          query: { dryRun: 'All', fieldValidation: 'Strict' },
          // What the other tests have made may have the same name.
          body: {
            ...object,
            metadata: { ...object.metadata, name: `example-${object.metadata.name}` },
          },
        });
        if (object.kind !== 'NVLMDeployment') continue;
        const { metadata, spec } = made as NVLMDeployment;
        const { containers } = enginePodTemplate({
          name: metadata.name,
          namespace: 'default',
          uid: 'u',
          spec,
          image: 'nvlm-engine:test',
          imagePullPolicy: 'Never',
          operatorNamespace: namespace,
          available: { podMonitor: false, leaderWorkerSet: false },
        }).spec;
        assert.notEqual(readServeOptions(containers[0]?.args as string[], {}), 'help');
      }
    });
  }

  test('an upgrade brings a changed CRD and changed values to the cluster', async () => {
    const before = await crd();
    const changed = helm.editedChart({
      'Chart.yaml': (text) => text.replace(/^version: .*$/m, 'version: 99.0.0'),
      'templates/crd.yaml': (text) =>
        text.replace('description: What is served.', 'description: A model.'),
    });
    await release('upgrade', changed, '--set', 'replicas=1,logLevel=debug');
    const after = await crd();
    assert.doesNotMatch(JSON.stringify(before?.spec), /"A model\."/);
    assert.match(JSON.stringify(after?.spec), /"A model\."/);
    assert.equal(after?.metadata.uid, before?.metadata.uid);
    const { spec } = (await installedOperator()) ?? {};
    assert.ok(spec?.template.spec.containers[0].args.includes('--log-level=debug'));
    assert.equal((await deployments.pods('chat')).length, 1);
  });

  test('a rollback restores both', async () => {
    await helm.succeed(
      ...['rollback', 'nvlm-operator', '1', '--namespace', namespace, '--wait', '--timeout', '90s'],
    );
    assert.doesNotMatch(JSON.stringify((await crd())?.spec), /"A model\."/);
    const { spec } = (await installedOperator()) ?? {};
    assert.ok(spec?.template.spec.containers[0].args.includes('--log-level=info'));
  });

  test('uninstalling leaves the CRD, the NVLMDeployments and their pods, and takes the metrics API away', async () => {
    await operator?.stop('SIGTERM', 5000);
    operator = undefined;
    await helm.succeed('uninstall', 'nvlm-operator', '--namespace', namespace, '--wait');
    assert.equal(await installedOperator(), undefined);
    assert.ok(await crd());
    assert.equal((await deployments.get('chat')).metadata.name, 'chat');
    assert.equal((await deployments.pods('chat')).length, 1);
    // Left behind, it would break discovery, and with it the deletion of every namespace.
    await eventually(
      'its APIServices are gone',
      async () =>
        (await get(objectPath(RESOURCES.apiService, 'v1beta2.custom.metrics.k8s.io'))) ===
        undefined,
      { timeoutMs: 30_000 },
    );
  });

  test('installs again over the CRD that was kept', async () => {
    await release('install', CHART, '--set', 'metricsApi=none');
    assert.equal((await installedOperator())?.status?.availableReplicas, 2);
    assert.equal((await deployments.get('chat')).metadata.name, 'chat');
  });
});
