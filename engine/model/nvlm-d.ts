/** NVLM-D (Dai et al., 2024): InternViT, a projector as wide as the language model's MLP and without biases, Qwen2 or Llama. */
import type { VisionFamily } from './vision.ts';

export const NVLM_D: VisionFamily = {
  name: 'NVLM_D',
  contextToken: '<|vision_pad|>',
  enclosure: ['<Image>', '</Image>'],
  tagsTiles: true,
  projectorBiases: false,
  projectorInner: (language) => language.count('intermediate_size'),
  defaultShuffle: 'v2',
  defaultMaxTiles: 6,
};
