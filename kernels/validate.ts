/** Checks of programs and load options that every backend makes before it allocates anything. Ops: validate-op.ts; the ranks of one model: validate-ranks.ts; steps: validate-step.ts. */
import type { LoadOptions } from './backend.ts';
import type { Program, WeightSource } from './program.ts';
import { isCount, refuse } from './refuse.ts';
import { byteCount, STORAGE_FORMATS, storageBytes } from './storage.ts';
import { ProgramChecker } from './validate-op.ts';

function validateWeight(weight: WeightSource): void {
  const code = 'KERNEL_WEIGHT_INVALID';
  const format = STORAGE_FORMATS[weight.type];
  if (!format)
    refuse(
      code,
      `weight ${weight.name}`,
      `one of ${Object.keys(STORAGE_FORMATS).join(', ')}`,
      weight.type,
    );
  const shape = weight.shape;
  const subject = `weight ${weight.name} (${weight.type} [${shape.join(', ')}])`;
  if (!(shape.length === 1 || shape.length === 2) || !shape.every((size) => isCount(size, 1)))
    refuse(code, subject, 'one or two positive sizes', `[${shape.join(', ')}]`);
  const width = shape.at(-1)!;
  if (width % format.blockLength !== 0)
    refuse(code, subject, `rows that are a multiple of ${format.blockLength} values`, width);
  const expectedBytes = storageBytes(weight.type, shape);
  const { bytes } = weight;
  if (
    'rows' in bytes &&
    !(isCount(bytes.begin, 0, bytes.end) && isCount(bytes.end, 1, bytes.rowBytes))
  )
    refuse(
      code,
      subject,
      `a part of its rows of ${bytes.rowBytes} bytes`,
      `${bytes.begin} to ${bytes.end}`,
    );
  const byteLength = byteCount(bytes);
  if (byteLength !== expectedBytes) refuse(code, subject, `${expectedBytes} bytes`, byteLength);
  const stored = 'rows' in bytes ? bytes.rows : bytes;
  if ('path' in stored && !(Number.isSafeInteger(stored.offset) && stored.offset >= 0))
    refuse(code, subject, 'a file offset of 0 or more', stored.offset);
  if (weight.rowOrder) {
    const { headSize } = weight.rowOrder;
    if (!isCount(headSize, 2) || headSize % 2 !== 0 || shape[0]! % headSize !== 0)
      refuse(code, subject, 'a row order whose even head size divides the rows', headSize);
  }
}

/**
 * Checks that every op's tensors and weights exist, fit each other and are written before they are read, and that every
 * weight has the bytes its shape asks for. Throws KernelError 'KERNEL_PROGRAM_INVALID' or 'KERNEL_WEIGHT_INVALID'.
 */
export function validateProgram(program: Program): void {
  const code = 'KERNEL_PROGRAM_INVALID';
  const subject = `program ${program.name}`;
  const { heads, cache, vocabularyRows, validTokenCount } = program;
  if (!isCount(cache.layers, 0)) refuse(code, subject, 'cache layers of 0 or more', cache.layers);
  if (!isCount(cache.headSize, 8, 256) || cache.headSize % 8 !== 0)
    refuse(code, subject, 'a head size from 8 to 256 in steps of 8', cache.headSize);
  if (!isCount(cache.kvHeads, 1) || !isCount(heads, 1) || heads % cache.kvHeads !== 0)
    refuse(
      code,
      subject,
      'query heads that are a multiple of the key heads',
      `${heads} and ${cache.kvHeads}`,
    );
  if (!isCount(vocabularyRows, 1)) refuse(code, subject, 'vocabulary rows', vocabularyRows);
  if (!isCount(validTokenCount, 1, vocabularyRows))
    refuse(code, subject, `valid tokens from 1 to ${vocabularyRows}`, validTokenCount);
  if (
    program.rank &&
    !(isCount(program.rank.count, 1) && isCount(program.rank.index, 0, program.rank.count - 1))
  )
    refuse(
      code,
      subject,
      'a rank index below its count',
      `${program.rank.index} of ${program.rank.count}`,
    );
  for (const tensor of program.tensors)
    if (!isCount(tensor.width, 1))
      refuse(code, `tensor ${tensor.name} of ${subject}`, 'a width of 1 or more', tensor.width);
  for (const weight of program.weights) validateWeight(weight);
  const checker = new ProgramChecker(program);
  program.ops.forEach((op, index) => {
    checker.check(op, index);
  });
}

/** Throws KernelError 'KERNEL_OPTION_INVALID' unless sizes are positive integers and the slots of the cache fit an int32. */
export function validateLoadOptions(options: LoadOptions): void {
  const code = 'KERNEL_OPTION_INVALID';
  const { blockSize, blockCount } = options.cache;
  if (!isCount(blockSize, 16) || blockSize % 16 !== 0)
    refuse(code, 'cache.blockSize', 'a positive multiple of 16', blockSize);
  if (!isCount(blockCount, 1) || !isCount(blockCount * blockSize, 1))
    refuse(code, 'cache.blockCount', 'at least 1, and fewer than 2^31 slots in all', blockCount);
  for (const name of ['maxTokens', 'maxSequences', 'maxPositions'] as const)
    if (!isCount(options[name], 1)) refuse(code, name, 'a positive integer', options[name]);
  const computeTypes = ['auto', 'float32', 'bfloat16', 'int8', 'int4'];
  if (!computeTypes.includes(options.computeType))
    refuse(code, 'computeType', `one of ${computeTypes.join(', ')}`, options.computeType);
  const cacheTypes = [undefined, 'auto', 'float32', 'bfloat16', 'int8'];
  if (!cacheTypes.includes(options.cacheType))
    refuse(code, 'cacheType', `one of ${cacheTypes.slice(1).join(', ')}`, options.cacheType);
}

/** Throws KernelError 'KERNEL_OPTION_INVALID' unless `threads` is an integer from 1 to 1024. */
export function validateThreads(threads: number): void {
  if (!isCount(threads, 1, 1024))
    refuse('KERNEL_OPTION_INVALID', 'threads', 'an integer from 1 to 1024', threads);
}
