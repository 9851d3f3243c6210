/** NVLM-D-72B without its weights: the names and shapes of the published checkpoint, written out, over memory that tensors share. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Checkpoint } from '#engine/weights/checkpoint.ts';
import type { WeightSource } from '#kernels/program.ts';
import { plainCheckpoint } from './plain-checkpoint.ts';

export const config = JSON.parse(
  readFileSync(join(import.meta.dirname, '../../examples/nvlm-d-72b/config.json'), 'utf8'),
);
export const VALID_IDS = 151_667;

/** The tensors of the published checkpoint, written out: names and shapes. `heads`: stored in the vision encoder. */
export function publishedShapes(heads = 32): Map<string, number[]> {
  const shapes = new Map<string, number[]>([
    ['vision_model.embeddings.class_embedding', [1, 1, 3200]],
    ['vision_model.embeddings.patch_embedding.weight', [3200, 3, 14, 14]],
    ['vision_model.embeddings.patch_embedding.bias', [3200]],
    ['vision_model.embeddings.position_embedding', [1, 1025, 3200]],
    ['mlp1.0.weight', [12800]],
    ['mlp1.0.bias', [12800]],
    ['mlp1.1.weight', [29568, 12800]],
    ['mlp1.3.weight', [8192, 29568]],
    ['language_model.model.embed_tokens.weight', [152064, 8192]],
    ['language_model.model.norm.weight', [8192]],
    ['language_model.lm_head.weight', [152064, 8192]],
  ]);
  for (let layer = 0; layer < 45; layer++) {
    const at = `vision_model.encoder.layers.${layer}`;
    for (const [name, shape] of [
      ['norm1.weight', [3200]],
      ['norm2.weight', [3200]],
      ['attn.qkv.weight', [3 * heads * 128, 3200]],
      ['attn.q_norm.weight', [heads * 128]],
      ['attn.k_norm.weight', [heads * 128]],
      ['attn.proj.weight', [3200, heads * 128]],
      ['attn.proj.bias', [3200]],
      ['mlp.fc1.weight', [12800, 3200]],
      ['mlp.fc1.bias', [12800]],
      ['mlp.fc2.weight', [3200, 12800]],
      ['mlp.fc2.bias', [3200]],
      ['ls1', [3200]],
      ['ls2', [3200]],
    ] as const)
      shapes.set(`${at}.${name}`, [...shape]);
  }
  for (let layer = 0; layer < 80; layer++) {
    const at = `language_model.model.layers.${layer}`;
    for (const [name, shape] of [
      ['input_layernorm.weight', [8192]],
      ['self_attn.q_proj.weight', [8192, 8192]],
      ['self_attn.q_proj.bias', [8192]],
      ['self_attn.k_proj.weight', [1024, 8192]],
      ['self_attn.k_proj.bias', [1024]],
      ['self_attn.v_proj.weight', [1024, 8192]],
      ['self_attn.v_proj.bias', [1024]],
      ['self_attn.o_proj.weight', [8192, 8192]],
      ['post_attention_layernorm.weight', [8192]],
      ['mlp.gate_proj.weight', [29568, 8192]],
      ['mlp.up_proj.weight', [29568, 8192]],
      ['mlp.down_proj.weight', [8192, 29568]],
    ] as const)
      shapes.set(`${at}.${name}`, [...shape]);
  }
  return shapes;
}

/** What is read of tensors while a program is built: all share it. */
const zeros = new Uint8Array(3 * 4096 * 3200 * 2);
let ones: Uint8Array | undefined;

/** `dummies`: whether the values of the vision encoder's dummy heads are zero. */
export function checkpointOf(
  shapes: ReadonlyMap<string, readonly number[]>,
  dummies: 'zero' | 'not zero' = 'zero',
): Checkpoint {
  if (dummies === 'not zero') ones ??= new Uint8Array(zeros.length).fill(1);
  const tensors = new Map(
    [...shapes].map(([name, shape]): [string, WeightSource] => {
      const length = 2 * shape.reduce((product, size) => product * size, 1);
      const values = dummies === 'not zero' && name.includes('.attn.qkv.') ? ones! : zeros;
      const bytes =
        length <= values.length
          ? { data: values.subarray(0, length) }
          : { path: '/models/NVLM-D-72B', offset: 0, byteLength: length };
      return [name, { name, type: 'bf16', shape, bytes }];
    }),
  );
  return plainCheckpoint({ path: '/models/NVLM-D-72B', config, tensors });
}
