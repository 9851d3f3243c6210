/** InternViT, the vision encoder of NVLM-D and InternVL: patches -> encoder output, class token included. */
import type { TensorId, WeightSource } from '#kernels/program.ts';
import { readWeight } from '#kernels/reference/weights.ts';
import type { ConfigReader } from './config.ts';
import { resamplePositions } from './positions.ts';
import type { Recorder } from './recorder.ts';
import { recordAllReduce, recordRowParallel } from './tensor-parallel.ts';
import { floatWeight, isZero, type Range, reshaped, scaled, slice } from './weight-slices.ts';

/** Sizes from `vision_config`; the tensors tell how many heads are stored. */
export interface VisionShape {
  /** Layers that are run: `select_layer` may name one before the last. */
  readonly layers: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  /** Heads that count; a checkpoint may store more, padded with dummies. */
  readonly realHeads: number;
  readonly headSize: number;
  readonly channels: number;
  readonly patchSize: number;
  /** Patches per side of a tile. */
  readonly grid: number;
  /** Patches per side that the stored position embeddings are for. */
  readonly storedGrid: number;
  readonly norm: 'rms_norm' | 'layer_norm';
  readonly eps: number;
  readonly qkvBias: boolean;
  readonly normalisesQueriesAndKeys: boolean;
}

const MAX_LAYERS = 4096;

/** `selectLayer` as in hidden_states[selectLayer]: -1 is the last layer's output, 0 the embeddings. */
export function readVisionShape(
  config: ConfigReader,
  options: { readonly selectLayer: number; readonly tileSize: number | undefined },
): VisionShape {
  if (config.text('hidden_act', 'gelu') !== 'gelu') config.unsupported('hidden_act', 'gelu');
  const norm = config.text('norm_type', 'rms_norm');
  if (norm !== 'rms_norm' && norm !== 'layer_norm') {
    return config.unsupported('norm_type', 'rms_norm, layer_norm');
  }
  const hiddenSize = config.count('hidden_size');
  const realHeads = config.count('num_attention_heads');
  if (hiddenSize % realHeads !== 0)
    config.invalid('num_attention_heads', `a divisor of ${hiddenSize}`);
  const patchSize = config.count('patch_size');
  const imageSize = config.count('image_size');
  const tileSize = options.tileSize ?? imageSize;
  if (imageSize % patchSize !== 0 || tileSize % patchSize !== 0) {
    config.invalid('patch_size', `a divisor of ${imageSize} and ${tileSize}`);
  }
  const allLayers = config.count('num_hidden_layers');
  if (allLayers > MAX_LAYERS) config.invalid('num_hidden_layers', `at most ${MAX_LAYERS}`);
  const { selectLayer } = options;
  const layers = selectLayer < 0 ? allLayers + 1 + selectLayer : selectLayer;
  if (layers < 0 || layers > allLayers) {
    config.invalid('num_hidden_layers', `enough for select_layer ${selectLayer}`);
  }
  return {
    layers,
    hiddenSize,
    intermediateSize: config.count('intermediate_size'),
    realHeads,
    headSize: hiddenSize / realHeads,
    channels: config.count('num_channels', 3),
    patchSize,
    grid: tileSize / patchSize,
    storedGrid: imageSize / patchSize,
    norm,
    eps: config.positive('layer_norm_eps', 1e-6),
    qkvBias: config.flag('qkv_bias', false),
    normalisesQueriesAndKeys: config.flag('qk_normalization', true),
  };
}

/** What `recordInternVit` recorded. */
export interface RecordedEncoder {
  /** (T, hidden): the selected layer's output, class token first in each tile. */
  readonly hidden: TensorId;
  /** Heads of the rank's program, of the real ones, or of all stored ones where the dummies are not zero. */
  readonly heads: number;
}

const EMBEDDINGS = 'vision_model.embeddings';

/**
 * Records the encoder. A step's tokens are the positions 0 .. grid^2 of one tile after another, position 0 the class token; its
 * input rows are the patches, (channels, patchSize, patchSize) each, scattered to the positions they stand at.
 *
 * Tensors, W = hidden_size, F = intermediate_size, A = stored heads * head size, P = patch_size, C = num_channels, G = patches
 * per side, N = 0 .. num_hidden_layers - 1:
 *
 *     vision_model.embeddings.class_embedding                       [1, 1, W]
 *     vision_model.embeddings.patch_embedding.weight                [W, C, P, P]   .bias [W]
 *     vision_model.embeddings.position_embedding                    [1, G^2 + 1, W]
 *     vision_model.encoder.layers.N.norm1.weight, norm2             [W]            .bias with layer_norm
 *     vision_model.encoder.layers.N.attn.qkv.weight                 [3 A, W]       .bias if qkv_bias
 *     vision_model.encoder.layers.N.attn.q_norm.weight, k_norm      [A]            if qk_normalization
 *     vision_model.encoder.layers.N.attn.proj.weight                [W, A]         .bias [W]
 *     vision_model.encoder.layers.N.mlp.fc1.weight                  [F, W]         .bias [F]
 *     vision_model.encoder.layers.N.mlp.fc2.weight                  [W, F]         .bias [W]
 *     vision_model.encoder.layers.N.ls1, ls2                        [W]
 */
export function recordInternVit(recorder: Recorder, shape: VisionShape): RecordedEncoder {
  const { hiddenSize: W, headSize: D } = shape;
  const stored = countStoredHeads(recorder, shape);
  const kept = dummiesAreZero(recorder, shape, stored) ? shape.realHeads : stored;
  const share = {
    storedHeads: stored,
    heads: recorder.share('heads of the vision encoder', kept),
    inner: recorder.share(
      'intermediate size of the vision encoder',
      shape.intermediateSize,
      recorder.blockLengthOf('mlp.fc2.weight'),
    ),
  };
  const heads = share.heads.count;
  const hidden = recorder.tensor('hidden', 'tokens', W);
  const buffers: EncoderBuffers = {
    hidden,
    normed: recorder.tensor('normed', 'tokens', W),
    qkv: recorder.tensor('qkv', 'tokens', 3 * heads * D),
    attended: recorder.tensor('attended', 'tokens', heads * D),
    activated: recorder.tensor('activated', 'tokens', share.inner.count),
    ...(shape.normalisesQueriesAndKeys &&
      recorder.rank.count > 1 && { squares: recorder.tensor('squaresOfHeads', 'tokens', 2) }),
  };
  recordPatches(recorder, shape, hidden);
  for (let layer = 0; layer < shape.layers; layer++) {
    recordEncoderLayer(recorder, shape, layer, share, buffers);
  }
  return { hidden, heads };
}

/** Tensors of encoder layers behind the selected one, which are not run. */
export function isUnusedLayer(name: string, shape: VisionShape): boolean {
  const match = /^vision_model\.encoder\.layers\.(\d+)\./.exec(name);
  return match !== null && Number(match[1]) >= shape.layers;
}

function recordPatches(recorder: Recorder, shape: VisionShape, hidden: TensorId): void {
  const { hiddenSize: W, channels, patchSize } = shape;
  const patchWidth = channels * patchSize * patchSize;
  const convolution = recorder.source(`${EMBEDDINGS}.patch_embedding.weight`, [
    W,
    channels,
    patchSize,
    patchSize,
  ]);
  const patches = recorder.tensor('patches', 'inputRows', patchWidth);
  const embedded = recorder.tensor('embeddedPatches', 'inputRows', W);
  recorder.push({
    op: 'embedding',
    weight: recorder.derived(positionTable(recorder, shape)),
    out: hidden,
  });
  recorder.push({ op: 'input', out: patches });
  // A convolution whose stride is its size is a linear over the patches.
  recorder.push({
    op: 'linear',
    x: patches,
    weights: [recorder.derived(convolution && reshaped(convolution, [W, patchWidth]))],
    biases: [recorder.weight(`${EMBEDDINGS}.patch_embedding.bias`, [W])],
    epilogue: 'none',
    out: embedded,
  });
  recorder.push({ op: 'scatterRows', x: embedded, add: true, out: hidden });
}

/** [grid^2 + 1, W]: what is added at each position; row 0 carries the class embedding too. */
function positionTable(recorder: Recorder, shape: VisionShape): WeightSource | undefined {
  const { hiddenSize: W, grid, storedGrid } = shape;
  const classToken = recorder.source(`${EMBEDDINGS}.class_embedding`, [1, 1, W]);
  const positions = recorder.source(`${EMBEDDINGS}.position_embedding`, [
    1,
    storedGrid ** 2 + 1,
    W,
  ]);
  if (!classToken || !positions) return undefined;
  const stored = readWeight(positions);
  const table = new Float32Array((grid ** 2 + 1) * W);
  readWeight(classToken).forEach((value, i) => {
    table[i] = value + stored[i]!;
  });
  table.set(resamplePositions(stored.subarray(W), storedGrid, grid, W), W);
  return floatWeight('vision_model.embeddings.positions', [grid ** 2 + 1, W], table);
}

const layerName = (layer: number): string => `vision_model.encoder.layers.${layer}`;

/** From the shape of the first layer's fused projection; the config knows nothing of padding. */
function countStoredHeads(recorder: Recorder, shape: VisionShape): number {
  const rows = recorder.shapeOf(`${layerName(0)}.attn.qkv.weight`)?.[0] ?? 0;
  const heads = rows / 3 / shape.headSize;
  return Number.isInteger(heads) && heads > shape.realHeads ? heads : shape.realHeads;
}

/**
 * Whether the heads beyond the real ones give nothing in any layer, so that they can be left out: their values are zero, or what
 * the projection multiplies them by is. Their queries and keys then do not matter, and the norms never count them.
 */
function dummiesAreZero(recorder: Recorder, shape: VisionShape, storedHeads: number): boolean {
  const { hiddenSize: W, headSize: D, realHeads } = shape;
  const padding = (storedHeads - realHeads) * D;
  if (padding === 0) return true;
  const stored = storedHeads * D;
  const rows = { begin: 2 * stored + realHeads * D, count: padding };
  for (let layer = 0; layer < shape.layers; layer++) {
    const at = `${layerName(layer)}.attn`;
    const values = [recorder.source(`${at}.qkv.weight`, [3 * stored, W])];
    if (shape.qkvBias) values.push(recorder.source(`${at}.qkv.bias`, [3 * stored]));
    if (!values.every((value) => value && isZero(slice(value, { rows })))) return false;
  }
  return true;
}

interface EncoderBuffers {
  /** (T, W) residual stream */
  readonly hidden: TensorId;
  /** (T, W) */
  readonly normed: TensorId;
  /** (T, 3 heads D), heads of the rank */
  readonly qkv: TensorId;
  /** (T, heads D) */
  readonly attended: TensorId;
  /** (T, the rank's part of F) */
  readonly activated: TensorId;
  /** (T, 2), where a norm runs over the heads of several ranks */
  readonly squares?: TensorId;
}

/** What one rank has of every layer. */
interface EncoderShare {
  /** Heads of a fused tensor of the checkpoint, dummies among them. */
  readonly storedHeads: number;
  /** As even as they go: of 25 heads on 8 ranks the first has 4, the others 3. */
  readonly heads: Range;
  readonly inner: Range;
}

/**
 * hidden += ls1 * proj(attention(qkv(norm1(hidden)))); hidden += ls2 * fc2(gelu(fc1(norm2(hidden)))). Attention sees the whole
 * tile. All layers share cache layer 0: keys and values live for one layer only.
 */
function recordEncoderLayer(
  recorder: Recorder,
  shape: VisionShape,
  layer: number,
  share: EncoderShare,
  buffers: EncoderBuffers,
): void {
  const { hiddenSize: W, intermediateSize: F, headSize: D, eps } = shape;
  const { hidden, normed, qkv, attended, activated } = buffers;
  const at = layerName(layer);
  const stored = share.storedHeads * D;
  const heads = scaled(share.heads, D);
  const weight = (name: string, ...sizes: number[]) => recorder.weight(`${at}.${name}`, sizes);
  const norm = (name: string): void => {
    const fields = { x: hidden, weight: weight(`${name}.weight`, W), eps, out: normed };
    recorder.push(
      shape.norm === 'rms_norm'
        ? { op: 'rmsNorm', ...fields }
        : { op: 'layerNorm', ...fields, bias: weight(`${name}.bias`, W) },
    );
  };
  // The rank's heads of each third of a fused tensor.
  const thirds = (name: string, ...rest: number[]) =>
    [0, 1, 2].map((part) =>
      recorder.weight(`${at}.${name}`, [3 * stored, ...rest], {
        rows: { begin: part * stored + heads.begin, count: heads.count },
      }),
    );

  norm('norm1');
  recorder.push({
    op: 'linear',
    x: normed,
    weights: thirds('attn.qkv.weight', W),
    ...(shape.qkvBias && { biases: thirds('attn.qkv.bias') }),
    epilogue: 'none',
    out: qkv,
  });
  if (shape.normalisesQueriesAndKeys) recordHeadNorms(recorder, shape, at, share, buffers);
  recorder.push({ op: 'ropeAndCache', qkv, layer: 0 });
  recorder.push({ op: 'attention', qkv, layer: 0, scale: D ** -0.5, causal: false, out: attended });
  recordRowParallel(recorder, {
    x: attended,
    weight: recorder.weight(`${at}.attn.proj.weight`, [W, stored], { columns: heads }),
    bias: [`${at}.attn.proj.bias`, W],
    scale: weight('ls1', W),
    residual: hidden,
    out: hidden,
  });
  norm('norm2');
  const rows = share.inner;
  recorder.push({
    op: 'linear',
    x: normed,
    weights: [recorder.weight(`${at}.mlp.fc1.weight`, [F, W], { rows })],
    biases: [recorder.weight(`${at}.mlp.fc1.bias`, [F], { rows })],
    epilogue: 'gelu',
    out: activated,
  });
  recordRowParallel(recorder, {
    x: activated,
    weight: recorder.weight(`${at}.mlp.fc2.weight`, [W, F], { columns: rows }),
    bias: [`${at}.mlp.fc2.bias`, W],
    scale: weight('ls2', W),
    residual: hidden,
    out: hidden,
  });
}

/** Norms of queries and keys over all heads: the ranks add up what each knows of the squares, those of real heads. */
function recordHeadNorms(
  recorder: Recorder,
  shape: VisionShape,
  at: string,
  share: EncoderShare,
  { qkv, squares }: EncoderBuffers,
): void {
  const { hiddenSize: W, headSize: D, realHeads } = shape;
  const { begin, count } = share.heads;
  const weight = (name: string) =>
    recorder.weight(`${at}.attn.${name}.weight`, [share.storedHeads * D], {
      rows: scaled(share.heads, D),
    });
  if (squares !== undefined) {
    const width = Math.max(0, Math.min(begin + count, realHeads) - begin) * D;
    recorder.push({ op: 'queryKeySquares', qkv, width, out: squares });
    recordAllReduce(recorder, squares);
  }
  recorder.push({
    op: 'queryKeyNorm',
    qkv,
    queryWeight: weight('q_norm'),
    keyWeight: weight('k_norm'),
    meanWidth: W,
    eps: shape.eps,
    ...(squares !== undefined && { squares }),
  });
}
