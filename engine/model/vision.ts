/** The vision half of a model as one program: tiles in, embeddings for the language model out. */
import type { LoadOptions } from '#kernels/backend.ts';
import type { Program, TensorId } from '#kernels/program.ts';
import type { StepInputs, StepOutputs } from '#kernels/step.ts';
import { largestComputeType } from '#kernels/storage.ts';
import type { ConfigReader } from './config.ts';
import { ModelError } from './errors.ts';
import { isUnusedLayer, readVisionShape, recordInternVit, type VisionShape } from './intern-vit.ts';
import { firstPatches, recordProjector } from './projector.ts';
import type { Recorder } from './recorder.ts';

export const LANGUAGE_MODEL_PREFIX = 'language_model.';

/** What distinguishes the models of the InternViT family. */
export interface VisionFamily {
  readonly name: string;
  /** Content of the token whose embeddings the image's take the place of, unless the config names another; its id is looked up in the tokenizer. */
  readonly contextToken: string;
  /** Text before and after the tiles of one picture in a prompt. */
  readonly enclosure: readonly [string, string];
  /** Whether a tag with its number stands before each tile. */
  readonly tagsTiles: boolean;
  readonly projectorBiases: boolean;
  /** Width between the projector's linears. */
  readonly projectorInner: (language: ConfigReader) => number;
  readonly defaultShuffle: 'v1' | 'v2';
  readonly defaultMaxTiles: number;
}

export interface VisionModel {
  readonly program: Program;
  readonly shape: VisionShape;
  /** (T, W) output of the encoder, class token first in each tile. */
  readonly encoded: TensorId;
  /** (L, H) output of the projector. */
  readonly features: TensorId;
  /** Width of an embedding: the language model's hidden size. */
  readonly featureSize: number;
  /** Pixels per side. */
  readonly tileSize: number;
  /** Embeddings per tile, as many as context tokens stand for it. */
  readonly tokensPerTile: number;
  /** Rows of the encoder per tile. */
  readonly positionsPerTile: number;
  readonly shuffle: 'v1' | 'v2';
  readonly factor: number;
  readonly contextToken: string;
  readonly enclosure: readonly [string, string];
  readonly tagsTiles: boolean;
  readonly tiling: {
    readonly minTiles: number;
    readonly maxTiles: number;
    readonly useThumbnail: boolean;
    readonly isDynamic: boolean;
  };
}

/** Records encoder and projector from the whole checkpoint's config. */
export function recordVision(
  config: ConfigReader,
  language: ConfigReader,
  recorder: Recorder,
  family: VisionFamily,
): VisionModel {
  const visionConfig =
    config.section('vision_config') ?? config.invalid('vision_config', 'an object');
  const selectLayer = config.raw('select_layer') ?? -1;
  if (typeof selectLayer !== 'number' || !Number.isInteger(selectLayer)) {
    return config.invalid('select_layer', 'a whole number');
  }
  const hasForcedSize = config.raw('force_image_size') !== undefined;
  const shape = readVisionShape(visionConfig, {
    selectLayer,
    tileSize: hasForcedSize ? config.count('force_image_size') : undefined,
  });
  const shuffle = config.text('ps_version', family.defaultShuffle);
  if (shuffle !== 'v1' && shuffle !== 'v2') return config.unsupported('ps_version', 'v1, v2');
  const factor = 1 / config.positive('downsample_ratio', 0.5);
  if (!Number.isInteger(factor) || shape.grid % factor !== 0) {
    return config.invalid('downsample_ratio', `1 / n with n a divisor of ${shape.grid} patches`);
  }
  const featureSize = language.count('hidden_size');
  const { hidden: encoded, heads } = recordInternVit(recorder, shape);
  const features = recordProjector(recorder, encoded, {
    visionSize: shape.hiddenSize,
    grid: shape.grid,
    factor,
    innerSize: family.projectorInner(language),
    outputSize: featureSize,
    hasBiases: family.projectorBiases,
  });
  const program = recorder.finish({
    name: `${family.name} vision`,
    // Nothing is sampled: the vocabulary is the least there can be.
    shape: { heads, kvHeads: heads, layers: 1, headSize: shape.headSize, vocabularyRows: 1 },
    validTokenCount: 1,
    ignored: (name) => name.startsWith(LANGUAGE_MODEL_PREFIX) || isUnusedLayer(name, shape),
  });
  return {
    program,
    shape,
    encoded,
    features,
    featureSize,
    tileSize: shape.grid * shape.patchSize,
    tokensPerTile: (shape.grid / factor) ** 2,
    positionsPerTile: shape.grid ** 2 + 1,
    shuffle,
    factor,
    contextToken: config.text('image_context_token', family.contextToken),
    enclosure: family.enclosure,
    tagsTiles: family.tagsTiles,
    tiling: {
      minTiles: config.count('min_dynamic_patch', 1),
      maxTiles: config.count('max_dynamic_patch', family.defaultMaxTiles),
      useThumbnail: config.flag('use_thumbnail', true),
      isDynamic: config.flag('dynamic_image_size', true),
    },
  };
}

/** Tokens per block of a vision program's cache: it holds one layer of one step. */
const BLOCK_SIZE = 64;

function blocksPerTile(model: VisionModel): number {
  return Math.ceil(model.positionsPerTile / BLOCK_SIZE);
}

/** What a vision program is loaded with for steps of at most `maxTiles` tiles. */
export function visionLoadOptions(
  model: VisionModel,
  maxTiles: number,
  computeType: LoadOptions['computeType'],
): LoadOptions {
  return {
    cache: { blockSize: BLOCK_SIZE, blockCount: maxTiles * blocksPerTile(model) },
    computeType,
    // Nothing stays in it after a step: there is no memory to save.
    cacheType:
      largestComputeType(model.program, computeType) === 'float32' ? 'float32' : 'bfloat16',
    maxTokens: maxTiles * model.positionsPerTile,
    maxSequences: maxTiles,
    maxPositions: model.positionsPerTile,
  };
}

/**
 * One step over tiles of any number of images, each tile a sequence of its own. A tile is fp32 [channels, tileSize, tileSize],
 * normalised. `wantEncoded` returns the encoder's output before the embeddings.
 */
export function visionStep(
  model: VisionModel,
  tiles: readonly Float32Array[],
  options: { readonly wantEncoded?: boolean } = {},
): StepInputs {
  const { positionsPerTile, tokensPerTile } = model;
  const { grid, patchSize, channels } = model.shape;
  const tokens = tiles.length * positionsPerTile;
  const blocks = blocksPerTile(model);
  const patchWidth = channels * patchSize * patchSize;
  const patchCount = grid * grid;
  const squares = firstPatches(grid, model.factor);
  const inputRows = new Float32Array(tiles.length * patchCount * patchWidth);
  for (const [i, tile] of tiles.entries()) {
    if (tile.length !== patchCount * patchWidth)
      throw new RangeError(
        `tile ${i}: expected ${patchCount * patchWidth} values, received ${tile.length}`,
      );
    cutPatches(tile, model, inputRows.subarray(i * patchCount * patchWidth));
  }
  return {
    tokenIds: Int32Array.from({ length: tokens }, (_, t) => t % positionsPerTile),
    positions: Int32Array.from({ length: tokens }, (_, t) => t % positionsPerTile),
    slotMapping: Int32Array.from(
      { length: tokens },
      (_, t) => Math.floor(t / positionsPerTile) * blocks * BLOCK_SIZE + (t % positionsPerTile),
    ),
    cuSeqlensQ: Int32Array.from({ length: tiles.length + 1 }, (_, s) => s * positionsPerTile),
    seqLens: new Int32Array(tiles.length).fill(positionsPerTile),
    blockTables: Int32Array.from({ length: tiles.length * blocks }, (_, i) => i),
    maxBlocksPerSequence: blocks,
    logitRows: Int32Array.from(
      { length: tiles.length * tokensPerTile },
      (_, l) => Math.floor(l / tokensPerTile) * positionsPerTile + 1 + squares[l % tokensPerTile]!,
    ),
    inputRows,
    inputTargets: Int32Array.from(
      { length: tiles.length * patchCount },
      (_, r) => Math.floor(r / patchCount) * positionsPerTile + 1 + (r % patchCount),
    ),
    sampling: nothingSampled,
    wantTensors: options.wantEncoded ? [model.encoded, model.features] : [model.features],
  };
}

/** Planes to rows of (channels, patchSize, patchSize), patches in reading order. */
function cutPatches(tile: Float32Array, model: VisionModel, out: Float32Array): void {
  const { grid, patchSize, channels } = model.shape;
  const side = grid * patchSize;
  let at = 0;
  for (let patch = 0; patch < grid * grid; patch++) {
    const corner = Math.floor(patch / grid) * patchSize * side + (patch % grid) * patchSize;
    for (let channel = 0; channel < channels; channel++)
      for (let row = 0; row < patchSize; row++) {
        const from = channel * side * side + corner + row * side;
        out.set(tile.subarray(from, from + patchSize), at);
        at += patchSize;
      }
  }
}

/**
 * The embeddings of a step's tiles, (tiles * tokensPerTile, featureSize), in the order of the context tokens: rows of squares
 * from the top, or columns from the left with pixel shuffle v1, which leaves the two axes exchanged.
 */
export function visionFeatures(model: VisionModel, outputs: StepOutputs): Float32Array {
  const features = outputs.tensors!.at(-1)!;
  if (model.shuffle === 'v2') return features;
  const { featureSize, tokensPerTile } = model;
  const side = Math.sqrt(tokensPerTile);
  const out = new Float32Array(features.length);
  for (let row = 0; row < features.length / featureSize; row++) {
    const token = row % tokensPerTile;
    const from = row - token + (token % side) * side + Math.floor(token / side);
    out.set(features.subarray(from * featureSize, (from + 1) * featureSize), row * featureSize);
  }
  return out;
}

/**
 * Id of the model's context token, found by its content. Throws MODEL_VOCABULARY_MISMATCH when the tokenizer does not have it:
 * image embeddings would have nowhere to go.
 */
export function findContextToken(
  model: Pick<VisionModel, 'contextToken'>,
  idOf: (content: string) => number | undefined,
): number {
  const id = idOf(model.contextToken);
  if (id !== undefined) return id;
  throw new ModelError(
    'MODEL_VOCABULARY_MISMATCH',
    `the tokenizer has no token ${model.contextToken}, which stands for images in the prompts of this model; ` +
      'use the tokenizer files that belong to these weights',
  );
}

/** Rows of a step whose embeddings come from images: where `contextId` stands. Ascending. */
export function contextRows(tokenIds: ArrayLike<number>, contextId: number): Int32Array {
  return Int32Array.from(
    Array.from(tokenIds).flatMap((id, row) => (id === contextId ? [row] : [])),
  );
}

const noFloats = new Float32Array(0);
const noInts = new Int32Array(0);
const noWords = new Uint32Array(0);
const nothingSampled: StepInputs['sampling'] = {
  temperature: noFloats,
  topK: noInts,
  topP: noFloats,
  minP: noFloats,
  repetitionPenalty: noFloats,
  presencePenalty: noFloats,
  frequencyPenalty: noFloats,
  seed: noWords,
  position: noWords,
  seenOffsets: new Int32Array(1),
  seenIds: noInts,
  seenCounts: noInts,
  biasOffsets: new Int32Array(1),
  biasIds: noInts,
  biasValues: noFloats,
  logprobs: noInts,
};
