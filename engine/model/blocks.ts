/** The parts that models are recorded from, and the table of tensors that a checkpoint must have. */
import type {
  Op,
  Program,
  TensorId,
  TensorSpec,
  WeightId,
  WeightSource,
} from '#kernels/program.ts';
import type { ConfigReader } from './config.ts';
import { ModelError } from './errors.ts';
import { type Rope, readRope } from './rope.ts';

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

/** What a program needs of a model's sizes. */
export type ProgramShape = Pick<
  DecoderShape,
  'heads' | 'layers' | 'kvHeads' | 'headSize' | 'vocabularyRows'
>;

/** Collects weights, activation tensors and ops while a model file names them in the order of the paper. */
export interface Recorder {
  /** Takes a checkpoint tensor; missing and mis-shaped ones are reported together by `finish`. */
  weight(name: string, shape: readonly number[]): WeightId;
  /** Like `weight`, for a tensor that is not recorded as it is; undefined when missing or mis-shaped. */
  source(name: string, shape: readonly number[]): WeightSource | undefined;
  /** Shape of a checkpoint tensor, undefined when there is none: what it tells is not in the config. */
  shapeOf(name: string): readonly number[] | undefined;
  /** Records a weight made from `source`s; a placeholder when there was nothing to make it from. */
  derived(weight: WeightSource | undefined): WeightId;
  /** Whether rows of the residual stream come from outside, in place of the embeddings of their tokens. */
  readonly takesInputRows: boolean;
  tensor(name: string, rows: TensorSpec['rows'], width: number): TensorId;
  push(op: Op): void;
  /** The recorded program. Throws MODEL_TENSORS_MISMATCH with every missing, unexpected and mis-shaped tensor. */
  finish(fields: {
    readonly name: string;
    readonly shape: ProgramShape;
    readonly validTokenCount: number;
    /** Tensors that may be there and are not used. */
    readonly ignored: (name: string) => boolean;
  }): Program;
}

/** Records from `tensors`, whose names all carry `prefix`; tensors outside the prefix are not looked at. */
export function createRecorder(
  tensors: ReadonlyMap<string, WeightSource>,
  prefix: string,
  where: string,
  takesInputRows = false,
): Recorder {
  const weights: WeightSource[] = [];
  const used = new Set<string>();
  const weightIds = new Map<string, WeightId>();
  const specs: TensorSpec[] = [];
  const ops: Op[] = [];
  const missing: string[] = [];
  const misshaped: string[] = [];
  const take = (name: string, shape: readonly number[]): WeightSource | undefined => {
    const fullName = prefix + name;
    used.add(fullName);
    const source = tensors.get(fullName);
    if (source === undefined) {
      missing.push(`${fullName} [${shape.join(', ')}]`);
      return undefined;
    }
    if (sameShape(source.shape, shape)) return source;
    misshaped.push(`${fullName} [${source.shape.join(', ')}], expected [${shape.join(', ')}]`);
    return undefined;
  };
  // The place of what is missing or mis-shaped: `finish` throws before anyone reads it.
  const placeholder: WeightSource = {
    name: '',
    type: 'f32',
    shape: [],
    bytes: { data: new Uint8Array() },
  };
  const derived = (source: WeightSource | undefined): WeightId =>
    weights.push(source ?? placeholder) - 1;
  return {
    takesInputRows,
    source: take,
    derived,
    shapeOf: (name) => tensors.get(prefix + name)?.shape,
    weight(name, shape) {
      const known = weightIds.get(name);
      if (known !== undefined) return known;
      const id = derived(take(name, shape));
      weightIds.set(name, id);
      return id;
    },
    tensor(name, rows, width) {
      specs.push({ name, rows, width });
      return specs.length - 1;
    },
    push: (op) => void ops.push(op),
    finish({ name, shape, validTokenCount, ignored }) {
      const unexpected = [...tensors]
        .filter(([full]) => full.startsWith(prefix) && !used.has(full))
        .filter(([full]) => !ignored(full.slice(prefix.length)))
        .map(([full, tensor]) => `${full} [${tensor.shape.join(', ')}]`);
      refuseMismatch(where, { missing, unexpected, misshaped });
      return {
        name,
        weights,
        tensors: specs,
        ops,
        heads: shape.heads,
        cache: { layers: shape.layers, kvHeads: shape.kvHeads, headSize: shape.headSize },
        vocabularyRows: shape.vocabularyRows,
        validTokenCount,
      };
    },
  };
}

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, index) => size === b[index]);
}

/** Names beyond this many of a kind are counted, not listed. */
const LISTED = 8;

function refuseMismatch(
  where: string,
  problems: Readonly<Record<string, readonly string[]>>,
): void {
  const parts = Object.entries(problems)
    .filter(([, names]) => names.length > 0)
    .map(([kind, names]) => {
      const more = names.length > LISTED ? ` and ${names.length - LISTED} more` : '';
      return `${kind}: ${names.slice(0, LISTED).join('; ')}${more}`;
    });
  if (parts.length === 0) return;
  throw new ModelError(
    'MODEL_TENSORS_MISMATCH',
    `${where}: the tensors are not those of the config. ${parts.join('. ')}`,
  );
}

/** Which linears of a layer carry a bias. */
export interface BiasFlags {
  readonly qkv: boolean;
  readonly output: boolean;
  readonly mlp: boolean;
}

/**
 * One pre-norm decoder layer, in place on the residual stream `hidden` (T, H):
 * hidden += o(attention(rope(qkv(norm(hidden))))); hidden += down(silu(gate(norm(hidden))) * up(norm(hidden))).
 * Tensor names and shapes are those of Hugging Face's Llama and Qwen2 classes.
 */
export function recordDecoderLayer(
  recorder: Recorder,
  shape: DecoderShape,
  layer: number,
  bias: BiasFlags,
  buffers: DecoderBuffers,
): void {
  const { hiddenSize: H, intermediateSize: F, headSize: D, eps } = shape;
  const { hidden, normed, qkv, attended, gated } = buffers;
  const at = `model.layers.${layer}`;
  const linear = (name: string, rows: number, columns: number) =>
    recorder.weight(`${at}.${name}.weight`, [rows, columns]);
  const biases = (present: boolean, ...parts: (readonly [string, number])[]) =>
    present
      ? { biases: parts.map(([name, rows]) => recorder.weight(`${at}.${name}.bias`, [rows])) }
      : {};
  const norm = (name: string): void =>
    recorder.push({
      op: 'rmsNorm',
      x: hidden,
      weight: recorder.weight(`${at}.${name}.weight`, [H]),
      eps,
      out: normed,
    });
  const qRows = shape.heads * D;
  const kvRows = shape.kvHeads * D;

  norm('input_layernorm');
  recorder.push({
    op: 'linear',
    x: normed,
    weights: [
      linear('self_attn.q_proj', qRows, H),
      linear('self_attn.k_proj', kvRows, H),
      linear('self_attn.v_proj', kvRows, H),
    ],
    ...biases(
      bias.qkv,
      ['self_attn.q_proj', qRows],
      ['self_attn.k_proj', kvRows],
      ['self_attn.v_proj', kvRows],
    ),
    epilogue: 'none',
    out: qkv,
  });
  recorder.push({ op: 'ropeAndCache', qkv, layer, rope: shape.rope });
  recorder.push({ op: 'attention', qkv, layer, scale: D ** -0.5, out: attended });
  recorder.push({
    op: 'linear',
    x: attended,
    weights: [linear('self_attn.o_proj', H, qRows)],
    ...biases(bias.output, ['self_attn.o_proj', H]),
    epilogue: 'none',
    residual: hidden,
    out: hidden,
  });
  norm('post_attention_layernorm');
  recorder.push({
    op: 'linear',
    x: normed,
    weights: [linear('mlp.gate_proj', F, H), linear('mlp.up_proj', F, H)],
    ...biases(bias.mlp, ['mlp.gate_proj', F], ['mlp.up_proj', F]),
    epilogue: 'siluMul',
    out: gated,
  });
  recorder.push({
    op: 'linear',
    x: gated,
    weights: [linear('mlp.down_proj', H, F)],
    ...biases(bias.mlp, ['mlp.down_proj', H]),
    epilogue: 'none',
    residual: hidden,
    out: hidden,
  });
}

/** Activations that all layers share. */
export interface DecoderBuffers {
  /** (T, H) residual stream */
  readonly hidden: TensorId;
  /** (T, H) */
  readonly normed: TensorId;
  /** (T, (heads + 2 kvHeads) D) */
  readonly qkv: TensorId;
  /** (T, heads D) */
  readonly attended: TensorId;
  /** (T, F) */
  readonly gated: TensorId;
}

/** Token ids -> residual stream: allocates the shared buffers and records the embedding, [V, H]. */
export function recordEmbedding(recorder: Recorder, shape: DecoderShape): DecoderBuffers {
  const { heads, kvHeads, headSize: D, hiddenSize: H } = shape;
  const buffers = {
    hidden: recorder.tensor('hidden', 'tokens', H),
    normed: recorder.tensor('normed', 'tokens', H),
    qkv: recorder.tensor('qkv', 'tokens', (heads + 2 * kvHeads) * D),
    attended: recorder.tensor('attended', 'tokens', heads * D),
    gated: recorder.tensor('gated', 'tokens', shape.intermediateSize),
  };
  recorder.push({
    op: 'embedding',
    weight: recorder.weight('model.embed_tokens.weight', [shape.vocabularyRows, H]),
    out: buffers.hidden,
  });
  if (recorder.takesInputRows) {
    const rows = recorder.tensor('imageEmbeddings', 'inputRows', H);
    recorder.push({ op: 'input', out: rows });
    recorder.push({ op: 'scatterRows', x: rows, add: false, out: buffers.hidden });
  }
  return buffers;
}

/** Residual stream -> sampled ids, on the wanted rows alone: gather, final norm, lm head (or the tied embedding). */
export function recordHead(recorder: Recorder, shape: DecoderShape, buffers: DecoderBuffers): void {
  const { hiddenSize: H, vocabularyRows: V } = shape;
  const lastHidden = recorder.tensor('lastHidden', 'logitRows', H);
  const lastNormed = recorder.tensor('lastNormed', 'logitRows', H);
  const logits = recorder.tensor('logits', 'logitRows', V);
  recorder.push({ op: 'gatherRows', x: buffers.hidden, out: lastHidden });
  recorder.push({
    op: 'rmsNorm',
    x: lastHidden,
    weight: recorder.weight('model.norm.weight', [H]),
    eps: shape.eps,
    out: lastNormed,
  });
  recorder.push({
    op: 'linear',
    x: lastNormed,
    weights: [
      recorder.weight(shape.isTied ? 'model.embed_tokens.weight' : 'lm_head.weight', [V, H]),
    ],
    epilogue: 'none',
    out: logits,
  });
  recorder.push({ op: 'sample', logits });
}

/** Rotary tables that old checkpoints carry, and the copy of the embedding that some tied ones do. */
export function isIgnoredTensor(name: string, isTied: boolean): boolean {
  return name.endsWith('.rotary_emb.inv_freq') || (isTied && name === 'lm_head.weight');
}
