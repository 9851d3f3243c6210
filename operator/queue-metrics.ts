/** What the metrics API serves: the queue depth of NVLMDeployments and of their pods. */
import { DESCRIBED_RESOURCE, QUEUE_DEPTH_METRIC } from '#charts/engine-objects.ts';
import { LABELS } from '#charts/labels.ts';
import { API_VERSION, KIND } from '#crds/nvlm-deployment.ts';
import type { Watched } from './controllers.ts';
import { keyOf } from './kube/resource.ts';
import type { MetricsSource } from './metrics-api/server.ts';
import type { MetricSample } from './metrics-api/values.ts';
import type { PodObject } from './nvlm/pod.ts';
import type { DepthBook } from './scaling/depth.ts';

const windowSeconds = 15;

export function createQueueMetrics(
  watched: Watched,
  depths: DepthBook,
  now: () => Date,
): MetricsSource {
  const ofDeployment = (namespace: string, name: string): MetricSample | undefined => {
    const key = `${namespace}/${name}`;
    if (watched.deployments.get(key) === undefined) return undefined;
    const { waiting, ageMs } = depths.depthOf(key);
    return {
      object: { apiVersion: API_VERSION, kind: KIND, namespace, name },
      metric: QUEUE_DEPTH_METRIC,
      value: waiting,
      at: new Date(now().getTime() - ageMs),
      windowSeconds,
    };
  };
  const ofPod = (pod: PodObject): MetricSample | undefined => {
    const { namespace = '', name, labels } = pod.metadata;
    const figures = depths.podFigures(`${namespace}/${labels?.[LABELS.deployment]}`, keyOf(pod));
    if (figures === undefined) return undefined;
    return {
      object: { apiVersion: 'v1', kind: 'Pod', namespace, name },
      metric: QUEUE_DEPTH_METRIC,
      value: figures.waiting,
      at: new Date(now().getTime() - figures.ageMs),
      windowSeconds,
    };
  };
  return {
    served: [
      { resource: DESCRIBED_RESOURCE, metric: QUEUE_DEPTH_METRIC },
      { resource: 'pods', metric: QUEUE_DEPTH_METRIC },
    ],
    sampleOf(namespace, resource, name, metric) {
      if (metric !== QUEUE_DEPTH_METRIC) return undefined;
      if (resource === DESCRIBED_RESOURCE) return ofDeployment(namespace, name);
      const pod = resource === 'pods' ? watched.pods.get(`${namespace}/${name}`) : undefined;
      return pod === undefined ? undefined : ofPod(pod);
    },
    samplesOf(namespace, resource, matches, metric) {
      if (metric !== QUEUE_DEPTH_METRIC) return [];
      const inNamespace = (object: { metadata: { namespace?: string } }): boolean =>
        object.metadata.namespace === namespace;
      if (resource === 'pods') {
        return watched.pods
          .list()
          .filter((pod) => inNamespace(pod) && matches(pod.metadata.labels ?? {}))
          .flatMap((pod) => ofPod(pod) ?? []);
      }
      if (resource !== DESCRIBED_RESOURCE) return [];
      return watched.deployments
        .list()
        .filter((one) => inNamespace(one) && matches(one.metadata.labels ?? {}))
        .flatMap(({ metadata }) => ofDeployment(metadata.namespace, metadata.name) ?? []);
    },
  };
}
