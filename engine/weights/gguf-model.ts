/** What GGUF metadata and tensor names mean, in the words of a Hugging Face checkpoint. Key names: ggml, docs/gguf.md. */
import type { WeightSource } from '#kernels/program.ts';
import { CheckpointError } from './errors.ts';
import { withFile } from './file-reader.ts';
import type { GgufFile, GgufValue } from './gguf.ts';

/** GGUF architecture -> class name of the same model in Hugging Face's config, and the order of its q and k rows. */
const ARCHITECTURES: ReadonlyMap<string, { className: string; interleavedRotary: boolean }> =
  new Map([
    ['llama', { className: 'LlamaForCausalLM', interleavedRotary: true }],
    ['qwen2', { className: 'Qwen2ForCausalLM', interleavedRotary: false }],
  ]);

const TOP_NAMES: ReadonlyMap<string, string> = new Map([
  ['token_embd.weight', 'model.embed_tokens.weight'],
  ['output_norm.weight', 'model.norm.weight'],
  ['output.weight', 'lm_head.weight'],
]);
const LAYER_NAMES: ReadonlyMap<string, string> = new Map([
  ['attn_norm', 'input_layernorm'],
  ['attn_q', 'self_attn.q_proj'],
  ['attn_k', 'self_attn.k_proj'],
  ['attn_v', 'self_attn.v_proj'],
  ['attn_output', 'self_attn.o_proj'],
  ['ffn_norm', 'post_attention_layernorm'],
  ['ffn_gate', 'mlp.gate_proj'],
  ['ffn_up', 'mlp.up_proj'],
  ['ffn_down', 'mlp.down_proj'],
]);
/** llama3 scaling as GGUF stores it: a divisor per inverse frequency, (D/2). It becomes part of the config. */
const ROPE_FACTORS = 'rope_freqs.weight';
const MAX_ROPE_FACTORS = 4096;

export interface GgufModel {
  readonly config: Record<string, unknown>;
  readonly tensors: Map<string, WeightSource>;
}

/**
 * Config and tensors of a GGUF file under Hugging Face's names; names without a counterpart stay as they are, so that
 * the model's tensor table reports them. Refuses other architectures and mixtures of experts by name, and missing keys.
 */
export function describeGgufModel(file: GgufFile): GgufModel {
  const keys = createKeyReader(file);
  const architecture = keys.string('general.architecture');
  const known = ARCHITECTURES.get(architecture);
  if (known === undefined) {
    throw unsupported(file, `architecture '${architecture}' is not supported`, [
      ...ARCHITECTURES.keys(),
    ]);
  }
  const prefix = `${architecture}.`;
  for (const key of [`${prefix}expert_count`, 'split.count', `${prefix}attention.sliding_window`]) {
    const limit = key === 'split.count' ? 1 : 0;
    if ((keys.optionalNumber(key) ?? 0) > limit) {
      throw unsupported(file, `'${key}' is in use, which is not supported`, [`${limit} or absent`]);
    }
  }
  const heads = keys.number(`${prefix}attention.head_count`);
  const hiddenSize = keys.number(`${prefix}embedding_length`);
  const headSize = readHeadSize(file, keys, prefix, hiddenSize / heads);
  const embedding = file.tensors.get('token_embd.weight');
  const tensors = renameTensors(file, known.interleavedRotary ? headSize : undefined);
  const config = {
    architectures: [known.className],
    model_type: architecture,
    hidden_size: hiddenSize,
    intermediate_size: keys.number(`${prefix}feed_forward_length`),
    num_hidden_layers: keys.number(`${prefix}block_count`),
    num_attention_heads: heads,
    num_key_value_heads: keys.optionalNumber(`${prefix}attention.head_count_kv`) ?? heads,
    head_dim: headSize,
    hidden_act: 'silu',
    max_position_embeddings: keys.number(`${prefix}context_length`),
    rms_norm_eps: shortestFloat32(keys.number(`${prefix}attention.layer_norm_rms_epsilon`)),
    rope_theta: keys.optionalNumber(`${prefix}rope.freq_base`) ?? 10000,
    rope_scaling: readRopeScaling(file, keys, prefix),
    vocab_size: embedding?.shape[0] ?? keys.number(`${prefix}vocab_size`),
    tie_word_embeddings: !file.tensors.has('output.weight'),
    attention_bias: architecture === 'llama' && file.tensors.has('blk.0.attn_q.bias'),
  };
  return { config, tensors };
}

function renameTensors(
  file: GgufFile,
  interleavedHeadSize: number | undefined,
): Map<string, WeightSource> {
  const tensors = new Map<string, WeightSource>();
  for (const [stored, tensor] of file.tensors) {
    if (stored === ROPE_FACTORS) continue;
    const name = toHuggingFaceName(stored);
    const permuted =
      interleavedHeadSize !== undefined && /\.self_attn\.[qk]_proj\.(weight|bias)$/.test(name);
    tensors.set(name, {
      ...tensor,
      name,
      ...(permuted
        ? { rowOrder: { kind: 'interleavedToHalf' as const, headSize: interleavedHeadSize } }
        : {}),
    });
  }
  return tensors;
}

function toHuggingFaceName(stored: string): string {
  const top = TOP_NAMES.get(stored);
  if (top !== undefined) return top;
  const [, layer, part = '', kind] = /^blk\.(\d+)\.(\w+)\.(weight|bias)$/.exec(stored) ?? [];
  const name = LAYER_NAMES.get(part);
  return name === undefined ? stored : `model.layers.${layer}.${name}.${kind}`;
}

function readHeadSize(file: GgufFile, keys: KeyReader, prefix: string, fromHidden: number): number {
  const headSize = keys.optionalNumber(`${prefix}attention.key_length`) ?? fromHidden;
  const valueSize = keys.optionalNumber(`${prefix}attention.value_length`) ?? headSize;
  const rotary = keys.optionalNumber(`${prefix}rope.dimension_count`) ?? headSize;
  if (valueSize !== headSize || rotary !== headSize) {
    throw unsupported(
      file,
      `keys of ${headSize}, values of ${valueSize} with ${rotary} rotary dimensions are not supported`,
      ['the same number for all three'],
    );
  }
  return headSize;
}

/** The scaling as config.json would give it, null for none. */
function readRopeScaling(
  file: GgufFile,
  keys: KeyReader,
  prefix: string,
): Record<string, unknown> | null {
  const factors = readRopeFactors(file);
  const type = keys.optionalString(`${prefix}rope.scaling.type`) ?? 'none';
  const factor =
    keys.optionalNumber(`${prefix}rope.scaling.factor`) ??
    keys.optionalNumber(`${prefix}rope.scale_linear`);
  if (factors !== undefined) return { rope_type: 'frequency_factors', factors };
  if (type === 'none' && (factor ?? 1) === 1) return null;
  if (type === 'none' || type === 'linear') return { rope_type: 'linear', factor: factor ?? 1 };
  if (type !== 'yarn') return { rope_type: type };
  const attention = keys.optionalNumber(`${prefix}rope.scaling.attn_factor`);
  return {
    rope_type: 'yarn',
    factor: factor ?? 1,
    original_max_position_embeddings: keys.number(`${prefix}rope.scaling.original_context_length`),
    // GGUF's factor multiplies yarn's own; config.json's replaces it.
    ...(attention === undefined || attention === 1
      ? {}
      : { attention_factor: attention * (0.1 * Math.log(factor ?? 1) + 1) }),
  };
}

function readRopeFactors(file: GgufFile): number[] | undefined {
  const tensor = file.tensors.get(ROPE_FACTORS);
  if (tensor === undefined) return undefined;
  const [count = 0, ...others] = tensor.shape;
  if (tensor.type !== 'f32' || others.some((size) => size !== 1) || count > MAX_ROPE_FACTORS) {
    throw new CheckpointError('CHECKPOINT_TENSOR_INVALID', 'cannot be read as rotary factors', {
      file: file.path,
      tensor: ROPE_FACTORS,
      expected: `f32 [up to ${MAX_ROPE_FACTORS}]`,
      received: `${tensor.type} [${tensor.shape.join(', ')}]`,
    });
  }
  const { offset } = tensor.bytes as { offset: number };
  const bytes = withFile(file.path, (reader) => reader.read(offset, count * 4, ROPE_FACTORS));
  return [...new Float32Array(bytes.buffer)];
}

/** The decimal that was meant: 1e-5 travels as the float32 9.999999747378752e-6. */
function shortestFloat32(value: number): number {
  for (let digits = 1; digits < 10; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === Math.fround(value)) return short;
  }
  return value;
}

interface KeyReader {
  number(key: string): number;
  optionalNumber(key: string): number | undefined;
  string(key: string): string;
  optionalString(key: string): string | undefined;
}

/** Typed access to metadata; CHECKPOINT_CONFIG_INVALID for a missing key or one of another type. */
export function createKeyReader(file: GgufFile): KeyReader {
  const typed = <T extends GgufValue>(
    key: string,
    kind: string,
    is: (value: GgufValue) => value is T,
  ): T | undefined => {
    const value = file.metadata.get(key);
    if (value === undefined || is(value)) return value;
    throw new CheckpointError('CHECKPOINT_CONFIG_INVALID', `metadata key '${key}' is unusable`, {
      file: file.path,
      expected: kind,
      received: typeof value === 'object' ? 'an array' : String(value),
    });
  };
  const required = <T>(key: string, value: T | undefined): T => {
    if (value !== undefined) return value;
    throw new CheckpointError('CHECKPOINT_CONFIG_INVALID', `metadata key '${key}' is missing`, {
      file: file.path,
    });
  };
  const reader: KeyReader = {
    optionalNumber: (key) =>
      typed(
        key,
        'a finite number',
        (value): value is number => typeof value === 'number' && Number.isFinite(value),
      ),
    number: (key) => required(key, reader.optionalNumber(key)),
    optionalString: (key) =>
      typed(key, 'a string', (value): value is string => typeof value === 'string'),
    string: (key) => required(key, reader.optionalString(key)),
  };
  return reader;
}

function unsupported(
  file: GgufFile,
  summary: string,
  expected: readonly string[],
): CheckpointError {
  return new CheckpointError('CHECKPOINT_ARCHITECTURE_UNSUPPORTED', summary, {
    file: file.path,
    expected: expected.join(', '),
  });
}
