import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { engineObjects } from '#charts/engine-objects.ts';
import { enginePodTemplate, engineRevision } from '#charts/engine-pod.ts';
import type { KubeObject, PodTemplate } from '#charts/kube.ts';
import { leaderWorkerSet } from '#charts/leader-worker-set.ts';
import type { EngineProps } from '#charts/props.ts';
import type { NVLMDeploymentSpec } from '#crds/nvlm-deployment.ts';
import { engineProps, nvlmSpec } from '../support/deployment-spec.ts';

const props = (more: Partial<NVLMDeploymentSpec> = {}): EngineProps => ({
  ...engineProps(
    nvlmSpec({
      parallelism: { tensor: 8, pipeline: 2 },
      replicas: 3,
      rollout: { maxSurge: 2, maxUnavailable: 0 },
      ...more,
    }),
  ),
  available: { podMonitor: true, leaderWorkerSet: true },
});

interface GroupSpec {
  readonly replicas: number;
  readonly rolloutStrategy: {
    readonly rollingUpdateConfiguration: { readonly maxSurge: number; maxUnavailable: number };
  };
  readonly leaderWorkerTemplate: {
    readonly size: number;
    readonly restartPolicy: string;
    readonly leaderTemplate: PodTemplate;
    readonly workerTemplate: PodTemplate;
  };
}
const specOf = (object: KubeObject): GroupSpec => object.spec as GroupSpec;
const selects = (selector: Readonly<Record<string, string>>, { metadata }: PodTemplate): boolean =>
  Object.entries(selector).every(([label, value]) => metadata.labels?.[label] === value);

describe('a replica of several pods', () => {
  const set = leaderWorkerSet(props(), 'abc', 3);
  const { leaderTemplate, workerTemplate, ...group } = specOf(set).leaderWorkerTemplate;

  test('is a group of as many pods as the pipeline has stages, each with the GPUs of one, replaced within the budget', () => {
    assert.equal(specOf(set).replicas, 3);
    assert.deepEqual(group, { size: 2, restartPolicy: 'RecreateGroupOnPodRestart' });
    const { rollingUpdateConfiguration } = specOf(set).rolloutStrategy;
    assert.equal(rollingUpdateConfiguration.maxSurge, 2);
    assert.equal(rollingUpdateConfiguration.maxUnavailable, 0);
    for (const { spec } of [leaderTemplate, workerTemplate]) {
      const [engine] = spec.containers;
      assert.ok(engine);
      assert.deepEqual((engine.resources as { limits: object }).limits, { 'nvidia.com/gpu': '8' });
      assert.ok((engine.args as string[]).includes('--pipeline=2'));
    }
  });

  test('has one pod that clients are sent to and measured by: the leader', () => {
    const objects = engineObjects(props());
    const of = (kind: string): KubeObject => {
      const found = objects.find((object) => object.kind === kind);
      assert.ok(found, kind);
      return found;
    };
    const service = (of('Service').spec as { selector: Record<string, string> }).selector;
    const monitor = (of('PodMonitor').spec as { selector: { matchLabels: typeof service } })
      .selector.matchLabels;
    for (const selector of [service, monitor]) {
      assert.equal(selects(selector, leaderTemplate), true);
      assert.equal(selects(selector, workerTemplate), false);
    }
    assert.ok(leaderTemplate.spec.containers[0]?.readinessProbe);
    assert.equal(workerTemplate.spec.containers[0]?.readinessProbe, undefined);
    assert.equal(workerTemplate.spec.containers[0]?.ports, undefined);
  });

  test('is protected as a whole: evicting a worker costs its replica as much as evicting the leader', () => {
    for (const { kind, spec } of engineObjects(props())) {
      const { selector, podSelector } = spec as {
        selector: { matchLabels: Record<string, string> };
        podSelector: { matchLabels: Record<string, string> };
      };
      const chosen = { PodDisruptionBudget: selector, NetworkPolicy: podSelector }[kind];
      if (chosen === undefined) continue;
      assert.equal(selects(chosen.matchLabels, leaderTemplate), true, kind);
      assert.equal(selects(chosen.matchLabels, workerTemplate), true, kind);
    }
  });

  test('gives its API keys to the leader alone', () => {
    const auth = { apiKeysSecretRef: { name: 'keys', key: 'api-keys' } };
    const templates = specOf(leaderWorkerSet(props({ auth }), 'abc', 1)).leaderWorkerTemplate;
    assert.match(JSON.stringify(templates.leaderTemplate), /api-keys/);
    assert.doesNotMatch(JSON.stringify(templates.workerTemplate), /api-keys/);
  });

  test('stays within one domain of a node label where the spec names one', () => {
    const annotation = 'leaderworkerset.sigs.k8s.io/exclusive-topology';
    assert.equal(set.metadata.annotations?.[annotation], undefined);
    const parallelism = { tensor: 8, pipeline: 2, exclusiveTopology: 'example.com/rack' };
    const bound = leaderWorkerSet(props({ parallelism }), 'abc', 1);
    assert.equal(bound.metadata.annotations?.[annotation], 'example.com/rack');
  });

  test('has a revision that a change of either pod or of their number changes, and nothing else', () => {
    const revision = engineRevision(props());
    assert.equal(engineRevision(props({ replicas: 9 })), revision);
    assert.equal(engineRevision({ ...props(), weightsBytes: 1e12 }), revision);
    const three = props({ parallelism: { tensor: 8, pipeline: 3 } });
    assert.notEqual(engineRevision(three), revision);
    assert.notEqual(engineRevision({ ...props(), image: 'nvlm-engine:2' }), revision);
    for (const { metadata } of [leaderTemplate, workerTemplate])
      assert.equal(metadata.labels?.['serving.nvlm.dev/revision'], 'abc');
  });

  test('lays the user’s template over both pods', () => {
    const template = { spec: { priorityClassName: 'high' } };
    const templates = specOf(leaderWorkerSet(props({ template }), 'abc', 1)).leaderWorkerTemplate;
    assert.equal(templates.leaderTemplate.spec.priorityClassName, 'high');
    assert.equal(templates.workerTemplate.spec.priorityClassName, 'high');
    assert.equal(enginePodTemplate(props({ template })).spec.priorityClassName, 'high');
  });
});
