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
  /** On a LeaderWorkerSet: the bytes of weights that its start-up budget was made for. */
  weightsBytes: 'serving.nvlm.dev/weights-bytes',
  /** Read by the ReplicaSet controller where pods are grouped by one, and by people: what removing the pod costs. */
  deletionCost: 'controller.kubernetes.io/pod-deletion-cost',
} as const;

export const FINALIZER = 'serving.nvlm.dev/drain';
export const FIELD_MANAGER = 'nvlm-operator';
export const OPERATOR_NAME = 'nvlm-operator';
export const ENGINE_NAME = 'nvlm-engine';
/** Of the pods of a group that clients do not talk to: selectors of engines leave them out. */
export const WORKER_NAME = 'nvlm-engine-worker';
export const DESCRIBE_NAME = 'nvlm-describe';

export const PORTS = { engine: 8000, operatorHealth: 8080, metricsApi: 6443 } as const;
/** Where the model cache is mounted in the engine's container. */
export const CACHE_PATH = '/models';
export const CACHE_VOLUME = 'models';
export const API_KEYS_PATH = '/etc/nvlm/api-keys';
export const API_KEYS_VOLUME = 'api-keys';

/** Labels that LeaderWorkerSet puts on its pods. */
export const GROUP_LABELS = {
  set: 'leaderworkerset.sigs.k8s.io/name',
  worker: 'leaderworkerset.sigs.k8s.io/worker-index',
} as const;
export const EXCLUSIVE_TOPOLOGY = 'leaderworkerset.sigs.k8s.io/exclusive-topology';

/** Labels that select what answers requests for one NVLMDeployment, of all revisions: a pod, or the leader of a group. */
export const engineSelector = (name: string): Record<string, string> => ({
  [LABELS.name]: ENGINE_NAME,
  [LABELS.deployment]: name,
});

/** Labels that select all pods of one NVLMDeployment, the workers of groups too. */
export const memberSelector = (name: string): Record<string, string> => ({
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
