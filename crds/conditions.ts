/** Names of conditions, reasons and phases. Conditions are past participles or states; `Ready` sums them up. */

export const CONDITION_TYPES = [
  'Accepted',
  'ModelCached',
  'EnginesAvailable',
  'Progressing',
  'Drained',
  'ScalingActive',
  'MetricsServed',
  'RouteReady',
  'Drifted',
  'Degraded',
  'Ready',
] as const;
export type ConditionType = (typeof CONDITION_TYPES)[number];

export interface ConditionMeaning {
  /** What it tells while it is True. */
  readonly holds: string;
  /** The status of a deployment that serves as it is asked to; undefined where none is better than another. */
  readonly healthy?: 'True' | 'False';
  /** In the order in which a deployment usually has them. */
  readonly reasons: readonly Reason[];
}

/** Reason -> what it tells; the catalogue that docs and tests read. */
export const REASONS = {
  Feasible: 'The spec fits the GPUs it asks for.',
  ModelUnknown: 'The model is not described yet; the engine reports it once it has loaded it.',
  InsufficientGpuMemory:
    'Weights, KV cache and activations do not fit; the message names the number to change.',
  PipelineUnsupported: 'The engine image cannot split a model over several pods.',
  LeaderWorkerSetMissing:
    'A replica of several pods needs the LeaderWorkerSet kind and its controller; the cluster lacks one of them.',
  InvalidTemplate: 'spec.template gives a pod that the API server refuses.',
  SecretMissing: 'A Secret that the spec names does not exist, lacks its key, or is empty.',
  CacheUnusable: 'The engine may not write to the directory or claim of `model.cache`.',
  Downloading: 'Engines fetch the model.',
  Cached: 'The engines that answer have the model.',
  Available: 'At least as many replicas serve as the rollout must keep.',
  TooFewServing: 'Fewer replicas serve than the rollout must keep.',
  RollingOut: 'Pods of an older revision are being replaced.',
  Scaling: 'Replicas are being added or removed.',
  Complete: 'All replicas run the current revision.',
  Draining: 'Pods finish their streams before they go.',
  Unschedulable: 'No node has the GPUs, the CPUs or the memory that a pod asks for.',
  ImagePull: 'The engine image cannot be pulled.',
  CrashLoop: 'The engine ends soon after its start.',
  OutOfMemory: 'The engine was killed for its memory.',
  NotReady: 'Engines have started and do not answer yet.',
  HorizontalPodAutoscaler: 'The HPA sets the number of replicas.',
  OwnScaling:
    'The operator sets the number of replicas by the rule of the HPA: it runs with --metrics-api none.',
  Fixed: 'The number of replicas is spec.replicas.',
  ScaledToZero:
    'Nothing was asked for idleTimeout; a request or the wake annotation starts one replica.',
  Waking: 'A wake signal came; the first replica starts.',
  Routed: 'The Service leads to an engine.',
  NoRoute: 'Replicas are ready, and the Service leads to none of them.',
  Served: 'The operator serves the queue depth at custom.metrics.k8s.io.',
  ForeignProvider: 'Another server owns custom.metrics.k8s.io; the operator scales by itself.',
  NotServed: 'The metrics API cannot be reached through the API server.',
  Repaired: 'A field that somebody else changed was set back; the message names manager and field.',
  Reported:
    'A field was changed by somebody else and left so; the message names manager and field.',
  None: 'Nothing to report.',
  AllReady: 'All wanted replicas of the current revision are ready.',
  Deleting: 'The NVLMDeployment is being deleted; streams are finishing.',
} as const;
export type Reason = keyof typeof REASONS;

/** What to do, for the reasons that ask for something. */
export const REMEDIES: Partial<Record<Reason, string>> = {
  ModelUnknown:
    'Nothing, if the model is right: the Job that reads its configuration is tried again 1, 2, 4 and so on up to 30 minutes after it failed; the message says why, and when next. To have it read at once, `kubectl delete job` the one that the message names.',
  InsufficientGpuMemory:
    'Change the number that the message names, or choose larger GPUs in `accelerator`.',
  PipelineUnsupported:
    'Set `parallelism.pipeline` to 1 and, if the model does not fit then, raise `parallelism.tensor` or choose larger GPUs; or set `--engine-image` of the operator to an engine that can.',
  LeaderWorkerSetMissing:
    'Install LeaderWorkerSet, https://lws.sigs.k8s.io/docs/installation/; the operator goes on by itself. Or set `parallelism.pipeline` to 1.',
  InvalidTemplate: 'Mend `spec.template`, or the object of the name that the message gives.',
  SecretMissing:
    'Create the Secret with the key that the message names, in the namespace of the NVLMDeployment. The pods find it by themselves, within five minutes; deleting them is quicker.',
  CacheUnusable:
    'Run the command that the message has on the node that it names, or give the claim to user 65532; the pods go on by themselves, within five minutes.',
  NotReady:
    'Wait while the model loads; `kubectl logs` of the pod says how far it is. A pod that does not get ready in its start-up time is started again, and in the end told as `CrashLoop`.',
  ScaledToZero:
    'Nothing. To start it: `kubectl annotate nvlm NAME serving.nvlm.dev/wake="$(date)" --overwrite`, or set `replicas` where you scale by hand.',
  Deleting:
    'Wait for `drain.timeout`. If no operator runs any more, see [uninstall](kubernetes.md#uninstall).',
  Downloading:
    'Wait; the message of `ModelCached` says how far each pod is (`kubectl nvlm status`, `kubectl get nvlm -o wide`).',
  TooFewServing: 'Look at the pods: `kubectl nvlm status` names what holds them.',
  Unschedulable:
    'The message has what the scheduler says. GPUs: free or add some, or lower `parallelism.tensor`; labels: correct `accelerator`; CPU or memory: lower the requests in `spec.template`.',
  ImagePull:
    'Correct `--engine-image` of the operator, or add a pull Secret: `imagePullSecrets` in `spec.template.spec`.',
  CrashLoop:
    'Read `kubectl logs --previous` of the pod: the engine says CODE and what to do, see docs/errors.md.',
  OutOfMemory:
    'Raise the memory limit in `spec.template`, or lower `model.maxModelLength` or `batchPolicy.maxSequences`.',
  ForeignProvider:
    'Nothing: the operator scales by itself. To use the HPA, remove the other provider of custom.metrics.k8s.io.',
  NotServed:
    'See that the Service nvlm-operator-metrics leads to the operator, and that a NetworkPolicy lets the API server in.',
  NoRoute:
    'Nothing for some seconds. If it stays, see `kubectl get endpointslices -l kubernetes.io/service-name=NAME`, and that kube-controller-manager runs.',
  Repaired:
    'Change the NVLMDeployment or `spec.template` instead of the child, or set `driftPolicy: Report`.',
  Reported: 'Take the change back, or set `driftPolicy: Repair`.',
};

/** Why a replica is in trouble. */
const TROUBLES = [
  'InvalidTemplate',
  'SecretMissing',
  'CacheUnusable',
  'Unschedulable',
  'ImagePull',
  'CrashLoop',
  'OutOfMemory',
] as const satisfies readonly Reason[];
/** Why a spec cannot work. */
const REFUSALS = [
  'InsufficientGpuMemory',
  'PipelineUnsupported',
  'LeaderWorkerSetMissing',
] as const satisfies readonly Reason[];

/** Condition -> what it is good for; docs read it, and a test compares it with what the operator reports. */
export const CONDITION_MEANINGS: Readonly<Record<ConditionType, ConditionMeaning>> = {
  Accepted: {
    holds:
      'The spec can work: the model fits the GPUs. With `ModelUnknown` that was not judged: while it is `Unknown` pods wait for it, then they are made all the same. `False`: no pod is made until the spec changes.',
    healthy: 'True',
    reasons: ['ModelUnknown', 'Feasible', ...REFUSALS],
  },
  ModelCached: {
    holds:
      'The engines that answer have the model on their disk. The message tells how far each pod is.',
    healthy: 'True',
    reasons: ['NotReady', 'Downloading', 'Cached'],
  },
  EnginesAvailable: {
    holds:
      'At least `replicas` - `rollout.maxUnavailable` replicas, of any revision, take requests; one at least.',
    healthy: 'True',
    reasons: ['TooFewServing', 'Available'],
  },
  Progressing: {
    holds:
      'Replicas are being made, replaced or removed. True for much longer than a model takes to load: look at `Degraded`.',
    healthy: 'False',
    reasons: ['Scaling', 'RollingOut', 'Complete'],
  },
  Drained: {
    holds: 'No replica is on its way out. `False`: streams finish, for `drain.timeout` at most.',
    healthy: 'True',
    reasons: ['None', 'Draining'],
  },
  ScalingActive: {
    holds: 'The HPA, or the operator by the same rule, may change the number of replicas.',
    reasons: ['Fixed', 'HorizontalPodAutoscaler', 'OwnScaling', 'ForeignProvider', 'ScaledToZero'],
  },
  MetricsServed: {
    holds:
      'The HPA can read the queue depth. `Unknown` with `--metrics-api none`: nobody needs to.',
    healthy: 'True',
    reasons: ['Served', 'NotServed', 'ForeignProvider', 'None'],
  },
  RouteReady: {
    holds: 'The Service leads to a ready engine.',
    healthy: 'True',
    reasons: ['TooFewServing', 'NoRoute', 'Routed'],
  },
  Drifted: {
    holds: 'Somebody else changed an object that belongs to this deployment.',
    healthy: 'False',
    reasons: ['None', 'Repaired', 'Reported'],
  },
  Degraded: {
    holds:
      'Some replica of the current revision is in trouble; the message names the pod and the worst trouble.',
    healthy: 'False',
    reasons: ['None', ...TROUBLES, 'LeaderWorkerSetMissing'],
  },
  Ready: {
    holds: 'All wanted replicas are of the current revision and take requests. Sums the others up.',
    healthy: 'True',
    reasons: [
      'NotReady',
      'AllReady',
      'NoRoute',
      'RollingOut',
      'ScaledToZero',
      'Deleting',
      ...REFUSALS,
      ...TROUBLES,
    ],
  },
};

export interface Condition {
  readonly type: ConditionType;
  readonly status: 'True' | 'False' | 'Unknown';
  readonly reason: Reason;
  readonly message: string;
  readonly observedGeneration: number;
  /** RFC 3339, seconds. */
  readonly lastTransitionTime: string;
}

export const PHASES = [
  'Pending',
  'Downloading',
  'Starting',
  'Ready',
  'Updating',
  'Draining',
  'ScaledToZero',
  'Degraded',
  'Failed',
] as const;
export type Phase = (typeof PHASES)[number];

/** Phase -> what it tells. */
export const PHASE_MEANINGS: Readonly<Record<Phase, string>> = {
  Pending: 'No pod runs yet: the model is being described, or no node has room.',
  Downloading: 'Pods fetch the model, and none serves yet.',
  Starting: 'Pods load the model, and none serves yet.',
  Ready: 'All wanted replicas serve.',
  Updating: 'Some replicas serve; others are being made or replaced.',
  Draining: 'Replicas finish their streams: scaled down, or being deleted.',
  ScaledToZero: 'No replica is wanted; a wake signal starts one.',
  Degraded: 'A replica is in trouble. Others may serve: READY says how many.',
  Failed: 'The spec cannot work as it is; condition `Accepted` says what to change.',
};
