/** Replicas of several pods: a group each, made and replaced by the LeaderWorkerSet controller. */
import { enginePodTemplate, ownerReference, workerTemplate } from './engine-pod.ts';
import type { KubeObject, PodTemplate } from './kube.ts';
import { ANNOTATIONS, EXCLUSIVE_TOPOLOGY, engineLabels, LABELS } from './labels.ts';
import type { EngineProps } from './props.ts';

/** Whether a replica is a group of pods. It depends on the spec alone, not on what nodes the cluster has: `pipeline` counts pods. */
export const isGrouped = ({ spec }: Pick<EngineProps, 'spec'>): boolean =>
  spec.parallelism.pipeline > 1;

/** Not the name of the NVLMDeployment: the controller makes a headless Service of the name, and that one is the Service of clients. */
export const groupSetName = (name: string): string => `${name}-group`;

const revised = ({ metadata, spec }: PodTemplate, labels: Readonly<Record<string, string>>) => ({
  metadata: {
    labels: { ...metadata.labels, ...labels },
    ...(Object.keys(metadata.annotations ?? {}).length > 0 && {
      annotations: metadata.annotations,
    }),
  },
  spec,
});

/**
 * `replicas` groups of `parallelism.pipeline` pods. Each container learns its place from LWS_LEADER_ADDRESS, LWS_GROUP_SIZE and
 * LWS_WORKER_INDEX, which the controller sets. A pod that starts again makes its whole group start again: the ranks of a collective
 * begin together or not at all.
 */
export function leaderWorkerSet(
  props: EngineProps,
  revision: string,
  replicas: number,
): KubeObject {
  const { name, namespace, spec, weightsBytes } = props;
  const { pipeline, exclusiveTopology } = spec.parallelism;
  const annotations = {
    ...(exclusiveTopology !== undefined && { [EXCLUSIVE_TOPOLOGY]: exclusiveTopology }),
    ...(weightsBytes !== undefined && { [ANNOTATIONS.weightsBytes]: String(weightsBytes) }),
  };
  const labels = { [LABELS.revision]: revision };
  return {
    apiVersion: 'leaderworkerset.x-k8s.io/v1',
    kind: 'LeaderWorkerSet',
    metadata: {
      name: groupSetName(name),
      namespace,
      labels: engineLabels(name),
      ...(Object.keys(annotations).length > 0 && { annotations }),
      ownerReferences: [ownerReference(props)],
    },
    spec: {
      replicas,
      startupPolicy: 'LeaderCreated',
      rolloutStrategy: {
        type: 'RollingUpdate',
        rollingUpdateConfiguration: {
          maxSurge: spec.rollout.maxSurge,
          maxUnavailable: spec.rollout.maxUnavailable,
          partition: 0,
        },
      },
      networkConfig: { subdomainPolicy: 'Shared' },
      leaderWorkerTemplate: {
        size: pipeline,
        restartPolicy: 'RecreateGroupOnPodRestart',
        leaderTemplate: revised(enginePodTemplate(props), {
          ...labels,
          [LABELS.traffic]: 'serving',
        }),
        workerTemplate: revised(workerTemplate(props), labels),
      },
    },
  };
}
