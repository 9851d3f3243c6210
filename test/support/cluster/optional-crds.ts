/** CustomResourceDefinitions that a cluster may have besides ours. */
import type { KubeObject } from '#operator/kube/resource.ts';

const anything = { type: 'object', 'x-kubernetes-preserve-unknown-fields': true };

/** Of the Prometheus operator, as far as we write it: what it requires, and the type of what we set. */
export const podMonitorCrd: KubeObject = {
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  metadata: { name: 'podmonitors.monitoring.coreos.com' },
  spec: {
    group: 'monitoring.coreos.com',
    scope: 'Namespaced',
    names: { kind: 'PodMonitor', plural: 'podmonitors', singular: 'podmonitor' },
    versions: [
      {
        name: 'v1',
        served: true,
        storage: true,
        schema: {
          openAPIV3Schema: {
            type: 'object',
            required: ['spec'],
            properties: {
              spec: {
                ...anything,
                required: ['selector'],
                properties: {
                  selector: anything,
                  podTargetLabels: { type: 'array', items: { type: 'string' } },
                  podMetricsEndpoints: {
                    type: 'array',
                    items: {
                      ...anything,
                      properties: {
                        port: { type: 'string' },
                        path: { type: 'string' },
                        interval: {
                          type: 'string',
                          pattern:
                            '^(0|(([0-9]+)y)?(([0-9]+)w)?(([0-9]+)d)?(([0-9]+)h)?(([0-9]+)m)?(([0-9]+)s)?(([0-9]+)ms)?)$',
                        },
                      },
                    },
                  },
                },
              },
            },
          },
        },
      },
    ],
  },
};
