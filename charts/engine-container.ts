/** The container of an engine replica: its arguments, probes, and what it asks of a node. */
import { durationMs } from './duration.ts';
import type { Container } from './kube.ts';
import { API_KEYS_PATH, API_KEYS_VOLUME, CACHE_PATH, CACHE_VOLUME, PORTS } from './labels.ts';
import type { EngineProps } from './props.ts';
import { CONTAINER_SECURITY } from './security.ts';

/** Name by which `spec.template` reaches it. */
const ENGINE_CONTAINER = 'engine';
/** Ranks of one pod exchange sums through shared memory. */
export const shmGibibytes = (tensor: number): number => 2 * tensor;

const preStopSeconds = 5;
const shutdownMarginSeconds = 10;
/** A slow hub or disk: a first start may take twice the time that the weights need at this rate. */
const coldBytesPerSecond = 200e6;
const minStartSeconds = 600;
const probePeriodSeconds = 5;

/**
 * `serving` pods answer requests: a replica of one pod, or the leader of a group. A `worker` has a part of the layers and no clients:
 * it has no probes, because the leader is ready only when a token went through all of them.
 */
export type PodRole = 'serving' | 'worker';

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

/** Variables by which the programs of the engine's image find a model: its cache, and the token of the hub. */
export const modelEnvironment = ({ secretRef }: EngineProps['spec']['model']) => [
  { name: 'XDG_CACHE_HOME', value: CACHE_PATH },
  ...(secretRef === undefined
    ? []
    : [
        {
          name: 'NVLM_HF_TOKEN',
          valueFrom: { secretKeyRef: { name: secretRef.name, key: 'token' } },
        },
      ]),
];

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
    'kv-cache-dtype': model.kvCacheDtype,
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

export function engineContainer(props: EngineProps, role: PodRole): Container {
  const { spec, image, imagePullPolicy } = props;
  const { parallelism, accelerator, model, auth } = spec;
  const gpus = { [accelerator.resourceName]: String(parallelism.tensor) };
  return {
    name: ENGINE_CONTAINER,
    image,
    imagePullPolicy,
    args: engineArguments(props),
    env: modelEnvironment(model),
    // The same number of GPUs as limit and request, and CPU far below a GPU's share of its node: pods of whole, equal GPU counts pack
    // nodes without holes. No limit of CPU or memory: what is free on the node is free to use.
    resources: { limits: gpus, requests: { ...gpus, ...hostRequests(spec) } },
    ...(role === 'serving' && serving(props)),
    // What the engine says last is what the status of the NVLMDeployment tells of it.
    terminationMessagePolicy: 'FallbackToLogsOnError',
    securityContext: CONTAINER_SECURITY,
    volumeMounts: [
      { name: CACHE_VOLUME, mountPath: CACHE_PATH },
      { name: 'shm', mountPath: '/dev/shm' },
      { name: 'tmp', mountPath: '/tmp' },
      ...(auth === undefined
        ? []
        : [{ name: API_KEYS_VOLUME, mountPath: API_KEYS_PATH, readOnly: true }]),
    ],
  };
}
