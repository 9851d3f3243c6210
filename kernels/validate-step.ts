/** Checks of one step's inputs: everything a backend will use as an index or a size, so that bad input never reads wild memory. */
import type { LoadOptions } from './backend.ts';
import type { Program } from './program.ts';
import { refuse } from './refuse.ts';
import type { SamplingInputs, StepInputs } from './step.ts';

interface Indexed {
  readonly length: number;
  readonly [index: number]: number;
}

function bad(subject: string, expected: string, received: unknown): never {
  refuse('KERNEL_INPUT_INVALID', subject, expected, received);
}

function checkLength(name: string, values: Indexed, length: number): void {
  if (values.length !== length) bad(name, `length ${length}`, `length ${values.length}`);
}

function checkRange(name: string, values: Indexed, least: number, most: number): void {
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!;
    if (!(value >= least && value <= most))
      bad(`${name}[${i}]`, `a value from ${least} to ${most}`, value);
  }
}

/** CSR offsets: `rows + 1` values from 0, never falling, the last one `total`. */
function checkOffsets(name: string, offsets: Indexed, rows: number, total: number): void {
  checkLength(name, offsets, rows + 1);
  if (offsets[0] !== 0) bad(`${name}[0]`, '0', offsets[0]);
  for (let i = 1; i <= rows; i++)
    if (offsets[i]! < offsets[i - 1]!)
      bad(`${name}[${i}]`, `at least ${offsets[i - 1]}`, offsets[i]);
  if (offsets[rows] !== total) bad(`${name}[${rows}]`, `${total}`, offsets[rows]);
}

function validateSampling(sampling: SamplingInputs, rows: number, vocabularyRows: number): void {
  const largest = 3.4e38;
  const perRow = [
    ['temperature', 0, largest],
    ['topK', 0, 2 ** 31 - 1],
    ['topP', 0, 1],
    ['minP', 0, 1],
    ['repetitionPenalty', 1e-30, largest],
    ['presencePenalty', -largest, largest],
    ['frequencyPenalty', -largest, largest],
    ['logprobs', -1, vocabularyRows],
    ['position', 0, 2 ** 32 - 1],
  ] as const;
  for (const [name, least, most] of perRow) {
    checkLength(`sampling.${name}`, sampling[name], rows);
    checkRange(`sampling.${name}`, sampling[name], least, most);
  }
  checkLength('sampling.seed', sampling.seed, 2 * rows);
  const { seenOffsets, seenIds, seenCounts, biasOffsets, biasIds, biasValues, allowedMask } =
    sampling;
  checkOffsets('sampling.seenOffsets', seenOffsets, rows, seenIds.length);
  checkRange('sampling.seenIds', seenIds, 0, vocabularyRows - 1);
  checkLength('sampling.seenCounts', seenCounts, seenIds.length);
  checkRange('sampling.seenCounts', seenCounts, 0, 2 ** 31 - 1);
  checkOffsets('sampling.biasOffsets', biasOffsets, rows, biasIds.length);
  checkRange('sampling.biasIds', biasIds, 0, vocabularyRows - 1);
  checkLength('sampling.biasValues', biasValues, biasIds.length);
  checkRange('sampling.biasValues', biasValues, -Infinity, largest);
  if (allowedMask)
    checkLength('sampling.allowedMask', allowedMask, rows * Math.ceil(vocabularyRows / 32));
}

/** Ids a step may name: rows of the smallest embedding table, or of the vocabulary when nothing is embedded. */
export function tokenIdLimit(program: Program): number {
  const tables = program.ops.filter((op) => op.op === 'embedding');
  if (tables.length === 0) return program.vocabularyRows;
  return Math.min(
    ...tables.map((op) =>
      // The rows of the other ranks are there too.
      op.firstRow === undefined ? program.weights[op.weight]!.shape[0]! : program.vocabularyRows,
    ),
  );
}

function validateInputRows(program: Program, maxTokens: number, inputs: StepInputs): void {
  const { inputRows, inputTargets } = inputs;
  const input = program.ops.find((op) => op.op === 'input');
  const rows = inputTargets?.length ?? 0;
  if (!input) {
    if (rows > 0 || (inputRows?.length ?? 0) > 0)
      bad('inputRows', 'none: the program has no input op', `${rows} rows`);
    return;
  }
  if (rows > maxTokens) bad('inputTargets', `at most ${maxTokens} rows`, rows);
  checkLength('inputRows', inputRows ?? [], rows * program.tensors[input.out]!.width);
  for (let r = 0; r < rows; r++) {
    const least = r === 0 ? 0 : inputTargets![r - 1]! + 1;
    if (!(inputTargets![r]! >= least && inputTargets![r]! < inputs.tokenIds.length))
      bad(`inputTargets[${r}]`, `ascending rows below ${inputs.tokenIds.length}`, inputTargets![r]);
  }
}

/**
 * Throws KernelError 'KERNEL_INPUT_INVALID' naming the array, what was expected and what came, unless every length agrees and
 * every index stays inside the vocabulary, the rotary table, the block tables and the cache of `options`.
 * O(T + L + used blocks + seen ids); called by every backend before a step's inputs are copied.
 */
export function validateStep(
  program: Program,
  options: Pick<LoadOptions, 'cache' | 'maxTokens' | 'maxSequences' | 'maxPositions'>,
  inputs: StepInputs,
): void {
  const { blockSize, blockCount } = options.cache;
  const tokens = inputs.tokenIds.length;
  const sequences = inputs.seqLens.length;
  if (tokens > options.maxTokens) bad('tokenIds', `at most ${options.maxTokens} tokens`, tokens);
  if (sequences > options.maxSequences)
    bad('seqLens', `at most ${options.maxSequences} sequences`, sequences);
  checkRange('tokenIds', inputs.tokenIds, 0, tokenIdLimit(program) - 1);
  checkLength('positions', inputs.positions, tokens);
  checkRange('positions', inputs.positions, 0, options.maxPositions - 1);
  checkLength('slotMapping', inputs.slotMapping, tokens);
  checkRange('slotMapping', inputs.slotMapping, -1, blockSize * blockCount - 1);
  checkOffsets('cuSeqlensQ', inputs.cuSeqlensQ, sequences, tokens);

  const { seqLens, cuSeqlensQ, blockTables, maxBlocksPerSequence } = inputs;
  if (!Number.isInteger(maxBlocksPerSequence) || maxBlocksPerSequence < 0)
    bad('maxBlocksPerSequence', 'an integer of 0 or more', maxBlocksPerSequence);
  checkLength('blockTables', blockTables, sequences * maxBlocksPerSequence);
  for (let s = 0; s < sequences; s++) {
    const queries = cuSeqlensQ[s + 1]! - cuSeqlensQ[s]!;
    const most = maxBlocksPerSequence * blockSize;
    if (seqLens[s]! < queries || seqLens[s]! > most)
      bad(`seqLens[${s}]`, `from its ${queries} queries to ${most} keys`, seqLens[s]);
    const usedBlocks = Math.ceil(seqLens[s]! / blockSize);
    for (let i = s * maxBlocksPerSequence; i < s * maxBlocksPerSequence + usedBlocks; i++)
      if (!(blockTables[i]! >= 0 && blockTables[i]! < blockCount))
        bad(`blockTables[${i}]`, `a block from 0 to ${blockCount - 1}`, blockTables[i]);
  }

  const { logitRows } = inputs;
  // Rows beyond a wanted one that gatherRows reads with it.
  const reach = Math.max(
    0,
    ...program.ops.flatMap((op) => (op.op === 'gatherRows' ? (op.offsets ?? []) : [])),
  );
  for (let l = 0; l < logitRows.length; l++) {
    const least = l === 0 ? 0 : logitRows[l - 1]! + 1;
    if (!(logitRows[l]! >= least && logitRows[l]! < tokens - reach))
      bad(`logitRows[${l}]`, `ascending rows below ${tokens - reach}`, logitRows[l]);
  }
  validateInputRows(program, options.maxTokens, inputs);
  if (program.ops.at(-1)?.op === 'sample')
    validateSampling(inputs.sampling, logitRows.length, program.vocabularyRows);
  for (const id of inputs.wantTensors ?? [])
    if (!program.tensors[id]) bad('wantTensors', `tensor ids below ${program.tensors.length}`, id);
}
