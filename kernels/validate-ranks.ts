/** Checks that the programs of several ranks are shares of one model: what one waits for, all the others send. */
import type { Op, Program, TensorSpec } from './program.ts';
import { refuse } from './refuse.ts';
import { validateProgram } from './validate.ts';

/**
 * Validates each program, and that together they are all ranks of one model: in order, with the same ops between the same tensors
 * rows, the same sizes where data crosses ranks, and only rank 0 sampling. Throws KernelError 'KERNEL_PROGRAM_INVALID' or
 * 'KERNEL_WEIGHT_INVALID'. Returns the programs; of a whole model the one it has.
 */
export function validateRanks(program: Program | readonly Program[]): readonly Program[] {
  const programs = 'ops' in program ? [program] : program;
  const [first] = programs;
  if (first === undefined) bad('ranks', 'at least one program', 'none');
  for (const [index, rank] of programs.entries()) {
    validateProgram(rank);
    const place = rank.rank ?? { index: 0, count: 1 };
    if (place.count !== programs.length)
      bad(`program ${rank.name}`, `the programs of all ${place.count} ranks`, programs.length);
    if (place.index !== index)
      bad(`program ${index} of ${rank.name}`, `the one of rank ${index}`, `rank ${place.index}`);
    if (index > 0) compareRanks(first, rank, index);
  }
  return programs;
}

function compareRanks(first: Program, other: Program, rank: number): void {
  const subject = `rank ${rank} of program ${first.name}`;
  const shapeOf = ({ cache, vocabularyRows, validTokenCount }: Program): string =>
    `cache layers ${cache.layers}, head size ${cache.headSize}, vocabulary ${validTokenCount} of ${vocabularyRows}`;
  if (shapeOf(other) !== shapeOf(first)) bad(subject, shapeOf(first), shapeOf(other));
  if (other.tensors.length !== first.tensors.length)
    bad(subject, `${first.tensors.length} tensors as rank 0`, other.tensors.length);
  if (other.ops.at(-1)?.op === 'sample') bad(subject, 'no sample op: rank 0 has it', 'one');
  const shared = first.ops.filter(({ op }) => op !== 'sample');
  if (other.ops.length !== shared.length)
    bad(subject, `${shared.length} ops as rank 0`, other.ops.length);
  for (const [index, op] of shared.entries()) {
    const expected = meaningOf(first, op);
    const received = meaningOf(other, other.ops[index]!);
    if (received !== expected) bad(`op ${index} of ${subject}`, `${expected} as rank 0`, received);
  }
}

/** What of an op must be the same on all ranks, as text. */
function meaningOf(program: Program, op: Op): string {
  const shown = (spec: TensorSpec): string => `${spec.name} (${spec.rows}, ${spec.width})`;
  switch (op.op) {
    case 'allReduce':
      return `allReduce of tensor ${op.x}, ${shown(program.tensors[op.x]!)}`;
    case 'allGather':
      return `allGather of tensor ${op.x}, widths ${op.widths.join(', ')}`;
    case 'input':
      return `input to tensor ${op.out}, ${shown(program.tensors[op.out]!)}`;
    case 'gatherRows':
      return `gatherRows with offsets ${(op.offsets ?? [0]).join(', ')}`;
    default:
      return op.op;
  }
}

function bad(subject: string, expected: string, received: unknown): never {
  refuse('KERNEL_PROGRAM_INVALID', subject, expected, received);
}
