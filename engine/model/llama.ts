/** Llama 1, 2, 3 and the models of the same shape (SmolLM2 among them): Hugging Face's LlamaForCausalLM. */
import type { Program } from '#kernels/program.ts';
import {
  isIgnoredTensor,
  rankShape,
  readDecoderShape,
  recordDecoderLayers,
  recordEmbedding,
  recordHead,
  refuseSlidingWindow,
} from './blocks.ts';
import type { ConfigReader } from './config.ts';
import type { Recorder } from './recorder.ts';
import type { RecordedModel } from './registry.ts';

/**
 * Tensors, H = hidden_size, D = head_dim, F = intermediate_size, V = vocab_size, L = 0 .. num_hidden_layers - 1:
 *
 *     model.embed_tokens.weight                                   [V, H]
 *     model.layers.L.input_layernorm.weight                       [H]
 *     model.layers.L.self_attn.q_proj.weight                      [num_attention_heads D, H]   .bias if attention_bias
 *     model.layers.L.self_attn.k_proj.weight, v_proj              [num_key_value_heads D, H]   .bias if attention_bias
 *     model.layers.L.self_attn.o_proj.weight                      [H, num_attention_heads D]   .bias if attention_bias
 *     model.layers.L.post_attention_layernorm.weight              [H]
 *     model.layers.L.mlp.gate_proj.weight, up_proj                [F, H]                       .bias if mlp_bias
 *     model.layers.L.mlp.down_proj.weight                         [H, F]                       .bias if mlp_bias
 *     model.norm.weight                                           [H]
 *     lm_head.weight                                              [V, H]                       unless tie_word_embeddings
 */
export function recordLlama(
  config: ConfigReader,
  recorder: Recorder,
  validTokenCount: number,
): RecordedModel {
  refuseSlidingWindow(config, true);
  const shape = readDecoderShape(config);
  const attentionBias = config.flag('attention_bias', false);
  const bias = {
    qkv: attentionBias,
    output: attentionBias,
    mlp: config.flag('mlp_bias', false),
  };
  const buffers = recordEmbedding(recorder, shape);
  const rows = recordDecoderLayers(recorder, shape, bias, buffers);
  recordHead(recorder, shape, rows, buffers);
  const program: Program = recorder.finish({
    name: 'llama',
    shape: rankShape(shape, buffers),
    validTokenCount,
    ignored: (name) => isIgnoredTensor(name, shape.isTied),
  });
  return { program, shape };
}
