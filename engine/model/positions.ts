/** Learned position embeddings of a square grid, resampled for a grid of another size. */

/**
 * `table` (from * from, width) on a grid of `to` * `to`: bicubic with a = -0.75 and half-pixel centres, clamped at the border,
 * as torch.nn.functional.interpolate(mode='bicubic', align_corners=False) does; not antialiased. The table itself when from = to.
 */
export function resamplePositions(
  table: Float32Array,
  from: number,
  to: number,
  width: number,
): Float32Array {
  if (from === to) return table;
  const taps = gridTaps(from, to);
  const wide = new Float64Array(from * to * width);
  for (let row = 0; row < from; row++)
    for (let column = 0; column < to; column++)
      for (const { index, weight } of taps[column]!)
        for (let i = 0; i < width; i++)
          wide[(row * to + column) * width + i]! +=
            weight * table[(row * from + index) * width + i]!;
  const out = new Float64Array(to * to * width);
  for (let row = 0; row < to; row++)
    for (const { index, weight } of taps[row]!)
      for (let i = 0; i < to * width; i++)
        out[row * to * width + i]! += weight * wide[index * to * width + i]!;
  return Float32Array.from(out);
}

/** Per point of the new grid its four neighbours of the old one. */
function gridTaps(from: number, to: number): { index: number; weight: number }[][] {
  return Array.from({ length: to }, (_, point) => {
    const centre = ((point + 0.5) * from) / to - 0.5;
    const first = Math.floor(centre);
    return [-1, 0, 1, 2].map((step) => ({
      index: Math.min(from - 1, Math.max(0, first + step)),
      weight: cubic(Math.abs(centre - first - step)),
    }));
  });
}

/** Keys' cubic convolution kernel (1981) at a distance of `x` points. */
function cubic(x: number): number {
  const a = -0.75;
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a;
  return 0;
}
