/** The one place for names, labels, ports and paths of what we put into a cluster. */
export const LABELS = {
  name: 'app.kubernetes.io/name',
  instance: 'app.kubernetes.io/instance',
  component: 'app.kubernetes.io/component',
  managedBy: 'app.kubernetes.io/managed-by',
  deployment: 'serving.nvlm.dev/deployment',
  revision: 'serving.nvlm.dev/revision',
  /** `serving` pods get requests from the Service; `draining` ones finish what they have. */
  traffic: 'serving.nvlm.dev/traffic',
  /** On a Job and its pod: the NVLMDeployment whose model it describes. */
  describes: 'serving.nvlm.dev/describes',
} as const;

export const ANNOTATIONS = {
  /** On an NVLMDeployment at zero: a new value, such as the time, starts a replica. */
  wake: 'serving.nvlm.dev/wake',
  /** On a pod: RFC 3339 time since which it drains. */
  drainingSince: 'serving.nvlm.dev/draining-since',
  /** Read by the ReplicaSet controller where pods are grouped by one, and by people: what removing the pod costs. */
  deletionCost: 'controller.kubernetes.io/pod-deletion-cost',
} as const;

export const FINALIZER = 'serving.nvlm.dev/drain';
export const FIELD_MANAGER = 'nvlm-operator';
export const OPERATOR_NAME = 'nvlm-operator';
export const ENGINE_NAME = 'nvlm-engine';
export const DESCRIBE_NAME = 'nvlm-describe';

export const PORTS = { engine: 8000, operatorHealth: 8080, metricsApi: 6443 } as const;
/** Where the model cache is mounted in the engine's container. */
export const CACHE_PATH = '/models';
export const API_KEYS_PATH = '/etc/nvlm/api-keys';

/** Labels that select the pods of one NVLMDeployment, of all revisions. */
export const engineSelector = (name: string): Record<string, string> => ({
  [LABELS.name]: ENGINE_NAME,
  [LABELS.deployment]: name,
});

export const engineLabels = (name: string): Record<string, string> => ({
  ...engineSelector(name),
  [LABELS.instance]: name,
  [LABELS.managedBy]: OPERATOR_NAME,
});

/** `a=b,c=d`, as `status.selector` and the API server write it. */
export const selectorText = (labels: Readonly<Record<string, string>>): string =>
  Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(',');
