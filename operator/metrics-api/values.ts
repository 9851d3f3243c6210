/** The bodies of the custom and external metrics APIs, as the HPA reads them. */

export const CUSTOM_GROUP = 'custom.metrics.k8s.io';
export const EXTERNAL_GROUP = 'external.metrics.k8s.io';

/** One number about one object. */
export interface MetricSample {
  readonly object: {
    readonly apiVersion: string;
    readonly kind: string;
    readonly namespace: string;
    readonly name: string;
  };
  readonly metric: string;
  /** Whole: a Quantity is written without a unit. */
  readonly value: number;
  /** When it was measured. */
  readonly at: Date;
  readonly windowSeconds: number;
}

export type CustomVersion = 'v1beta2' | 'v1beta1';

const timeText = (date: Date): string => date.toISOString().replace(/\.\d+Z$/, 'Z');
const quantityText = (value: number): string =>
  Number.isInteger(value) ? String(value) : `${Math.round(value * 1000)}m`;

export function customMetricList(version: CustomVersion, samples: readonly MetricSample[]): object {
  return {
    kind: 'MetricValueList',
    apiVersion: `${CUSTOM_GROUP}/${version}`,
    metadata: {},
    items: samples.map(({ object, metric, value, at, windowSeconds }) => ({
      describedObject: object,
      ...(version === 'v1beta2'
        ? { metric: { name: metric, selector: null } }
        : { metricName: metric }),
      timestamp: timeText(at),
      ...(version === 'v1beta2' ? { windowSeconds } : { window: windowSeconds }),
      value: quantityText(value),
    })),
  };
}

/** A sample of the external API is told apart by its labels. */
export function externalMetricList(samples: readonly MetricSample[]): object {
  return {
    kind: 'ExternalMetricValueList',
    apiVersion: `${EXTERNAL_GROUP}/v1beta1`,
    metadata: {},
    items: samples.map(({ object, metric, value, at, windowSeconds }) => ({
      metricName: metric,
      metricLabels: { deployment: object.name },
      timestamp: timeText(at),
      window: windowSeconds,
      value: quantityText(value),
    })),
  };
}

export interface ServedMetric {
  /** `nvlmdeployments.serving.nvlm.dev` or `pods`. */
  readonly resource: string;
  readonly metric: string;
}

const groupVersion = (group: string, version: string) => ({
  groupVersion: `${group}/${version}`,
  version,
});

export function apiGroup(group: string): object {
  const versions = group === CUSTOM_GROUP ? ['v1beta2', 'v1beta1'] : ['v1beta1'];
  const listed = versions.map((version) => groupVersion(group, version));
  return {
    kind: 'APIGroup',
    apiVersion: 'v1',
    name: group,
    versions: listed,
    preferredVersion: listed[0],
  };
}

/** Never an empty list: old clients fail all discovery on one. An external metric is listed once, whatever it is about. */
export function apiResourceList(
  group: string,
  version: string,
  metrics: readonly ServedMetric[],
): object {
  const isCustom = group === CUSTOM_GROUP;
  const names = metrics.map(({ resource, metric }) =>
    isCustom ? `${resource}/${metric}` : metric,
  );
  return {
    kind: 'APIResourceList',
    apiVersion: 'v1',
    groupVersion: `${group}/${version}`,
    resources: [...new Set(names)].map((name) => ({
      name,
      singularName: '',
      namespaced: true,
      kind: isCustom ? 'MetricValueList' : 'ExternalMetricValueList',
      verbs: ['get'],
    })),
  };
}

export function failureStatus(code: number, reason: string, message: string): object {
  return {
    kind: 'Status',
    apiVersion: 'v1',
    metadata: {},
    status: 'Failure',
    code,
    reason,
    message,
  };
}
