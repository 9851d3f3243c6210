/** Whether a spec can run on the GPUs it asks for. */
import { A100_PRODUCTS } from '#charts/engine-pod.ts';
import { isGrouped } from '#charts/leader-worker-set.ts';
import {
  ENGINE_FEATURES,
  type NVLMDeployment,
  type NVLMDeploymentStatus,
} from '#crds/nvlm-deployment.ts';
import { gpuOfProduct } from '#sizing/gpus.ts';
import { type MemoryPlan, planMemory } from '#sizing/memory.ts';
import { readModelShape, ShapeError } from '#sizing/model-shape.ts';
import type { Described } from './describe.ts';
import type { Finding } from './status.ts';

export interface Feasibility {
  readonly accepted: Finding;
  readonly weightsBytes?: number;
  readonly capacity: NVLMDeploymentStatus['capacity'];
  readonly model: NVLMDeploymentStatus['model'];
  /** The model's description is on its way: no pod is made before it, unless there are pods already. */
  readonly isWaiting: boolean;
}

/** The engine's own default. */
const defaultBatchedTokens = 2048;
const quantityUnits: Readonly<Record<string, number>> = {
  '': 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
};

/** Bytes of a Kubernetes quantity, undefined when it is none. */
export function quantityBytes(quantity: string): number | undefined {
  const [, number = '', unit = '?'] = /^(\d+(?:\.\d+)?)([A-Za-z]*)$/.exec(quantity) ?? [];
  const factor = quantityUnits[unit];
  return factor === undefined ? undefined : Math.round(Number(number) * factor);
}

/** Of the smallest GPU that a pod may be given; undefined for products that are not in the table. */
function gpuMemory({ accelerator }: NVLMDeployment['spec']): number | undefined {
  if (accelerator.memory !== undefined) return quantityBytes(accelerator.memory);
  if (accelerator.nodeSelector !== undefined) return undefined;
  const sizes = (accelerator.product ?? A100_PRODUCTS).map(
    (product) => gpuOfProduct(product)?.memoryBytes,
  );
  return sizes.includes(undefined) ? undefined : Math.min(...(sizes as number[]));
}

const gibibytes = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)}Gi`;

/** What groups of pods need and do not have; undefined when nothing is missing, or nothing known yet. */
function judgeGroups(
  { parallelism }: NVLMDeployment['spec'],
  described: Described,
  servesGroups: boolean,
): Finding | undefined {
  const what = `spec.parallelism.pipeline is ${parallelism.pipeline}: each replica is a group of ${parallelism.pipeline} pods`;
  const features = featuresOf(described);
  if (features !== undefined && !features.includes(ENGINE_FEATURES.pipelineOverPods)) {
    return {
      status: 'False',
      reason: 'PipelineUnsupported',
      message: `${what}, and the engine of this image runs in one pod only. Set pipeline to 1 and split by spec.parallelism.tensor, or give the operator an --engine-image that can`,
    };
  }
  if (servesGroups) return undefined;
  return {
    status: 'False',
    reason: 'LeaderWorkerSetMissing',
    message: `${what}, and the cluster does not serve LeaderWorkerSet (leaderworkerset.x-k8s.io/v1). Install it, see https://lws.sigs.k8s.io/docs/installation/; the operator goes on by itself then. Or set pipeline to 1`,
  };
}

/**
 * Never throws. A model or GPU that is not known does not stop a deployment, unless its replicas are groups of pods: those wait until
 * the engine has said that it can. `servesGroups`: the cluster serves LeaderWorkerSet.
 */
export function judgeFeasibility(
  { spec }: NVLMDeployment,
  described: Described,
  servesGroups = true,
): Feasibility {
  const unknown = (message: string, isWaiting = false): Feasibility => ({
    accepted: { status: isWaiting ? 'Unknown' : 'True', reason: 'ModelUnknown', message },
    capacity: undefined,
    model: undefined,
    isWaiting,
  });
  const lacking = isGrouped({ spec }) ? judgeGroups(spec, described, servesGroups) : undefined;
  if (lacking !== undefined) {
    const model = described.state === 'known' ? toldOf(spec, described) : undefined;
    return { accepted: lacking, capacity: undefined, model, isWaiting: false };
  }
  if (described.state === 'waiting') {
    return unknown(`Job ${described.of} reads the configuration of the model`, true);
  }
  if (described.state === 'unknown') {
    const { why, features } = described;
    if (!isGrouped({ spec }) || features !== undefined) return unknown(why);
    return unknown(`${why}; whether the engine can run in several pods is asked first`, true);
  }
  const { config, weightBytes } = described;
  const told = toldOf(spec, described);
  let shape: ReturnType<typeof readModelShape>;
  try {
    shape = readModelShape(config);
  } catch (error) {
    if (!(error instanceof ShapeError)) throw error;
    return {
      ...unknown(`Its size cannot be computed: ${error.message}`),
      weightsBytes: weightBytes,
      model: told,
    };
  }
  const model = {
    ...told,
    architecture: shape.architecture,
    parameters: shape.parameters.total,
    maxModelLength: spec.model.maxModelLength ?? shape.language.maxPositions,
  };
  const memory = gpuMemory(spec);
  if (memory === undefined) {
    const message =
      'The memory of the GPUs is not known; set accelerator.memory to have the spec checked';
    return { ...unknown(message), weightsBytes: weightBytes, model };
  }
  const plan = planMemory(shape, {
    ...spec.parallelism,
    gpuMemoryBytes: memory,
    dtype: spec.model.dtype,
    kvCacheDtype: spec.model.kvCacheDtype,
    maxSequences: spec.batchPolicy.maxSequences,
    maxBatchedTokens: spec.batchPolicy.maxBatchedTokens ?? defaultBatchedTokens,
    maxModelLength: spec.model.maxModelLength,
  });
  return {
    accepted: plan.fits
      ? { status: 'True', reason: 'Feasible', message: fitting(plan, memory) }
      : { status: 'False', reason: 'InsufficientGpuMemory', message: plan.refusal },
    weightsBytes: weightBytes,
    capacity: {
      gpuMemory: gibibytes(memory),
      weightsPerGpu: gibibytes(plan.weights),
      kvCachePerGpu: gibibytes(plan.kvCache),
      kvBytesPerToken: Math.ceil(plan.kvBytesPerTokenTotal),
      maxCachedTokens: plan.maxCachedTokens,
      maxSequences: plan.largestBatch,
    },
    model,
    isWaiting: false,
  };
}

/** What the engine says that it can do; undefined when it has not answered. */
function featuresOf(described: Described): readonly string[] | undefined {
  if (described.state === 'waiting') return undefined;
  return described.features ?? (described.state === 'known' ? [] : undefined);
}

/** What the status remembers, so that no Job need be asked again. */
const toldOf = (
  { model }: NVLMDeployment['spec'],
  { of, config, weightBytes, features }: Extract<Described, { state: 'known' }>,
) => ({
  of,
  config: JSON.stringify(config),
  weightBytes,
  source: model.source,
  ...(features !== undefined && { features }),
});

const fitting = (plan: MemoryPlan, memory: number): string =>
  `${gibibytes(plan.weights)} of weights and ${gibibytes(plan.kvCache)} of KV cache on each GPU of ${gibibytes(memory)}: ${plan.largestBatch} sequences of ${plan.maxModelLength} tokens at once`;
