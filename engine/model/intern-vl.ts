/** InternVL 1.5 and 2 (InternVLChatModel) over a Llama or Qwen2 language model: a projector of the model's width, with biases. */
import type { VisionFamily } from './vision.ts';

export const INTERN_VL: VisionFamily = {
  name: 'internvl_chat',
  contextToken: '<IMG_CONTEXT>',
  enclosure: ['<img>', '</img>'],
  tagsTiles: false,
  projectorBiases: true,
  projectorInner: (language) => language.count('hidden_size'),
  defaultShuffle: 'v1',
  defaultMaxTiles: 12,
};
