/** What a model's config.json says about its size. Parameter counts are exact: they are the elements of the checkpoint's tensors. */

export interface LanguageShape {
  readonly layers: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  readonly vocabularySize: number;
  readonly maxPositions: number;
  /** On queries, keys and values. */
  readonly hasAttentionBias: boolean;
  readonly hasOutputBias: boolean;
  readonly hasMlpBias: boolean;
  readonly tiesEmbeddings: boolean;
}

export interface VisionShape {
  readonly layers: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  /** As stored: with the dummy heads that fill up a tensor-parallel split, if there are any. */
  readonly heads: number;
  readonly headSize: number;
  readonly imageSize: number;
  readonly patchSize: number;
  readonly hasQkvBias: boolean;
  readonly hasQkNorm: boolean;
  readonly hasNormBias: boolean;
  /** Tokens of one tile in the prompt. */
  readonly tokensPerTile: number;
  /** Tiles of one image, the thumbnail among them. */
  readonly maxTiles: number;
  /** Width after pixel shuffle. */
  readonly projectorInput: number;
  readonly projectorHidden: number;
  readonly hasProjectorBias: boolean;
}

export type StoredType = 'float32' | 'bfloat16' | 'float16';

export interface ModelShape {
  readonly architecture: string;
  readonly storedType: StoredType;
  readonly language: LanguageShape;
  readonly vision: VisionShape | undefined;
  readonly parameters: {
    readonly language: number;
    readonly vision: number;
    readonly projector: number;
    readonly total: number;
  };
}

/** A config that no size can be computed from; the message names the key. */
export class ShapeError extends Error {
  readonly code = 'MODEL_CONFIG_INVALID';
}

type Config = Readonly<Record<string, unknown>>;

const LANGUAGE_MODELS = new Set(['llama', 'qwen2']);
/** model_type of the whole, and what its projector is like: width and bias. */
const VISION_MODELS: ReadonlyMap<string, { readonly isInternVL: boolean }> = new Map([
  ['NVLM_D', { isInternVL: false }],
  ['internvl_chat', { isInternVL: true }],
]);

/** Llama, Qwen2, NVLM-D and InternVL configs. Throws ShapeError for others and for missing keys. */
export function readModelShape(config: unknown): ModelShape {
  const whole = object(config, 'config');
  const modelType = string(whole, 'model_type', 'config');
  const combined = VISION_MODELS.get(modelType);
  if (combined === undefined) {
    const language = readLanguage(whole, 'config');
    return withParameters(modelType, storedType(whole), language, undefined);
  }
  const key = whole.llm_config === undefined ? 'text_config' : 'llm_config';
  const text = object(whole[key], key);
  const language = readLanguage(text, key);
  const vision = readVision(whole, language, combined.isInternVL);
  return withParameters(modelType, storedType(whole, text), language, vision);
}

function readLanguage(config: Config, path: string): LanguageShape {
  const modelType = string(config, 'model_type', path);
  if (!LANGUAGE_MODELS.has(modelType)) {
    throw new ShapeError(
      `${path}.model_type is '${modelType}'; expected ${[...LANGUAGE_MODELS].join(' or ')}, or a config of ${[...VISION_MODELS.keys()].join(' or ')}`,
    );
  }
  const heads = count(config, 'num_attention_heads', path);
  const hiddenSize = count(config, 'hidden_size', path);
  return {
    layers: count(config, 'num_hidden_layers', path),
    hiddenSize,
    intermediateSize: count(config, 'intermediate_size', path),
    heads,
    kvHeads: count(config, 'num_key_value_heads', path, heads),
    headSize: count(config, 'head_dim', path, hiddenSize / heads),
    vocabularySize: count(config, 'vocab_size', path),
    maxPositions: count(config, 'max_position_embeddings', path),
    hasAttentionBias: modelType === 'qwen2' || config.attention_bias === true,
    hasOutputBias: modelType === 'llama' && config.attention_bias === true,
    hasMlpBias: modelType === 'llama' && config.mlp_bias === true,
    tiesEmbeddings: config.tie_word_embeddings === true,
  };
}

function readVision(whole: Config, language: LanguageShape, isInternVL: boolean): VisionShape {
  const config = object(whole.vision_config, 'vision_config');
  const path = 'vision_config';
  const hiddenSize = count(config, 'hidden_size', path);
  const realHeads = count(config, 'num_attention_heads', path);
  const imageSize = count(whole, 'force_image_size', 'config', count(config, 'image_size', path));
  const patchSize = count(config, 'patch_size', path);
  const ratio = Number(whole.downsample_ratio ?? 0.5);
  // The config does not tell them; NVLM-D-72B stores its 25 heads as 32, by the published number of parameters.
  const isPadded = !isInternVL && realHeads === 25;
  const dummyHeads = Number(config.num_dummy_heads ?? (isPadded ? 7 : 0));
  return {
    layers: count(config, 'num_hidden_layers', path),
    hiddenSize,
    intermediateSize: count(config, 'intermediate_size', path),
    heads: realHeads + dummyHeads,
    headSize: hiddenSize / realHeads,
    imageSize,
    patchSize,
    hasQkvBias: config.qkv_bias === true,
    hasQkNorm: config.qk_normalization !== false,
    hasNormBias: config.norm_type === 'layer_norm',
    tokensPerTile: Math.trunc((imageSize / patchSize) ** 2 * ratio ** 2),
    maxTiles:
      count(whole, 'max_dynamic_patch', 'config', 1) + (whole.use_thumbnail === true ? 1 : 0),
    projectorInput: Math.trunc(hiddenSize / ratio ** 2),
    projectorHidden: isInternVL ? language.hiddenSize : language.intermediateSize,
    hasProjectorBias: isInternVL,
  };
}

/** Elements of all tensors of the language model. */
export function languageParameters(shape: LanguageShape): number {
  const { hiddenSize, layers, tiesEmbeddings } = shape;
  return (
    tableParameters(shape) * (tiesEmbeddings ? 1 : 2) + layers * layerParameters(shape) + hiddenSize
  );
}

/** What the first of `tensor` ranks has of `total`: no other has more. */
export const largestShare = (total: number, tensor: number): number => Math.ceil(total / tensor);

/** Elements of the embedding, or of the head, on the first of `tensor` ranks. */
export function tableParameters(shape: LanguageShape, tensor = 1): number {
  return largestShare(shape.vocabularySize, tensor) * shape.hiddenSize;
}

/** Elements of one layer of the language model, on the first of `tensor` ranks. With more ranks than key-value heads each has one. */
export function layerParameters(shape: LanguageShape, tensor = 1): number {
  const { hiddenSize, heads, kvHeads, headSize } = shape;
  const query = largestShare(heads, tensor) * headSize;
  const keyAndValue = 2 * largestShare(kvHeads, tensor) * headSize;
  const inner = largestShare(shape.intermediateSize, tensor);
  const attention = hiddenSize * (query + keyAndValue) + query * hiddenSize;
  const biases =
    (shape.hasAttentionBias ? query + keyAndValue : 0) +
    (shape.hasOutputBias ? hiddenSize : 0) +
    (shape.hasMlpBias ? 2 * inner + hiddenSize : 0);
  return attention + biases + 3 * hiddenSize * inner + 2 * hiddenSize;
}

/** Elements of the class embedding and of the position embeddings. */
export function positionParameters({ hiddenSize, imageSize, patchSize }: VisionShape): number {
  return hiddenSize + ((imageSize / patchSize) ** 2 + 1) * hiddenSize;
}

/** Elements of the vision model on the first of `tensor` ranks; every rank has all embeddings. */
export function visionParameters(shape: VisionShape, tensor = 1): number {
  const { layers, hiddenSize, patchSize } = shape;
  const width = largestShare(shape.heads, tensor) * shape.headSize;
  const inner = largestShare(shape.intermediateSize, tensor);
  const embeddings = positionParameters(shape) + hiddenSize * 3 * patchSize ** 2 + hiddenSize;
  const attention =
    3 * width * hiddenSize +
    (shape.hasQkvBias ? 3 * width : 0) +
    (shape.hasQkNorm ? 2 * width : 0) +
    hiddenSize * width +
    hiddenSize;
  const mlp = 2 * hiddenSize * inner + inner + hiddenSize;
  const norms = (shape.hasNormBias ? 4 : 2) * hiddenSize;
  const layerScales = 2 * hiddenSize;
  return embeddings + layers * (attention + mlp + norms + layerScales);
}

/** Elements of the projector on the first of `tensor` ranks. */
export function projectorParameters(
  vision: VisionShape,
  language: LanguageShape,
  tensor = 1,
): number {
  const { projectorInput, hasProjectorBias } = vision;
  const hidden = largestShare(vision.projectorHidden, tensor);
  const biases = hasProjectorBias ? hidden + language.hiddenSize : 0;
  return 2 * projectorInput + projectorInput * hidden + hidden * language.hiddenSize + biases;
}

function withParameters(
  architecture: string,
  stored: StoredType,
  language: LanguageShape,
  vision: VisionShape | undefined,
): ModelShape {
  const parts = {
    language: languageParameters(language),
    vision: vision === undefined ? 0 : visionParameters(vision),
    projector: vision === undefined ? 0 : projectorParameters(vision, language),
  };
  return {
    architecture,
    storedType: stored,
    language,
    vision,
    parameters: { ...parts, total: parts.language + parts.vision + parts.projector },
  };
}

function storedType(...configs: readonly Config[]): StoredType {
  const [name] = configs.flatMap((config) => config.torch_dtype ?? config.dtype ?? []);
  return name === 'float32' || name === 'float16' ? name : 'bfloat16';
}

function object(value: unknown, path: string): Config {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Config;
  throw new ShapeError(`${path} is missing or no object`);
}

function string(config: Config, key: string, path: string): string {
  const value = config[key];
  if (typeof value === 'string') return value;
  throw new ShapeError(`${path}.${key} is ${JSON.stringify(value)}; expected a text`);
}

/** Throws for what no dimension can be; the bounds keep products within exact integers. */
function count(config: Config, key: string, path: string, fallback?: number): number {
  const value = config[key] ?? fallback;
  if (Number.isSafeInteger(value) && Number(value) >= 1 && Number(value) <= 2 ** 24)
    return Number(value);
  throw new ShapeError(
    `${path}.${key} is ${JSON.stringify(value)}; expected a whole number from 1 to ${2 ** 24}`,
  );
}
