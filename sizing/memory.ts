/** What of a GPU's memory a model takes, and what is left for its cache. Pure arithmetic over a ModelShape. */
import { layerParameters, type ModelShape } from './model-shape.ts';

export type Dtype = 'auto' | 'float32' | 'bfloat16' | 'int8' | 'int4';

export interface MemoryWishes {
  /** GPUs that split every layer. */
  readonly tensor: number;
  /** Groups of such GPUs, each with a share of the layers. */
  readonly pipeline: number;
  readonly gpuMemoryBytes: number;
  readonly dtype: Dtype;
  readonly maxSequences: number;
  /** Tokens of one step. */
  readonly maxBatchedTokens: number;
  /** Tokens of prompt and answer; what the model was trained for when absent. */
  readonly maxModelLength?: number | undefined;
}

/** All sizes in bytes, of the rank that needs most. */
export interface MemoryPlan {
  readonly fits: boolean;
  /** Why not, with the number to change; empty when it fits. */
  readonly refusal: string;
  readonly usable: number;
  readonly weights: number;
  /** Of the weights, what a decoding step reads: the layers and the head. */
  readonly weightsPerStep: number;
  readonly activations: number;
  readonly workspace: number;
  /** Left for the cache, 0 when nothing is. */
  readonly kvCache: number;
  readonly kvBytesPerToken: number;
  /** Over all ranks of a replica. */
  readonly kvBytesPerTokenTotal: number;
  readonly maxModelLength: number;
  readonly maxCachedTokens: number;
  /** Sequences of maxModelLength that fit at once. */
  readonly largestBatch: number;
}

const GIB = 2 ** 30;
/** Part of the memory that an engine takes; the rest is for the driver and fragmentation. */
export const UTILIZATION = 0.9;
/** Context of the driver, buffers of the collectives, graphs. */
const WORKSPACE_BYTES = GIB;
const LARGEST_TENSOR = 64;

/** Scales of groups of 32 in fp16, and minima for int4. */
const BYTES_PER_WEIGHT = { float32: 4, bfloat16: 2, float16: 2, int8: 1.0625, int4: 0.625 };

/** Why a model cannot be split so, or undefined. */
export function splitProblem(
  shape: ModelShape,
  tensor: number,
  pipeline: number,
): string | undefined {
  const { heads, kvHeads, intermediateSize, layers } = shape.language;
  if (heads % tensor !== 0)
    return `parallelism.tensor ${tensor} does not divide the ${heads} attention heads; set it to ${divisors(heads).join(', ')}`;
  if (kvHeads % tensor !== 0 && tensor % kvHeads !== 0)
    return `parallelism.tensor ${tensor} neither divides the ${kvHeads} key-value heads nor is a multiple of them`;
  if (intermediateSize % tensor !== 0)
    return `parallelism.tensor ${tensor} does not divide the intermediate size ${intermediateSize}`;
  if (pipeline > layers)
    return `parallelism.pipeline ${pipeline} is more than the ${layers} layers; set it to at most ${layers}`;
  return undefined;
}

const divisors = (n: number): number[] =>
  Array.from({ length: Math.min(n, LARGEST_TENSOR) }, (_, i) => i + 1).filter((d) => n % d === 0);

/** Never throws: what cannot be is a plan that does not fit, with the number to change. */
export function planMemory(shape: ModelShape, wishes: MemoryWishes): MemoryPlan {
  const plan = sizes(shape, wishes);
  const split = splitProblem(shape, wishes.tensor, wishes.pipeline);
  const { maxPositions } = shape.language;
  if (split !== undefined) return { ...plan, fits: false, refusal: split };
  if (plan.maxModelLength > maxPositions) {
    const refusal = `model.maxModelLength ${plan.maxModelLength} is more than the ${maxPositions} positions of the model; set it to at most ${maxPositions}`;
    return { ...plan, fits: false, refusal };
  }
  if (plan.largestBatch >= 1) return { ...plan, fits: true, refusal: '' };
  return { ...plan, fits: false, refusal: refusalOf(shape, wishes, plan) };
}

type Sizes = Omit<MemoryPlan, 'fits' | 'refusal'>;

function sizes(shape: ModelShape, wishes: MemoryWishes): Sizes {
  const { language } = shape;
  const { tensor, pipeline, gpuMemoryBytes } = wishes;
  const maxModelLength = wishes.maxModelLength ?? language.maxPositions;
  const usable = Math.floor(gpuMemoryBytes * UTILIZATION);
  const weights = rankWeights(shape, wishes);
  const activations = rankActivations(shape, wishes);
  const stageLayers = Math.ceil(language.layers / pipeline);
  const cacheBytes = wishes.dtype === 'float32' ? 4 : 2;
  // More ranks than key-value heads: each holds a whole one.
  const rankHeads = Math.max(1, language.kvHeads / tensor);
  const perLayer = 2 * language.headSize * cacheBytes;
  const kvBytesPerToken = stageLayers * rankHeads * perLayer;
  const kvCache = Math.max(0, usable - weights - activations - WORKSPACE_BYTES);
  const maxCachedTokens = Math.floor(kvCache / kvBytesPerToken);
  return {
    usable,
    weights,
    weightsPerStep: stepWeights(shape, wishes),
    activations,
    workspace: WORKSPACE_BYTES,
    kvCache,
    kvBytesPerToken,
    kvBytesPerTokenTotal: language.layers * Math.max(language.kvHeads, tensor) * perLayer,
    maxModelLength,
    maxCachedTokens,
    largestBatch: Math.floor(maxCachedTokens / maxModelLength),
  };
}

/** The first stage has the embedding and the vision model, the last the head; the heavier of both counts. */
function rankWeights(shape: ModelShape, { tensor, pipeline, dtype }: MemoryWishes): number {
  const { language, vision, parameters, storedType } = shape;
  const perWeight = BYTES_PER_WEIGHT[dtype === 'auto' ? storedType : dtype];
  // Embeddings and the vision model are never narrower than they are stored.
  const perStored = dtype === 'float32' ? 4 : BYTES_PER_WEIGHT[storedType];
  const table = (language.vocabularySize * language.hiddenSize * perStored) / tensor;
  const layers =
    (Math.ceil(language.layers / pipeline) * layerParameters(language) * perWeight) / tensor;
  const visionSplit = vision !== undefined && vision.heads % tensor === 0 ? tensor : 1;
  const seeing =
    (parameters.vision * perStored) / visionSplit + (parameters.projector * perStored) / tensor;
  const tables = language.tiesEmbeddings ? table : 2 * table;
  const first = layers + seeing + (pipeline === 1 ? tables : table);
  return Math.ceil(pipeline === 1 ? first : Math.max(first, layers + table));
}

function stepWeights({ language, storedType }: ModelShape, wishes: MemoryWishes): number {
  const { tensor, pipeline, dtype } = wishes;
  const perWeight = BYTES_PER_WEIGHT[dtype === 'auto' ? storedType : dtype];
  const layers = Math.ceil(language.layers / pipeline) * layerParameters(language);
  return ((layers + language.vocabularySize * language.hiddenSize) * perWeight) / tensor;
}

/** Two activations of the widest op, logits in fp32, and the tiles of one image. */
function rankActivations(shape: ModelShape, wishes: MemoryWishes): number {
  const { language, vision } = shape;
  const { tensor, maxBatchedTokens, maxSequences, dtype } = wishes;
  const bytes = dtype === 'float32' ? 4 : 2;
  const query = (language.heads + 2 * language.kvHeads) * language.headSize;
  const widest = Math.max(2 * language.intermediateSize, query) / tensor;
  const text = maxBatchedTokens * (2 * language.hiddenSize + widest) * bytes;
  const logits = maxSequences * language.vocabularySize * 4;
  if (vision === undefined) return Math.ceil(text + logits);
  const split = vision.heads % tensor === 0 ? tensor : 1;
  const positions = (vision.imageSize / vision.patchSize) ** 2 + 1;
  const inside = Math.max(3 * vision.heads * vision.headSize, vision.intermediateSize) / split;
  const seeing =
    vision.maxTiles *
    (positions * (2 * vision.hiddenSize + inside) +
      vision.tokensPerTile * (vision.projectorInput + vision.projectorHidden)) *
    bytes;
  return Math.ceil(Math.max(text + logits, seeing));
}

/** Says what is missing and each single change that would do. */
function refusalOf(shape: ModelShape, wishes: MemoryWishes, plan: Sizes): string {
  const fixed = plan.weights + plan.activations + plan.workspace;
  const isTooHeavy = fixed >= plan.usable;
  const problem = isTooHeavy
    ? `Weights (${gib(plan.weights)}), activations (${gib(plan.activations)}) and workspace (${gib(plan.workspace)}) need ${gib(fixed)} of each GPU; ${gib(plan.usable)} of ${gib(wishes.gpuMemoryBytes)} can be used`
    : `One sequence of ${plan.maxModelLength} tokens needs ${gib(plan.maxModelLength * plan.kvBytesPerToken)} of KV cache on each GPU; ${gib(plan.kvCache)} are left beside ${gib(plan.weights)} of weights`;
  const ways: string[] = [];
  const tensor = nextTensor(shape, wishes);
  if (tensor !== undefined) ways.push(`parallelism.tensor to ${tensor}`);
  if (plan.maxCachedTokens >= 1) {
    const length = Math.floor(plan.maxCachedTokens / 256) * 256 || plan.maxCachedTokens;
    ways.push(`model.maxModelLength to at most ${length}`);
  }
  if (isTooHeavy)
    ways.push(
      `accelerator to GPUs of at least ${gib(Math.ceil((fixed + plan.maxModelLength * plan.kvBytesPerToken) / UTILIZATION))}`,
    );
  return `${problem}. Set ${ways.join(', or ')}.`;
}

/** The next larger split that fits. */
function nextTensor(shape: ModelShape, wishes: MemoryWishes): number | undefined {
  return divisors(shape.language.heads).find(
    (tensor) =>
      tensor > wishes.tensor &&
      splitProblem(shape, tensor, wishes.pipeline) === undefined &&
      sizes(shape, { ...wishes, tensor }).largestBatch >= 1,
  );
}

export const gib = (bytes: number): string => `${(bytes / GIB).toFixed(1)} GiB`;
