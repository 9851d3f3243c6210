/** What an NVLMDeployment has besides its pods. */
import { API_VERSION, GROUP, KIND, PLURAL } from '#crds/nvlm-deployment.ts';
import { ownerReference } from './engine-pod.ts';
import type { KubeObject } from './kube.ts';
import { engineLabels, engineSelector, LABELS, memberSelector, PORTS } from './labels.ts';
import type { EngineProps } from './props.ts';

export const QUEUE_DEPTH_METRIC = 'queue_depth';

const metadata = (props: EngineProps, name = props.name) => ({
  name,
  namespace: props.namespace,
  labels: engineLabels(props.name),
  ownerReferences: [ownerReference(props)],
});

function service(props: EngineProps): KubeObject {
  return {
    apiVersion: 'v1',
    kind: 'Service',
    metadata: metadata(props),
    spec: {
      type: 'ClusterIP',
      selector: { ...engineSelector(props.name), [LABELS.traffic]: 'serving' },
      ports: [{ name: 'http', port: 80, targetPort: 'http', protocol: 'TCP', appProtocol: 'http' }],
    },
  };
}

/**
 * Evictions take one replica at a time, and none while one is missing already. Workers of a group count: evicting one ends the
 * streams of its whole replica.
 */
function podDisruptionBudget(props: EngineProps): KubeObject {
  return {
    apiVersion: 'policy/v1',
    kind: 'PodDisruptionBudget',
    metadata: metadata(props),
    spec: {
      maxUnavailable: 1,
      selector: { matchLabels: memberSelector(props.name) },
      // A pod that never became ready serves nobody: it may be moved.
      unhealthyPodEvictionPolicy: 'AlwaysAllow',
    },
  };
}

/** In: requests on the engine's port, from anywhere. Out: DNS and HTTPS, for the model hub; between pods of one replica, everything. */
function networkPolicy(props: EngineProps): KubeObject {
  const { parallelism } = props.spec;
  const peers = { podSelector: { matchLabels: memberSelector(props.name) } };
  return {
    apiVersion: 'networking.k8s.io/v1',
    kind: 'NetworkPolicy',
    metadata: metadata(props),
    spec: {
      podSelector: { matchLabels: memberSelector(props.name) },
      policyTypes: ['Ingress', 'Egress'],
      ingress: [
        { ports: [{ port: PORTS.engine, protocol: 'TCP' }] },
        ...(parallelism.pipeline > 1 ? [{ from: [peers] }] : []),
      ],
      egress: [
        {
          ports: [
            { port: 53, protocol: 'UDP' },
            { port: 53, protocol: 'TCP' },
            { port: 443, protocol: 'TCP' },
          ],
        },
        ...(parallelism.pipeline > 1 ? [{ to: [peers] }] : []),
      ],
    },
  };
}

/** Of an external metric there is one for each label, of a custom one for each object. */
function queueMetric(props: EngineProps, targetQueueDepth: number): object {
  const target = { type: 'AverageValue', averageValue: String(targetQueueDepth) };
  if (props.queueMetricsApi === 'external') {
    const metric = {
      name: QUEUE_DEPTH_METRIC,
      selector: { matchLabels: { deployment: props.name } },
    };
    return { type: 'External', external: { metric, target } };
  }
  const describedObject = { apiVersion: API_VERSION, kind: KIND, name: props.name };
  return {
    type: 'Object',
    object: { describedObject, metric: { name: QUEUE_DEPTH_METRIC }, target },
  };
}

/** Scales the NVLMDeployment itself, on the queue depth of it: total waiting requests over the target, whatever is ready. */
function horizontalPodAutoscaler(props: EngineProps): readonly KubeObject[] {
  const { autoscaling } = props.spec;
  if (autoscaling === undefined) return [];
  const target = { apiVersion: API_VERSION, kind: KIND, name: props.name };
  const { scaleUp, scaleDown } = autoscaling.behavior ?? {};
  return [
    {
      apiVersion: 'autoscaling/v2',
      kind: 'HorizontalPodAutoscaler',
      metadata: metadata(props),
      spec: {
        scaleTargetRef: target,
        // 0 <-> 1 is the operator's: at zero replicas the HPA rests.
        minReplicas: Math.max(1, autoscaling.minReplicas),
        maxReplicas: autoscaling.maxReplicas,
        metrics: [queueMetric(props, autoscaling.targetQueueDepth)],
        behavior: {
          scaleUp: scaleUp ?? {
            stabilizationWindowSeconds: 0,
            policies: [{ type: 'Percent', value: 100, periodSeconds: 30 }],
          },
          // Loading a model again costs minutes: leave slowly.
          scaleDown: scaleDown ?? {
            stabilizationWindowSeconds: 600,
            policies: [{ type: 'Pods', value: 1, periodSeconds: 120 }],
          },
        },
      },
    },
  ];
}

function podMonitor(props: EngineProps): readonly KubeObject[] {
  if (!props.available.podMonitor) return [];
  return [
    {
      apiVersion: 'monitoring.coreos.com/v1',
      kind: 'PodMonitor',
      metadata: metadata(props),
      spec: {
        selector: { matchLabels: engineSelector(props.name) },
        podMetricsEndpoints: [{ port: 'http', path: '/metrics', interval: '15s' }],
        podTargetLabels: [LABELS.deployment, LABELS.revision],
      },
    },
  ];
}

/** Name of the custom metric's subject, as the HPA asks for it. */
export const DESCRIBED_RESOURCE = `${PLURAL}.${GROUP}`;

/** In the order in which they are applied. */
export const engineObjects = (props: EngineProps): readonly KubeObject[] => [
  networkPolicy(props),
  service(props),
  podDisruptionBudget(props),
  ...horizontalPodAutoscaler(props),
  ...podMonitor(props),
];
