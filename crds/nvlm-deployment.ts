/** The custom resource `NVLMDeployment`: what a user declares (spec) and what the operator answers (status). */
import type { Condition, Phase } from './conditions.ts';

export const GROUP = 'serving.nvlm.dev';
export const VERSION = 'v1alpha1';
export const API_VERSION = `${GROUP}/${VERSION}` as const;
export const KIND = 'NVLMDeployment';
export const PLURAL = 'nvlmdeployments';

/** What every Kubernetes object carries; only the fields that are read here. */
export interface ObjectMeta {
  readonly name: string;
  readonly namespace: string;
  readonly uid: string;
  readonly resourceVersion: string;
  readonly generation: number;
  readonly creationTimestamp: string;
  readonly deletionTimestamp?: string;
  readonly finalizers?: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
}

/** As read from the API server: defaults of the schema are filled in. */
export interface NVLMDeployment {
  readonly apiVersion: typeof API_VERSION;
  readonly kind: typeof KIND;
  readonly metadata: ObjectMeta;
  readonly spec: NVLMDeploymentSpec;
  readonly status?: NVLMDeploymentStatus;
}

export interface NVLMDeploymentSpec {
  readonly model: ModelSpec;
  readonly parallelism: ParallelismSpec;
  readonly batchPolicy: BatchPolicySpec;
  /** Engine replicas, each of tensor x pipeline GPUs. Written by users, the HPA or the 0<->1 scaler, never by reconcile. */
  readonly replicas: number;
  readonly autoscaling?: AutoscalingSpec;
  readonly accelerator: AcceleratorSpec;
  readonly rollout: RolloutSpec;
  readonly drain: DrainSpec;
  readonly template?: TemplateSpec;
  readonly auth?: AuthSpec;
  readonly driftPolicy: DriftPolicy;
}

export type Dtype = 'auto' | 'float32' | 'bfloat16' | 'int8' | 'int4';
export type KvCacheDtype = 'float32' | 'bfloat16' | 'int8';
export interface ModelSpec {
  /** `hf://org/name`, `pypi://name@version`, or an absolute path inside the pod. */
  readonly source: string;
  /** Branch, tag or commit of an `hf://` source. */
  readonly revision?: string;
  /** The `model` name that clients send; the name of the NVLMDeployment when absent. */
  readonly servedName?: string;
  readonly dtype: Dtype;
  /** As exact as the dtype when absent, so int8 for int8 and int4. */
  readonly kvCacheDtype?: KvCacheDtype;
  /** Tokens of prompt and answer together; the model's own limit when absent. */
  readonly maxModelLength?: number;
  readonly cache: ModelCacheSpec;
  /** Secret in the same namespace whose `token` reads the model hub. */
  readonly secretRef?: { readonly name: string };
}

/** Exactly one of the three; `ephemeral` when the user names none. */
export interface ModelCacheSpec {
  readonly pvc?: { readonly claimName: string };
  readonly hostPath?: { readonly path: string };
  /** Limited to `size`; the pod is evicted when the model does not fit in it. */
  readonly ephemeral?: { readonly size?: string };
}

export interface ParallelismSpec {
  /** GPUs of one pod that split every layer. */
  readonly tensor: number;
  /** Pods of one replica, each with a share of the layers; more than one are a group of a LeaderWorkerSet. */
  readonly pipeline: number;
  /** A node label: the pods of a replica share one value of it, and no other replica gets it. */
  readonly exclusiveTopology?: string;
}

export type BatchMode = 'Continuous' | 'Sequential' | 'Static' | 'Threads';
export interface BatchPolicySpec {
  readonly mode: BatchMode;
  readonly maxSequences: number;
  /** Tokens of one step; from the model and `maxSequences` when absent. */
  readonly maxBatchedTokens?: number;
  readonly maxQueuedRequests: number;
  /** Go duration. */
  readonly queueTimeout: string;
  /** How long `Static` collects requests; Go duration. */
  readonly staticWindow?: string;
  /** Workers of `Threads`. */
  readonly threads?: number;
}

export interface AutoscalingSpec {
  readonly minReplicas: number;
  readonly maxReplicas: number;
  /** Waiting requests per replica that the HPA aims at. */
  readonly targetQueueDepth: number;
  /** How long without a request until 0 replicas; only with minReplicas 0. Go duration. */
  readonly idleTimeout?: string;
  /** `autoscaling/v2` HorizontalPodAutoscalerBehavior, passed on as written. */
  readonly behavior?: ScalingBehavior;
}

export interface ScalingRules {
  readonly stabilizationWindowSeconds?: number;
  readonly selectPolicy?: 'Max' | 'Min' | 'Disabled';
  readonly policies?: readonly {
    readonly type: 'Pods' | 'Percent';
    readonly value: number;
    readonly periodSeconds: number;
  }[];
}
export interface ScalingBehavior {
  readonly scaleUp?: ScalingRules;
  readonly scaleDown?: ScalingRules;
}

export interface Toleration {
  readonly key?: string;
  readonly operator?: 'Exists' | 'Equal';
  readonly value?: string;
  readonly effect?: 'NoSchedule' | 'PreferNoSchedule' | 'NoExecute';
  readonly tolerationSeconds?: number;
}

export interface AcceleratorSpec {
  /** Values of the node label `nvidia.com/gpu.product`; all A100 products when absent. */
  readonly product?: readonly string[];
  /** Of one GPU, a Kubernetes quantity; from the product's name when absent. */
  readonly memory?: string;
  readonly resourceName: string;
  readonly nodeSelector?: Readonly<Record<string, string>>;
  readonly tolerations?: readonly Toleration[];
  readonly runtimeClassName?: string;
}

export interface RolloutSpec {
  /** Replicas above the wanted number during a rollout. */
  readonly maxSurge: number;
  /** Replicas that may be missing during a rollout. */
  readonly maxUnavailable: number;
}

export interface DrainSpec {
  /** How long streams may go on once their pod is to go; from the batch policy when absent. Go duration. */
  readonly timeout?: string;
}

/** Laid over the engine pod by the merge rules of server-side apply. */
export interface TemplateSpec {
  readonly metadata?: {
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  /** A partial PodSpec; the engine's container is called `engine`. */
  readonly spec?: Readonly<Record<string, unknown>>;
}

export interface AuthSpec {
  /** Secret in the same namespace; under `key`, one API key per line. */
  readonly apiKeysSecretRef: { readonly name: string; readonly key: string };
}

/** What happens to a field of a child object that somebody else changed. */
export type DriftPolicy = 'Repair' | 'Report';

export interface NVLMDeploymentStatus {
  /** Generation of the spec that this status was made from. */
  readonly observedGeneration?: number;
  readonly phase?: Phase;
  /** Reason of the condition that explains the phase. */
  readonly reason?: string;
  readonly conditions?: readonly Condition[];
  /** Engine replicas that exist, of all revisions, without those being deleted: what `scale` reads. */
  readonly replicas?: number;
  /** Of the current revision. */
  readonly updatedReplicas?: number;
  /** Of the current revision, and ready. */
  readonly readyReplicas?: number;
  /** Ready, of any revision, not draining. */
  readonly servingReplicas?: number;
  readonly drainingReplicas?: number;
  /** `ready/wanted`, for `kubectl get`. */
  readonly ready?: string;
  /** Label selector of the pods (of multi-pod replicas: the leaders), for `scale`. */
  readonly selector?: string;
  readonly currentRevision?: string;
  readonly queueDepth?: number;
  /** Generated over all replicas, a mean of half a minute with two digits. */
  readonly tokensPerSecond?: number;
  readonly coldStart?: ColdStartStatus;
  /** When the last request was seen, RFC 3339; the idle time runs from it. */
  readonly lastActiveTime?: string;
  /** The wake annotation that was last acted on. */
  readonly lastWake?: string;
  /** What fits, from the model's configuration and the GPU's memory. */
  readonly capacity?: CapacityStatus;
  readonly model?: ModelStatus;
  readonly endpoint?: string;
}

/** The start of the newest replica that became ready. */
export interface ColdStartStatus {
  readonly pod: string;
  /** When the pod was made, RFC 3339. */
  readonly startedAt: string;
  /** From then until the pod was ready. */
  readonly seconds: number;
  /** `seconds` for people: `3m12s`. */
  readonly duration: string;
}

export interface CapacityStatus {
  readonly gpuMemory?: string;
  readonly weightsPerGpu?: string;
  readonly kvCachePerGpu?: string;
  readonly kvBytesPerToken?: number;
  readonly maxCachedTokens?: number;
  /** Sequences of maxModelLength that fit at once. */
  readonly maxSequences?: number;
}

/** What engines tell that they can do, in the answer of the Job that describes a model. */
export const ENGINE_FEATURES = {
  /** The stages of a pipeline may run in several pods, as LeaderWorkerSet makes them. */
  pipelineOverPods: 'pipeline-over-pods',
} as const;

export interface ModelStatus {
  readonly architecture?: string;
  readonly parameters?: number;
  readonly maxModelLength?: number;
  readonly weightBytes?: number;
  /** The model that was described, as `spec.model.source`. */
  readonly source?: string;
  /** The Job that described it; another source, image or Secret asks another. */
  readonly of?: string;
  /** Its config.json, numbers, switches and short texts only. */
  readonly config?: string;
  /** What the engine that described it can do beyond the usual, see ENGINE_FEATURES. */
  readonly features?: readonly string[];
}
