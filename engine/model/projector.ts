/** Encoder output -> language-model embeddings: pixel shuffle, then the projector `mlp1`. */
import type { TensorId } from '#kernels/program.ts';
import type { Recorder } from './recorder.ts';
import { recordRowParallel } from './tensor-parallel.ts';

export interface ProjectorShape {
  /** Width of the encoder. */
  readonly visionSize: number;
  /** Patches per side of a tile. */
  readonly grid: number;
  /** Patches per side that one embedding takes together. */
  readonly factor: number;
  readonly innerSize: number;
  readonly outputSize: number;
  /** Whether the two linears carry biases. */
  readonly hasBiases: boolean;
}

/** torch.nn.LayerNorm's default. */
const EPS = 1e-5;

/**
 * Records norm, linear, gelu, linear over squares of factor * factor patches, their rows side by side in reading order. The
 * wanted rows of a step name each square's first patch: `firstPatches`.
 *
 *     mlp1.0.weight, mlp1.0.bias      [factor^2 visionSize]
 *     mlp1.1.weight                   [innerSize, factor^2 visionSize]   .bias if hasBiases
 *     mlp1.3.weight                   [outputSize, innerSize]            .bias if hasBiases
 */
export function recordProjector(
  recorder: Recorder,
  encoded: TensorId,
  shape: ProjectorShape,
): TensorId {
  const { visionSize, grid, factor, innerSize, outputSize } = shape;
  const width = visionSize * factor * factor;
  const squares = recorder.tensor('squares', 'logitRows', width);
  const normed = recorder.tensor('squaresNormed', 'logitRows', width);
  const rows = recorder.share(
    'inner size of the projector',
    innerSize,
    recorder.blockLengthOf('mlp1.3.weight'),
  );
  const inner = recorder.tensor('projectorInner', 'logitRows', rows.count);
  const features = recorder.tensor('features', 'logitRows', outputSize);
  const offsets = Array.from(
    { length: factor * factor },
    (_, i) => Math.floor(i / factor) * grid + (i % factor),
  );
  recorder.push({ op: 'gatherRows', x: encoded, offsets, out: squares });
  recorder.push({
    op: 'layerNorm',
    x: squares,
    weight: recorder.weight('mlp1.0.weight', [width]),
    bias: recorder.weight('mlp1.0.bias', [width]),
    eps: EPS,
    out: normed,
  });
  recorder.push({
    op: 'linear',
    x: normed,
    weights: [recorder.weight('mlp1.1.weight', [innerSize, width], { rows })],
    ...(shape.hasBiases && { biases: [recorder.weight('mlp1.1.bias', [innerSize], { rows })] }),
    epilogue: 'gelu',
    out: inner,
  });
  recordRowParallel(recorder, {
    x: inner,
    weight: recorder.weight('mlp1.3.weight', [outputSize, innerSize], { columns: rows }),
    ...(shape.hasBiases && { bias: ['mlp1.3.bias', outputSize] }),
    out: features,
  });
  return features;
}

/** Patch numbers, row-major on the grid, of the first patch of each square, squares in reading order. */
export function firstPatches(grid: number, factor: number): number[] {
  const side = grid / factor;
  return Array.from(
    { length: side * side },
    (_, i) => Math.floor(i / side) * factor * grid + (i % side) * factor,
  );
}
