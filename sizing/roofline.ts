/** The least time that arithmetic and memory leave; what no engine can be faster than. */
import type { Gpu } from './gpus.ts';
import type { MemoryPlan } from './memory.ts';
import { layerParameters, type ModelShape } from './model-shape.ts';

export interface Roofline {
  /** Seconds for a prompt of so many tokens, alone. */
  readonly prefillSeconds: number;
  /** Seconds per token of one sequence, alone. */
  readonly decodeSeconds: number;
  /** Tokens per second of a full batch. */
  readonly batchTokensPerSecond: number;
}

/**
 * Prefill: two operations per weight and token, and four per pair of positions, head and channel of causal attention, at the rated
 * arithmetic. Decode: every rank reads its weights and the cache of its batch, at the rated bandwidth; the stages of a pipeline follow
 * one another. Undefined when the GPU's rates are not known.
 */
export function roofline(
  shape: ModelShape,
  plan: MemoryPlan,
  gpu: Gpu,
  wishes: {
    readonly tensor: number;
    readonly pipeline: number;
    readonly promptTokens: number;
    readonly batch: number;
  },
): Roofline | undefined {
  const { bytesPerSecond, flopsPerSecond } = gpu;
  if (bytesPerSecond === undefined || flopsPerSecond === undefined) return undefined;
  const { language } = shape;
  const { tensor, pipeline, promptTokens, batch } = wishes;
  const matrices = language.layers * layerParameters(language);
  const attention = 2 * promptTokens ** 2 * language.heads * language.headSize * language.layers;
  const prefillSeconds = (2 * matrices * promptTokens + attention) / (tensor * flopsPerSecond);
  const stepSeconds = (sequences: number, tokens: number): number =>
    ((plan.weightsPerStep + sequences * tokens * plan.kvBytesPerToken) * pipeline) / bytesPerSecond;
  const arithmetic = (sequences: number): number =>
    (2 * matrices * sequences) / (tensor * flopsPerSecond);
  const batchStep = Math.max(stepSeconds(batch, promptTokens), arithmetic(batch));
  return {
    prefillSeconds,
    decodeSeconds: stepSeconds(1, promptTokens),
    // Stages work on different sequences at once.
    batchTokensPerSecond: (batch * pipeline) / batchStep,
  };
}
