/** Small checkpoints of random weights in any dimensions, as if they had been read from files. */
import type { Checkpoint } from '#engine/weights/checkpoint.ts';
import type { StorageType, WeightSource } from '#kernels/program.ts';
import { plainCheckpoint } from './plain-checkpoint.ts';
import { createRandom } from './random.ts';
import { randomWeight } from './weights.ts';

const PATH = '/models/random';

export interface DecoderSizes {
  readonly modelType: 'llama' | 'qwen2';
  readonly layers: number;
  readonly hidden: number;
  readonly heads: number;
  readonly kvHeads: number;
  readonly headSize: number;
  readonly intermediate: number;
  readonly vocabulary: number;
  readonly isTied?: boolean;
  /** Llama's `attention_bias` and `mlp_bias`; Qwen2 has biases on q, k and v. */
  readonly hasBiases?: boolean;
  /** Storage of the linears; norms, biases and the embedding are plain. */
  readonly storage?: StorageType;
  /** Rows of q and k in the interleaved order of GGUF llama files. */
  readonly isInterleaved?: boolean;
}

export interface VisionSizes {
  readonly layers: number;
  readonly hidden: number;
  readonly heads: number;
  readonly intermediate: number;
  /** Patches per side, of 2 x 2 pixels; even. */
  readonly grid: number;
  readonly norm: 'rms_norm' | 'layer_norm';
  readonly hasQkvBias: boolean;
  readonly hasQkNorm: boolean;
}

type Shapes = Map<string, number[]>;

function decoderShapes(sizes: DecoderSizes): Shapes {
  const { hidden: H, heads, kvHeads, headSize: D, intermediate: F, vocabulary: V } = sizes;
  const isLlama = sizes.modelType === 'llama';
  const shapes: Shapes = new Map([
    ['model.embed_tokens.weight', [V, H]],
    ['model.norm.weight', [H]],
  ]);
  if (!sizes.isTied) shapes.set('lm_head.weight', [V, H]);
  for (let layer = 0; layer < sizes.layers; layer++) {
    const at = `model.layers.${layer}`;
    const linear = (name: string, rows: number, columns: number, hasBias: boolean): void => {
      shapes.set(`${at}.${name}.weight`, [rows, columns]);
      if (hasBias) shapes.set(`${at}.${name}.bias`, [rows]);
    };
    const llamaBias = isLlama && sizes.hasBiases === true;
    shapes.set(`${at}.input_layernorm.weight`, [H]);
    shapes.set(`${at}.post_attention_layernorm.weight`, [H]);
    linear('self_attn.q_proj', heads * D, H, !isLlama || llamaBias);
    linear('self_attn.k_proj', kvHeads * D, H, !isLlama || llamaBias);
    linear('self_attn.v_proj', kvHeads * D, H, !isLlama || llamaBias);
    linear('self_attn.o_proj', H, heads * D, llamaBias);
    linear('mlp.gate_proj', F, H, llamaBias);
    linear('mlp.up_proj', F, H, llamaBias);
    linear('mlp.down_proj', H, F, llamaBias);
  }
  return shapes;
}

function visionShapes(sizes: VisionSizes, language: DecoderSizes): Shapes {
  const { hidden: W, intermediate: F, grid } = sizes;
  const H = language.hidden;
  const shapes: Shapes = new Map([
    ['vision_model.embeddings.class_embedding', [1, 1, W]],
    ['vision_model.embeddings.patch_embedding.weight', [W, 3, 2, 2]],
    ['vision_model.embeddings.patch_embedding.bias', [W]],
    ['vision_model.embeddings.position_embedding', [1, grid ** 2 + 1, W]],
    ['mlp1.0.weight', [4 * W]],
    ['mlp1.0.bias', [4 * W]],
    ['mlp1.1.weight', [H, 4 * W]],
    ['mlp1.1.bias', [H]],
    ['mlp1.3.weight', [H, H]],
    ['mlp1.3.bias', [H]],
  ]);
  for (let layer = 0; layer < sizes.layers; layer++) {
    const at = `vision_model.encoder.layers.${layer}`;
    for (const norm of ['norm1', 'norm2']) {
      shapes.set(`${at}.${norm}.weight`, [W]);
      if (sizes.norm === 'layer_norm') shapes.set(`${at}.${norm}.bias`, [W]);
    }
    shapes.set(`${at}.attn.qkv.weight`, [3 * W, W]);
    if (sizes.hasQkvBias) shapes.set(`${at}.attn.qkv.bias`, [3 * W]);
    if (sizes.hasQkNorm)
      for (const norm of ['q_norm', 'k_norm']) shapes.set(`${at}.attn.${norm}.weight`, [W]);
    shapes.set(`${at}.attn.proj.weight`, [W, W]);
    shapes.set(`${at}.attn.proj.bias`, [W]);
    shapes.set(`${at}.mlp.fc1.weight`, [F, W]);
    shapes.set(`${at}.mlp.fc1.bias`, [F]);
    shapes.set(`${at}.mlp.fc2.weight`, [W, F]);
    shapes.set(`${at}.mlp.fc2.bias`, [W]);
    for (const scale of ['ls1', 'ls2']) shapes.set(`${at}.${scale}`, [W]);
  }
  return shapes;
}

function decoderConfig(sizes: DecoderSizes): Record<string, unknown> {
  return {
    model_type: sizes.modelType,
    hidden_size: sizes.hidden,
    intermediate_size: sizes.intermediate,
    num_hidden_layers: sizes.layers,
    num_attention_heads: sizes.heads,
    num_key_value_heads: sizes.kvHeads,
    head_dim: sizes.headSize,
    vocab_size: sizes.vocabulary,
    rms_norm_eps: 1e-6,
    max_position_embeddings: 128,
    tie_word_embeddings: sizes.isTied === true,
    attention_bias: sizes.hasBiases === true,
    mlp_bias: sizes.hasBiases === true,
  };
}

/** Values of about the size that keeps activations of the order of one. */
function fill(shapes: Shapes, sizes: DecoderSizes, seed: number): Map<string, WeightSource> {
  const random = createRandom(seed);
  const { storage = 'f32', isInterleaved = false } = sizes;
  return new Map(
    [...shapes].map(([name, shape]) => {
      const isLinear = /_proj\.weight$/.test(name);
      const fanIn = shape.slice(1).reduce((product, size) => product * size, 1);
      const deviation = shape.length > 1 && !name.includes('embed') ? fanIn ** -0.5 : 1;
      const type = isLinear ? storage : 'f32';
      const weight = randomWeight(random, name, type, shape, deviation);
      const isRotated = isInterleaved && /[qk]_proj/.test(name);
      return [
        name,
        {
          ...weight,
          ...(isRotated && {
            rowOrder: { kind: 'interleavedToHalf' as const, headSize: sizes.headSize },
          }),
        },
      ];
    }),
  );
}

export function randomDecoder(sizes: DecoderSizes, seed = 1): Checkpoint {
  return plainCheckpoint({
    path: PATH,
    config: decoderConfig(sizes),
    tensors: fill(decoderShapes(sizes), sizes, seed),
  });
}

/** An InternVL checkpoint: encoder, projector with biases as wide as the language model, and that model. */
export function randomInternVl(
  sizes: { readonly vision: VisionSizes; readonly language: DecoderSizes },
  seed = 1,
): Checkpoint {
  const { vision, language } = sizes;
  const shapes = visionShapes(vision, language);
  for (const [name, shape] of decoderShapes(language)) shapes.set(`language_model.${name}`, shape);
  const config = {
    model_type: 'internvl_chat',
    downsample_ratio: 0.5,
    torch_dtype: 'float32',
    llm_config: decoderConfig(language),
    vision_config: {
      hidden_size: vision.hidden,
      num_attention_heads: vision.heads,
      intermediate_size: vision.intermediate,
      num_hidden_layers: vision.layers,
      image_size: 2 * vision.grid,
      patch_size: 2,
      norm_type: vision.norm,
      qkv_bias: vision.hasQkvBias,
      qk_normalization: vision.hasQkNorm,
    },
  };
  return plainCheckpoint({ path: PATH, config, tensors: fill(shapes, language, seed) });
}
