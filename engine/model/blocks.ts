/** The parts that decoders are recorded from. How they are divided between ranks is said here, once for all models. */
import type { TensorId } from '#kernels/program.ts';
import type { ConfigReader } from './config.ts';
import type { ProgramShape, Recorder } from './recorder.ts';
import { type Rope, readRope } from './rope.ts';
import { recordAllGather, recordAllReduce, recordRowParallel } from './tensor-parallel.ts';
import { type Range, scaled } from './weight-slices.ts';

/** Sizes of a decoder with rotary grouped-query attention and a gated MLP, all from its config. */
export interface DecoderShape {
  readonly layers: number;
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  readonly vocabularyRows: number;
  readonly eps: number;
  readonly isTied: boolean;
  readonly rope: Rope;
}

/** Far beyond any model: a hostile config must not make the recorder run for hours. */
const MAX_LAYERS = 4096;
const MAX_HEAD_SIZE = 65_536;

/** Reads the sizes and refuses what no decoder here does: other activations, sliding windows, quantisation methods. */
export function readDecoderShape(config: ConfigReader): DecoderShape {
  if (config.text('hidden_act', 'silu') !== 'silu') config.unsupported('hidden_act', 'silu');
  if (config.raw('quantization_config') !== undefined) {
    config.unsupported('quantization_config', 'plain fp32, fp16 and bf16 weights, or a GGUF file');
  }
  const hiddenSize = config.count('hidden_size');
  const heads = config.count('num_attention_heads');
  const kvHeads = config.count('num_key_value_heads', heads);
  const headSize = config.count('head_dim', hiddenSize / heads);
  if (heads % kvHeads !== 0) config.invalid('num_key_value_heads', `a divisor of ${heads}`);
  if (headSize % 2 !== 0 || headSize > MAX_HEAD_SIZE) {
    config.invalid('head_dim', `even and at most ${MAX_HEAD_SIZE}`);
  }
  const layers = config.count('num_hidden_layers');
  if (layers > MAX_LAYERS) config.invalid('num_hidden_layers', `at most ${MAX_LAYERS}`);
  return {
    layers,
    hiddenSize,
    intermediateSize: config.count('intermediate_size'),
    heads,
    kvHeads,
    headSize,
    vocabularyRows: config.count('vocab_size'),
    eps: config.positive('rms_norm_eps'),
    isTied: config.flag('tie_word_embeddings', false),
    rope: readRope(config, headSize),
  };
}

/** Refuses a config of which any layer attends through a sliding window. `defaultUse` is the class's own default. */
export function refuseSlidingWindow(config: ConfigReader, defaultUse: boolean): void {
  const layerTypes = config.raw('layer_types');
  if (Array.isArray(layerTypes) && layerTypes.some((type) => type !== 'full_attention')) {
    config.unsupported('layer_types', 'full_attention in every layer');
  }
  const isUsed = config.flag('use_sliding_window', defaultUse);
  if (!isUsed || config.raw('sliding_window') === undefined) return;
  const layers = config.count('num_hidden_layers');
  if (config.raw('max_window_layers') !== undefined) {
    // Layers below this number attend fully.
    if (config.raw('max_window_layers') === layers) return;
  }
  config.unsupported('sliding_window', 'full attention (use_sliding_window: false)');
}

/** What one rank has of every layer: whole heads with the key and value heads they attend to, and a part of the MLP. */
interface DecoderShare {
  readonly heads: Range;
  readonly kvHeads: Range;
  readonly inner: Range;
  readonly vocabulary: Range;
}

/**
 * Query heads are divided evenly. Key and value heads too, or, with more ranks than them, each is on as many ranks as there are to
 * one. MLP and vocabulary are divided as evenly as they go.
 */
function decoderShare(recorder: Recorder, shape: DecoderShape): DecoderShare {
  const { heads, kvHeads } = shape;
  const { index, count } = recorder.rank;
  if (heads % count !== 0) recorder.refuseSplit(`it does not divide the ${heads} attention heads`);
  if (kvHeads % count !== 0 && count % kvHeads !== 0)
    recorder.refuseSplit(
      `it neither divides the ${kvHeads} key-value heads nor is a multiple of them`,
    );
  return {
    heads: recorder.share('attention heads', heads),
    kvHeads:
      count > kvHeads
        ? { begin: Math.floor((index * kvHeads) / count), count: 1 }
        : recorder.share('key-value heads', kvHeads),
    inner: recorder.share(
      'intermediate size',
      shape.intermediateSize,
      recorder.blockLengthOf('mlp.down_proj.weight'),
    ),
    vocabulary: recorder.share('vocabulary', shape.vocabularyRows),
  };
}

/** The sizes of the rank's program. */
export function rankShape(shape: DecoderShape, { share }: DecoderBuffers): ProgramShape {
  return { ...shape, heads: share.heads.count, kvHeads: share.kvHeads.count };
}

/** Which linears of a layer carry a bias. */
export interface BiasFlags {
  readonly qkv: boolean;
  readonly output: boolean;
  readonly mlp: boolean;
}

/**
 * The pre-norm decoder layers, each in place on the residual stream `hidden` (T, H):
 * hidden += o(attention(rope(qkv(norm(hidden))))); hidden += down(silu(gate(norm(hidden))) * up(norm(hidden))).
 * Tensor names and shapes are those of Hugging Face's Llama and Qwen2 classes. Returns the rows of the last layer, (L, ...).
 */
export function recordDecoderLayers(
  recorder: Recorder,
  shape: DecoderShape,
  bias: BiasFlags,
  buffers: DecoderBuffers,
): RowBuffers {
  let rows: RowBuffers = buffers;
  for (let layer = 0; layer < shape.layers; layer++) {
    rows = recordDecoderLayer(recorder, shape, layer, bias, buffers);
  }
  return rows;
}

/** Returns the rows that went on from the attention. */
function recordDecoderLayer(
  recorder: Recorder,
  shape: DecoderShape,
  layer: number,
  bias: BiasFlags,
  buffers: DecoderBuffers,
): RowBuffers {
  const { hiddenSize: H, intermediateSize: F, headSize: D, eps } = shape;
  const { qkv, share } = buffers;
  const at = `model.layers.${layer}`;
  const norm = ({ hidden, normed }: RowBuffers, name: string): void =>
    recorder.push({
      op: 'rmsNorm',
      x: hidden,
      weight: recorder.weight(`${at}.${name}.weight`, [H]),
      eps,
      out: normed,
    });
  // [rows, H], of which the rank has some rows.
  type ColumnParallel = readonly [name: string, rows: number, share: Range];
  const columnParallel = (hasBias: boolean, ...linears: ColumnParallel[]) => ({
    weights: linears.map(([name, rows, part]) =>
      recorder.weight(`${at}.${name}.weight`, [rows, H], { rows: part }),
    ),
    ...(hasBias && {
      biases: linears.map(([name, rows, part]) =>
        recorder.weight(`${at}.${name}.bias`, [rows], { rows: part }),
      ),
    }),
  });
  const qRows = shape.heads * D;
  const kvRows = shape.kvHeads * D;
  const qShare = scaled(share.heads, D);
  const kvShare = scaled(share.kvHeads, D);

  norm(buffers, 'input_layernorm');
  recorder.push({
    op: 'linear',
    x: buffers.normed,
    ...columnParallel(
      bias.qkv,
      ['self_attn.q_proj', qRows, qShare],
      ['self_attn.k_proj', kvRows, kvShare],
      ['self_attn.v_proj', kvRows, kvShare],
    ),
    epilogue: 'none',
    out: qkv,
  });
  recorder.push({ op: 'ropeAndCache', qkv, layer, rope: shape.rope });
  recorder.push({ op: 'attention', qkv, layer, scale: D ** -0.5, out: buffers.attended });
  // Behind the last keys and values only the wanted rows count: one of a prompt, none of a chunk within it.
  const isLast = layer === shape.layers - 1;
  const rows = isLast ? recordWantedRows(recorder, shape, buffers) : buffers;
  // [H, columns], of which the rank has some columns; added to the residual stream.
  const rowParallel = (x: TensorId, name: string, columns: number, part: Range, hasBias: boolean) =>
    recordRowParallel(recorder, {
      x,
      weight: recorder.weight(`${at}.${name}.weight`, [H, columns], { columns: part }),
      ...(hasBias && { bias: [`${at}.${name}.bias`, H] }),
      residual: rows.hidden,
      out: rows.hidden,
    });
  rowParallel(rows.attended, 'self_attn.o_proj', qRows, qShare, bias.output);
  norm(rows, 'post_attention_layernorm');
  recorder.push({
    op: 'linear',
    x: rows.normed,
    ...columnParallel(bias.mlp, ['mlp.gate_proj', F, share.inner], ['mlp.up_proj', F, share.inner]),
    epilogue: 'siluMul',
    out: rows.gated,
  });
  rowParallel(rows.gated, 'mlp.down_proj', F, share.inner, bias.mlp);
  return rows;
}

/** The wanted rows of what the attention of the last layer leaves. */
function recordWantedRows(
  recorder: Recorder,
  { headSize, hiddenSize }: DecoderShape,
  { hidden, attended, share }: DecoderBuffers,
): RowBuffers {
  const tensor = (name: string, width: number) => recorder.tensor(name, 'logitRows', width);
  const rows = {
    hidden: tensor('lastHidden', hiddenSize),
    normed: tensor('lastNormed', hiddenSize),
    attended: tensor('lastAttended', share.heads.count * headSize),
    gated: tensor('lastGated', share.inner.count),
  };
  recorder.push({ op: 'gatherRows', x: hidden, out: rows.hidden });
  recorder.push({ op: 'gatherRows', x: attended, out: rows.attended });
  return rows;
}

/** Activations from the attention of a layer on; R rows, which are T in all layers but the last. */
export interface RowBuffers {
  /** (R, H) residual stream */
  readonly hidden: TensorId;
  /** (R, H) */
  readonly normed: TensorId;
  /** (R, heads D), heads of the rank */
  readonly attended: TensorId;
  /** (R, the rank's part of F) */
  readonly gated: TensorId;
}

/** Activations that all layers share. */
export interface DecoderBuffers extends RowBuffers {
  readonly share: DecoderShare;
  /** (T, (heads + 2 kvHeads) D), heads of the rank */
  readonly qkv: TensorId;
}

/**
 * Token ids -> residual stream: allocates the shared buffers and records the embedding, [V, H]. A rank has some rows of it and gives
 * zeros for the ids of the others.
 */
export function recordEmbedding(recorder: Recorder, shape: DecoderShape): DecoderBuffers {
  const { headSize: D, hiddenSize: H } = shape;
  const share = decoderShare(recorder, shape);
  const { heads, kvHeads, inner, vocabulary } = share;
  const buffers = {
    share,
    hidden: recorder.tensor('hidden', 'tokens', H),
    normed: recorder.tensor('normed', 'tokens', H),
    qkv: recorder.tensor('qkv', 'tokens', (heads.count + 2 * kvHeads.count) * D),
    attended: recorder.tensor('attended', 'tokens', heads.count * D),
    gated: recorder.tensor('gated', 'tokens', inner.count),
  };
  recorder.push({
    op: 'embedding',
    weight: recorder.weight('model.embed_tokens.weight', [shape.vocabularyRows, H], {
      rows: vocabulary,
    }),
    ...(recorder.rank.count > 1 && { firstRow: vocabulary.begin }),
    out: buffers.hidden,
  });
  recordAllReduce(recorder, buffers.hidden);
  if (recorder.takesInputRows) {
    const rows = recorder.tensor('imageEmbeddings', 'inputRows', H);
    recorder.push({ op: 'input', out: rows });
    recorder.push({ op: 'scatterRows', x: rows, add: false, out: buffers.hidden });
  }
  return buffers;
}

/**
 * The rows of the last layer, (L, ...), -> sampled ids: final norm, lm head (or the tied embedding). A rank computes
 * the logits of its part of the vocabulary; rank 0 samples from those of all.
 */
export function recordHead(
  recorder: Recorder,
  shape: DecoderShape,
  { hidden, normed }: RowBuffers,
  { share: { vocabulary } }: DecoderBuffers,
): void {
  const { hiddenSize: H, vocabularyRows: V } = shape;
  const { rank } = recorder;
  const part = recorder.tensor(
    rank.count > 1 ? 'logitsPart' : 'logits',
    'logitRows',
    vocabulary.count,
  );
  recorder.push({
    op: 'rmsNorm',
    x: hidden,
    weight: recorder.weight('model.norm.weight', [H]),
    eps: shape.eps,
    out: normed,
  });
  recorder.push({
    op: 'linear',
    x: normed,
    weights: [
      recorder.weight(shape.isTied ? 'model.embed_tokens.weight' : 'lm_head.weight', [V, H], {
        rows: vocabulary,
      }),
    ],
    epilogue: 'none',
    out: part,
  });
  const logits = recordAllGather(recorder, part, V);
  if (rank.index === 0) recorder.push({ op: 'sample', logits });
}

/** Rotary tables that old checkpoints carry, and the copy of the embedding that some tied ones do. */
export function isIgnoredTensor(name: string, isTied: boolean): boolean {
  return name.endsWith('.rotary_emb.inv_freq') || (isTied && name === 'lm_head.weight');
}
