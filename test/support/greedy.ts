/** Runs a program token by token over a block table, greedily or along given ids, and keeps every step's logits. */
import assert from 'node:assert/strict';
import type { Backend } from '#kernels/backend.ts';
import type { CacheType, ComputeType, Program } from '#kernels/program.ts';
import type { StepInputs } from '#kernels/step.ts';
import { stepOf } from './steps.ts';

const BLOCK_SIZE = 16;

export interface GreedyRun {
  /** One id per step: the argmax of the logits over valid ids, ties to the lower id. */
  readonly ids: number[];
  /** (steps) of (V) raw logits. */
  readonly logits: Float32Array[];
}

/**
 * The prompt in one step, then `steps - 1` single-token steps. With `forced`, token i + 1 is forced[i] whatever came out.
 * Blocks are handed out in reverse order, so that an implementation that ignores the block table fails.
 */
export async function runGreedy(
  backend: Backend,
  program: Program | readonly Program[],
  options: {
    readonly promptIds: readonly number[];
    readonly steps: number;
    readonly computeType: ComputeType | 'auto';
    readonly cacheType?: CacheType;
    readonly forced?: readonly number[];
    /** Embeddings that stand for tokens of the prompt. */
    readonly images?: Pick<StepInputs, 'inputRows' | 'inputTargets'>;
    /** Called with each step's id; true ends the run early. */
    readonly stop?: (id: number, step: number) => boolean;
  },
): Promise<GreedyRun> {
  const { promptIds, steps, forced } = options;
  const length = promptIds.length + steps;
  const blockCount = Math.ceil(length / BLOCK_SIZE);
  const blocks = Array.from({ length: blockCount }, (_, index) => blockCount - 1 - index);
  const loaded = await backend.load(program, {
    cache: { blockSize: BLOCK_SIZE, blockCount },
    computeType: options.computeType,
    cacheType: options.cacheType,
    maxTokens: promptIds.length,
    maxSequences: 1,
    maxPositions: length,
  });
  const runner = loaded.createRunner({ threads: 2 });
  try {
    const ids: number[] = [];
    const logits: Float32Array[] = [];
    let tokenIds = promptIds;
    let cachedLength = 0;
    for (let step = 0; step < steps; step++) {
      const out = await runner.run(
        stepOf([{ tokenIds, cachedLength, blocks }], BLOCK_SIZE, {
          wantLogits: true,
          ...(step === 0 && options.images),
        }),
      );
      const id = out.tokenIds[0]!;
      ids.push(id);
      logits.push(out.logits!);
      if (options.stop?.(id, step)) break;
      cachedLength += tokenIds.length;
      tokenIds = [forced?.[step] ?? id];
    }
    return { ids, logits };
  } finally {
    await runner.close();
    await loaded.close();
  }
}

/**
 * The rule for bf16: at the first token that is not the golden one, each side's choice is among the other's five best.
 * `top5Ids`: the golden five of each step.
 */
export function assertCloseAtDivergence(
  golden: {
    readonly id: string;
    readonly greedyIds: readonly number[];
    readonly top5Ids: readonly (readonly number[])[];
  },
  run: GreedyRun,
): void {
  const step = run.ids.findIndex((id, index) => id !== golden.greedyIds[index]);
  if (step === -1) return;
  const ours = run.ids[step]!;
  const theirs = golden.greedyIds[step]!;
  assert.ok(golden.top5Ids[step]!.includes(ours), `${golden.id}: step ${step} chose ${ours}`);
  assert.ok(
    topIds(run.logits[step]!, 5).includes(theirs),
    `${golden.id}: step ${step} ranks ${theirs} below 5`,
  );
}

/** The `count` ids of the highest logits, best first, ties to the lower id. */
export function topIds(logits: Float32Array, count: number): number[] {
  return Array.from(logits.keys())
    .sort((a, b) => logits[b]! - logits[a]! || a - b)
    .slice(0, count);
}
