/** Encoder output -> language-model embeddings: pixel shuffle, then the projector `mlp1`. */
import type { TensorId } from '#kernels/program.ts';
import type { Recorder } from './blocks.ts';

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
  const inner = recorder.tensor('projectorInner', 'logitRows', innerSize);
  const features = recorder.tensor('features', 'logitRows', outputSize);
  const biases = (name: string, size: number) =>
    shape.hasBiases ? { biases: [recorder.weight(`${name}.bias`, [size])] } : {};
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
    weights: [recorder.weight('mlp1.1.weight', [innerSize, width])],
    ...biases('mlp1.1', innerSize),
    epilogue: 'gelu',
    out: inner,
  });
  recorder.push({
    op: 'linear',
    x: inner,
    weights: [recorder.weight('mlp1.3.weight', [outputSize, innerSize])],
    ...biases('mlp1.3', outputSize),
    epilogue: 'none',
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
