/** Runs encoder and projector of a model over tiles, and compares what comes out. */
import {
  type VisionModel,
  visionFeatures,
  visionLoadOptions,
  visionStep,
} from '#engine/model/vision.ts';
import type { Backend } from '#kernels/backend.ts';

/** `models`: a whole one, or those of all ranks. `vit`: (tiles * positionsPerTile, width); `features`: (tiles * tokensPerTile, hidden size). */
export async function encodeTiles(
  backend: Backend,
  models: VisionModel | readonly VisionModel[],
  tiles: readonly Float32Array[],
  computeType: 'float32' | 'bfloat16' = 'float32',
): Promise<{ readonly vit: Float32Array; readonly features: Float32Array }> {
  const ranks = 'program' in models ? [models] : models;
  const [model] = ranks as [VisionModel];
  const loaded = await backend.load(
    ranks.map(({ program }) => program),
    { ...visionLoadOptions(model, tiles.length, computeType), poison: true },
  );
  try {
    const outputs = await loaded
      .createRunner({ threads: 2 })
      .run(visionStep(model, tiles, { wantEncoded: true }));
    return { vit: outputs.tensors![0]!, features: visionFeatures(model, outputs) };
  } finally {
    await loaded.close();
  }
}

/** The largest difference over the length of `b`; NaN where there is one. */
export function worst(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let most = 0;
  for (let i = 0; i < b.length; i++) most = Math.max(most, Math.abs(a[i]! - b[i]!));
  return most;
}

/** The features of a prompt's pictures, one after the other, as the rows of its step. */
export function imageRows(
  features: readonly Float32Array[],
  inputTargets: Int32Array,
): { readonly inputRows: Float32Array; readonly inputTargets: Int32Array } {
  const inputRows = new Float32Array(features.reduce((sum, { length }) => sum + length, 0));
  features.reduce((at, part) => {
    inputRows.set(part, at);
    return at + part.length;
  }, 0);
  return { inputRows, inputTargets };
}
