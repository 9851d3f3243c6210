/** The pod of one engine replica. */
import { createHash } from 'node:crypto';
import { API_VERSION, KIND } from '#crds/nvlm-deployment.ts';
import { durationMs } from './duration.ts';
import type { Container, OwnerReference, Pod, PodTemplate } from './kube.ts';
import { API_KEYS_PATH, CACHE_PATH, engineLabels, LABELS, PORTS, WORKER_NAME } from './labels.ts';
import { mergePodSpec } from './merge.ts';
import type { EngineProps } from './props.ts';

/** All products of the A100; the label's value says memory and form. */
export const A100_PRODUCTS = [
  'NVIDIA-A100-SXM4-40GB',
  'NVIDIA-A100-SXM4-80GB',
  'NVIDIA-A100-PCIE-40GB',
  'NVIDIA-A100-80GB-PCIe',
  'NVIDIA-A100-SXM-64GB',
] as const;

/** Name by which `spec.template` reaches it. */
const ENGINE_CONTAINER = 'engine';
/** Ranks of one pod exchange sums through shared memory. */
const shmGibibytes = (tensor: number): number => 2 * tensor;

const preStopSeconds = 5;
const shutdownMarginSeconds = 10;
/** A slow hub or disk: a first start may take twice the time that the weights need at this rate. */
const coldBytesPerSecond = 200e6;
const minStartSeconds = 600;
const probePeriodSeconds = 5;

export const ownerReference = ({ name, uid }: EngineProps): OwnerReference => ({
  apiVersion: API_VERSION,
  kind: KIND,
  name,
  uid,
  controller: true,
  blockOwnerDeletion: true,
});

/**
 * Seconds that streams may go on in a pod that is to go: `drain.timeout`, or what the longest answer takes when a step of a full
 * batch needs a tenth of a second, between one and fifteen minutes.
 */
export function drainSeconds({ drain, model }: EngineProps['spec']): number {
  if (drain.timeout !== undefined) return Math.ceil(durationMs(drain.timeout) / 1000);
  const longest = (model.maxModelLength ?? 4096) * 0.1 * 1.2;
  return Math.min(900, Math.max(60, Math.ceil(longest)));
}

/** From the deletion of the pod until it is killed. */
export const graceSeconds = (spec: EngineProps['spec']): number =>
  preStopSeconds + drainSeconds(spec) + shutdownMarginSeconds;

/** The model reference as the engine takes it. */
export const modelReference = ({ source, revision }: EngineProps['spec']['model']): string =>
  revision === undefined ? source : `${source}@${revision}`;

/** The engine reads one number and one unit. */
const engineTime = (duration: string): string => `${Math.round(durationMs(duration))}ms`;

function engineArguments({ name, spec }: EngineProps): string[] {
  const { model, batchPolicy, parallelism, auth } = spec;
  const flags: Record<string, string | number | undefined> = {
    model: modelReference(model),
    'served-model-name': model.servedName ?? name,
    host: '0.0.0.0',
    port: PORTS.engine,
    dtype: model.dtype,
    'max-model-length': model.maxModelLength,
    'batch-mode': batchPolicy.mode,
    'max-sequences': batchPolicy.maxSequences,
    'max-batched-tokens': batchPolicy.maxBatchedTokens,
    'max-queued-requests': batchPolicy.maxQueuedRequests,
    'queue-timeout': engineTime(batchPolicy.queueTimeout),
    'static-window': batchPolicy.staticWindow && engineTime(batchPolicy.staticWindow),
    'worker-threads': batchPolicy.threads,
    'shutdown-timeout': `${drainSeconds(spec)}s`,
    tensor: parallelism.tensor > 1 ? parallelism.tensor : undefined,
    pipeline: parallelism.pipeline > 1 ? parallelism.pipeline : undefined,
    'api-keys-file':
      auth === undefined ? undefined : `${API_KEYS_PATH}/${auth.apiKeysSecretRef.key}`,
  };
  return Object.entries(flags)
    .filter(([, value]) => value !== undefined)
    .map(([flag, value]) => `--${flag}=${value}`);
}

const probe = (path: string, failureThreshold: number, periodSeconds = probePeriodSeconds) => ({
  httpGet: { path, port: 'http' },
  periodSeconds,
  timeoutSeconds: 5,
  failureThreshold,
});

/** What only a container that answers requests has. */
function serving({ weightsBytes }: EngineProps) {
  const startSeconds =
    weightsBytes === undefined
      ? 3600
      : Math.max(minStartSeconds, Math.ceil((2 * weightsBytes) / coldBytesPerSecond));
  return {
    ports: [{ name: 'http', containerPort: PORTS.engine, protocol: 'TCP' }],
    startupProbe: probe('/readyz', Math.ceil(startSeconds / probePeriodSeconds)),
    readinessProbe: probe('/readyz', 2, 2),
    livenessProbe: probe('/healthz', 6, 10),
    // Requests that were on their way when the endpoint left still find the engine.
    lifecycle: { preStop: { sleep: { seconds: preStopSeconds } } },
  };
}

/**
 * What the host does for the GPUs: a core for HTTP, tokens and scheduling and one for each rank; memory for the process and for all of
 * /dev/shm. A limit in `spec.template` is a request too, as everywhere in Kubernetes: none of ours stands against it.
 */
function hostRequests({ parallelism, template }: EngineProps['spec']): Record<string, string> {
  const { tensor } = parallelism;
  const containers = (template?.spec?.containers ?? []) as readonly Partial<Container>[];
  const own = containers.find(({ name }) => name === ENGINE_CONTAINER)?.resources as
    | { readonly limits?: Readonly<Record<string, unknown>> }
    | undefined;
  const requests = { cpu: String(1 + tensor), memory: `${2 + shmGibibytes(tensor)}Gi` };
  return Object.fromEntries(
    Object.entries(requests).filter(([resource]) => own?.limits?.[resource] === undefined),
  );
}

function engineContainer(props: EngineProps, role: PodRole): Container {
  const { spec, image, imagePullPolicy } = props;
  const { parallelism, accelerator, model, auth } = spec;
  const gpus = { [accelerator.resourceName]: String(parallelism.tensor) };
  return {
    name: ENGINE_CONTAINER,
    image,
    imagePullPolicy,
    args: engineArguments(props),
    env: [
      { name: 'XDG_CACHE_HOME', value: CACHE_PATH },
      ...(model.secretRef === undefined
        ? []
        : [
            {
              name: 'NVLM_HF_TOKEN',
              valueFrom: { secretKeyRef: { name: model.secretRef.name, key: 'token' } },
            },
          ]),
    ],
    // The same number of GPUs as limit and request, and CPU far below a GPU's share of its node: pods of whole, equal GPU counts pack
    // nodes without holes. No limit of CPU or memory: what is free on the node is free to use.
    resources: { limits: gpus, requests: { ...gpus, ...hostRequests(spec) } },
    ...(role === 'serving' && serving(props)),
    // What the engine says last is what the status of the NVLMDeployment tells of it.
    terminationMessagePolicy: 'FallbackToLogsOnError',
    securityContext: {
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    },
    volumeMounts: [
      { name: 'models', mountPath: CACHE_PATH },
      { name: 'shm', mountPath: '/dev/shm' },
      { name: 'tmp', mountPath: '/tmp' },
      ...(auth === undefined
        ? []
        : [{ name: 'api-keys', mountPath: API_KEYS_PATH, readOnly: true }]),
    ],
  };
}

export function cacheVolume({ pvc, hostPath, ephemeral }: EngineProps['spec']['model']['cache']) {
  if (pvc !== undefined) return { persistentVolumeClaim: pvc };
  if (hostPath !== undefined)
    return { hostPath: { path: hostPath.path, type: 'DirectoryOrCreate' } };
  return { emptyDir: ephemeral?.size === undefined ? {} : { sizeLimit: ephemeral.size } };
}

export const GPU_TAINT = { key: 'nvidia.com/gpu', operator: 'Exists', effect: 'NoSchedule' };

function nodeChoice({ accelerator }: EngineProps['spec']) {
  if (accelerator.nodeSelector !== undefined) return { nodeSelector: accelerator.nodeSelector };
  const values = accelerator.product ?? A100_PRODUCTS;
  const term = {
    matchExpressions: [{ key: 'nvidia.com/gpu.product', operator: 'In', values: [...values] }],
  };
  const required = { nodeSelectorTerms: [term] };
  return {
    affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: required } },
  };
}

/**
 * `serving` pods answer requests: a replica of one pod, or the leader of a group. A `worker` has a part of the layers and no clients:
 * it has no probes, because the leader is ready only when a token went through all of them.
 */
export type PodRole = 'serving' | 'worker';

/** The pod as it is rolled out, `spec.template` laid over it. */
export function enginePodTemplate(props: EngineProps, role: PodRole = 'serving'): PodTemplate {
  const { name, spec } = props;
  const { accelerator, parallelism, template = {}, auth } = spec;
  const base: PodTemplate['spec'] = {
    containers: [engineContainer(props, role)],
    terminationGracePeriodSeconds: graceSeconds(spec),
    automountServiceAccountToken: false,
    // Variables of Services named nvlm-... would be taken for options of the engine.
    enableServiceLinks: false,
    securityContext: {
      runAsNonRoot: true,
      runAsUser: 65532,
      runAsGroup: 65532,
      fsGroup: 65532,
      fsGroupChangePolicy: 'OnRootMismatch',
      seccompProfile: { type: 'RuntimeDefault' },
    },
    ...nodeChoice(spec),
    tolerations: [GPU_TAINT, ...(accelerator.tolerations ?? [])],
    ...(accelerator.runtimeClassName && { runtimeClassName: accelerator.runtimeClassName }),
    volumes: [
      { name: 'models', ...cacheVolume(spec.model.cache) },
      {
        name: 'shm',
        emptyDir: { medium: 'Memory', sizeLimit: `${shmGibibytes(parallelism.tensor)}Gi` },
      },
      { name: 'tmp', emptyDir: { sizeLimit: '1Gi' } },
      ...(auth === undefined
        ? []
        : [{ name: 'api-keys', secret: { secretName: auth.apiKeysSecretRef.name } }]),
    ],
  };
  return {
    metadata: {
      labels: {
        ...template.metadata?.labels,
        ...engineLabels(name),
        ...(role === 'worker' && { [LABELS.name]: WORKER_NAME }),
      },
      annotations: { ...template.metadata?.annotations },
    },
    spec: mergePodSpec(base, template.spec ?? {}),
  };
}

/** Ten hexadecimal digits over what a replica is made from: equal templates are one revision, also after a change and back. */
export function engineRevision(props: EngineProps): string {
  // How long a start may take is learned later than pods are made, and is no reason to replace them.
  const { weightsBytes: _, ...lasting } = props;
  const { pipeline } = props.spec.parallelism;
  const serving = enginePodTemplate(lasting);
  const template =
    pipeline === 1 ? serving : { serving, worker: workerTemplate(lasting), pods: pipeline };
  return createHash('sha256')
    .update(JSON.stringify(sorted(template)))
    .digest('hex')
    .slice(0, 10);
}

/** Nobody sends a key to a worker, so it is given none. */
export function workerTemplate(props: EngineProps): PodTemplate {
  const { auth: _, ...spec } = props.spec;
  return enginePodTemplate({ ...props, spec }, 'worker');
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).filter(([, child]) => child !== undefined);
  return Object.fromEntries(
    entries.sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, child]) => [key, sorted(child)]),
  );
}

/** A pod of the template; `podName` is unique in the namespace. */
export function enginePod(
  props: EngineProps,
  template: PodTemplate,
  revision: string,
  podName: string,
): Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name: podName,
      namespace: props.namespace,
      labels: {
        ...template.metadata.labels,
        [LABELS.revision]: revision,
        [LABELS.traffic]: 'serving',
      },
      annotations: { ...template.metadata.annotations },
      ownerReferences: [ownerReference(props)],
    },
    spec: template.spec,
  };
}
