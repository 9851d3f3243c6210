/** What of a GPU's memory a model takes, and what is left for its cache. Pure arithmetic over a ModelShape. */
import {
  largestShare,
  layerParameters,
  type ModelShape,
  positionParameters,
  projectorParameters,
  tableParameters,
  visionParameters,
} from './model-shape.ts';

export type Dtype = 'auto' | 'float32' | 'bfloat16' | 'int8' | 'int4';

export type KvCacheDtype = 'auto' | 'float32' | 'bfloat16' | 'int8';

export interface MemoryWishes {
  /** GPUs that split every layer. */
  readonly tensor: number;
  /** Groups of such GPUs, each with a share of the layers. */
  readonly pipeline: number;
  readonly gpuMemoryBytes: number;
  readonly dtype: Dtype;
  /** Default auto: as exact as the dtype. */
  readonly kvCacheDtype?: KvCacheDtype | undefined;
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

/** Why a model cannot be split so, or undefined. The rules are those by which engine/model divides a model. */
export function splitProblem(
  shape: ModelShape,
  tensor: number,
  pipeline: number,
): string | undefined {
  const { heads, layers } = shape.language;
  const problem = tensorProblem(shape, tensor);
  if (problem !== undefined) {
    const possible = divisors(heads).filter((one) => tensorProblem(shape, one) === undefined);
    return `parallelism.tensor ${tensor} ${problem}; set it to ${possible.join(', ')}`;
  }
  if (pipeline > layers)
    return `parallelism.pipeline ${pipeline} is more than the ${layers} layers; set it to at most ${layers}`;
  return undefined;
}

function tensorProblem({ language, vision }: ModelShape, tensor: number): string | undefined {
  const { heads, kvHeads } = language;
  if (heads % tensor !== 0) return `does not divide the ${heads} attention heads`;
  if (kvHeads % tensor !== 0 && tensor % kvHeads !== 0)
    return `neither divides the ${kvHeads} key-value heads nor is a multiple of them`;
  const divided: [number, string][] = [
    [language.intermediateSize, 'values of the intermediate size'],
    [language.vocabularySize, 'rows of the vocabulary'],
  ];
  if (vision !== undefined)
    divided.push(
      [vision.heads, 'heads of the vision model'],
      [vision.intermediateSize, 'values of the intermediate size of the vision model'],
      [vision.projectorHidden, 'values inside the projector'],
    );
  const tooFew = divided.find(([count]) => count < tensor);
  return tooFew && `is more than the ${tooFew[0]} ${tooFew[1]}`;
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
  // More ranks than key-value heads: each holds a whole one.
  const rankHeads = largestShare(language.kvHeads, tensor);
  const perLayer = cachedHeadBytes(shape, wishes);
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

/** Of one token's key and value in one head. */
function cachedHeadBytes({ language, storedType }: ModelShape, wishes: MemoryWishes): number {
  const { headSize } = language;
  const { kvCacheDtype = 'auto' } = wishes;
  const dtype = wishes.dtype === 'auto' ? storedType : wishes.dtype;
  const kept = kvCacheDtype === 'auto' ? dtype : kvCacheDtype;
  if (kept === 'float32') return 2 * headSize * 4;
  if (kept === 'bfloat16' || kept === 'float16') return 2 * headSize * 2;
  // A scale in bf16 for every 32 dimensions of a key, and for the whole of a value.
  return headSize + 2 * Math.ceil(headSize / 32) + headSize + 2;
}

/**
 * Of the first rank, which has most. The first stage has the embedding and the vision model, the last the head and its norm; the
 * heavier of both counts. Exact for weights held as they are stored, where the dummy heads of the vision model count as stored: an
 * engine leaves them out if they are zero.
 */
function rankWeights(shape: ModelShape, { tensor, pipeline, dtype }: MemoryWishes): number {
  const { language, vision, storedType } = shape;
  const perWeight = BYTES_PER_WEIGHT[dtype === 'auto' ? storedType : dtype];
  // Embeddings and the vision model are never narrower than they are stored.
  const perStored = dtype === 'float32' ? 4 : BYTES_PER_WEIGHT[storedType];
  const table = tableParameters(language, tensor) * perStored;
  const layers =
    Math.ceil(language.layers / pipeline) * layerParameters(language, tensor) * perWeight;
  const norm = language.hiddenSize * perStored;
  let seeing = 0;
  if (vision !== undefined) {
    // Class and position embeddings become one table in fp32.
    const positions = positionParameters(vision);
    const rest =
      visionParameters(vision, tensor) + projectorParameters(vision, language, tensor) - positions;
    seeing = rest * perStored + (positions - vision.hiddenSize) * 4;
  }
  const first = layers + table + seeing;
  const isOneTable = pipeline === 1 && language.tiesEmbeddings;
  const last = norm + (isOneTable ? 0 : table);
  return Math.ceil(pipeline === 1 ? first + last : Math.max(first, layers + last));
}

function stepWeights({ language, storedType }: ModelShape, wishes: MemoryWishes): number {
  const { tensor, pipeline, dtype } = wishes;
  const perWeight = BYTES_PER_WEIGHT[dtype === 'auto' ? storedType : dtype];
  const layers = Math.ceil(language.layers / pipeline) * layerParameters(language, tensor);
  return (layers + tableParameters(language, tensor)) * perWeight;
}

/** Of a GPU, which keeps bf16 between ops: two activations of the widest op, logits in fp32, and the tiles of one image. */
function rankActivations(shape: ModelShape, wishes: MemoryWishes): number {
  const { language, vision } = shape;
  const { tensor, maxBatchedTokens, maxSequences, dtype } = wishes;
  const bytes = dtype === 'float32' ? 4 : 2;
  const query = (language.heads + 2 * language.kvHeads) * language.headSize;
  const widest = largestShare(Math.max(2 * language.intermediateSize, query), tensor);
  const text = maxBatchedTokens * (2 * language.hiddenSize + widest) * bytes;
  // A rank's own, and those of all.
  const logitColumns =
    language.vocabularySize + (tensor > 1 ? largestShare(language.vocabularySize, tensor) : 0);
  const logits = maxSequences * logitColumns * 4;
  if (vision === undefined) return Math.ceil(text + logits);
  const positions = (vision.imageSize / vision.patchSize) ** 2 + 1;
  const inside = Math.max(
    3 * largestShare(vision.heads, tensor) * vision.headSize,
    largestShare(vision.intermediateSize, tensor),
  );
  const squares = vision.projectorInput + largestShare(vision.projectorHidden, tensor);
  const seeing =
    vision.maxTiles *
    (positions * (2 * vision.hiddenSize + inside) + vision.tokensPerTile * squares) *
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
