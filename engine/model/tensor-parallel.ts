/**
 * Tensor parallelism (Shoeybi et al., "Megatron-LM", 2019): every layer is divided between ranks that run the same ops. A linear whose
 * output rows are divided needs nothing from other ranks; the next one has the columns that fit, and its outputs are summed over them.
 */
import type { Rank, TensorId, WeightId } from '#kernels/program.ts';
import type { Recorder } from './recorder.ts';
import type { Range } from './weight-slices.ts';

/** The one rank of a model that is not divided. */
export const WHOLE: Rank = { index: 0, count: 1 };

/**
 * What rank `index` of `count` has of `total`, in units of which the last may be shorter: all ranks the same, but the first ones a unit
 * more where the units do not divide. The ranges follow one another and cover all.
 */
export function shareOf(total: number, { index, count }: Rank, unit = 1): Range {
  const units = Math.ceil(total / unit);
  const bound = (rank: number): number =>
    Math.min(total, unit * (Math.floor(units / count) * rank + Math.min(rank, units % count)));
  return { begin: bound(index), count: bound(index + 1) - bound(index) };
}

/** x (any rows) = its sum over all ranks. */
export function recordAllReduce(recorder: Recorder, x: TensorId): void {
  if (recorder.rank.count > 1) recorder.push({ op: 'allReduce', x });
}

/** The columns of all ranks side by side, `width` of them, from each rank's share of them. */
export function recordAllGather(recorder: Recorder, part: TensorId, width: number): TensorId {
  const { count } = recorder.rank;
  if (count === 1) return part;
  const out = recorder.tensor('logits', 'logitRows', width);
  const widths = Array.from(
    { length: count },
    (_, index) => shareOf(width, { index, count }).count,
  );
  recorder.push({ op: 'allGather', x: part, widths, out });
  return out;
}

/**
 * out = residual + scale * (x W^T + bias), where the ranks have some columns of x and of W each. The scale is every rank's; residual
 * and bias are added by rank 0 before the sum, so that they count once.
 */
export function recordRowParallel(
  recorder: Recorder,
  op: {
    readonly x: TensorId;
    readonly weight: WeightId;
    /** Name and length. */
    readonly bias?: readonly [string, number];
    readonly scale?: WeightId;
    readonly residual?: TensorId;
    readonly out: TensorId;
  },
): void {
  const { x, weight, bias, scale, residual, out } = op;
  const isFirst = recorder.rank.index === 0;
  // The other ranks only see that the bias is there.
  if (bias && !isFirst) recorder.source(bias[0], [bias[1]]);
  recorder.push({
    op: 'linear',
    x,
    weights: [weight],
    ...(bias && isFirst && { biases: [recorder.weight(bias[0], [bias[1]])] }),
    epilogue: 'none',
    ...(scale !== undefined && { scale }),
    ...(residual !== undefined && isFirst && { residual }),
    out,
  });
  recordAllReduce(recorder, out);
}
