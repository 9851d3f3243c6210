/** One step on all ranks of a model, and the ops between them: every rank's tensors are at hand, in one process. */
import type { StepOutputs } from '../step.ts';
import { nextTurn, type Step } from './interpreter.ts';

/**
 * Runs one step on all ranks in lockstep: each op on every rank before the next one. The outputs are those of rank 0, whose
 * program is the longest.
 */
export async function runStep(ranks: readonly Step[]): Promise<StepOutputs> {
  const [first] = ranks as [Step];
  for (const [index, op] of first.program.ops.entries()) {
    await nextTurn();
    if (op.op === 'allReduce') allReduce(ranks.map((rank) => rank.tensor(op.x)));
    else if (op.op === 'allGather')
      allGather(
        ranks.map((rank) => rank.tensor(op.x)),
        op.widths,
        ranks.map((rank) => rank.tensor(op.out)),
      );
    else for (const rank of ranks) rank.execute(index);
  }
  return first.outputs();
}

/** Leaves in every tensor the sum of all of them, added in double in the order of the ranks and rounded once. */
function allReduce(tensors: readonly Float32Array[]): void {
  const [first, ...others] = tensors as [Float32Array, ...Float32Array[]];
  for (let i = 0; i < first.length; i++) {
    let sum = first[i]!;
    for (const other of others) sum += other[i]!;
    first[i] = sum;
  }
  for (const other of others) other.set(first);
}

/** Writes the rows of `parts`, `widths[r]` wide on rank r, side by side to each of `outs`. */
function allGather(
  parts: readonly Float32Array[],
  widths: readonly number[],
  outs: readonly Float32Array[],
): void {
  const [first, ...others] = outs as [Float32Array, ...Float32Array[]];
  let at = 0;
  for (let row = 0; at < first.length; row++)
    for (const [rank, width] of widths.entries()) {
      first.set(parts[rank]!.subarray(row * width, (row + 1) * width), at);
      at += width;
    }
  for (const other of others) other.set(first);
}
