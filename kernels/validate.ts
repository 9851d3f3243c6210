/** Checks of programs and load options that every backend makes before it allocates anything. Steps: validate-step.ts. */
import { KernelError, type LoadOptions } from './backend.ts';
import type { Op, Program, TensorId, TensorSpec, WeightId, WeightSource } from './program.ts';
import { STORAGE_FORMATS, storageBytes } from './storage.ts';

export type RefusalCode =
  | 'KERNEL_PROGRAM_INVALID'
  | 'KERNEL_WEIGHT_INVALID'
  | 'KERNEL_OPTION_INVALID'
  | 'KERNEL_INPUT_INVALID'
  | 'KERNEL_BUSY'
  | 'KERNEL_CLOSED';

/** Throws a KernelError reading `<subject>: expected <expected>, received <received>`. */
export function refuse(
  code: RefusalCode,
  subject: string,
  expected: string,
  received: unknown,
): never {
  throw new KernelError(code, `${subject}: expected ${expected}, received ${String(received)}`);
}

function isCount(value: number, least: number, most = 2 ** 31 - 1): boolean {
  return Number.isInteger(value) && value >= least && value <= most;
}

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
  const byteLength = 'data' in bytes ? bytes.data.byteLength : bytes.byteLength;
  if (byteLength !== expectedBytes) refuse(code, subject, `${expectedBytes} bytes`, byteLength);
  if ('path' in bytes && !(Number.isSafeInteger(bytes.offset) && bytes.offset >= 0))
    refuse(code, subject, 'a file offset of 0 or more', bytes.offset);
  if (weight.rowOrder) {
    const { headSize } = weight.rowOrder;
    if (!isCount(headSize, 2) || headSize % 2 !== 0 || shape[0]! % headSize !== 0)
      refuse(code, subject, 'a row order whose even head size divides the rows', headSize);
  }
}

/** Checks one op after another, knowing which tensors earlier ops wrote. */
class ProgramChecker {
  readonly #program: Program;
  readonly #written = new Set<TensorId>();
  #subject = '';

  constructor(program: Program) {
    this.#program = program;
  }

  #refuse(expected: string, received: unknown): never {
    refuse('KERNEL_PROGRAM_INVALID', this.#subject, expected, received);
  }

  #tensor(id: TensorId, role: string): TensorSpec {
    const spec = this.#program.tensors[id];
    if (!spec) this.#refuse(`${role} to be a tensor id below ${this.#program.tensors.length}`, id);
    return spec;
  }

  #read(id: TensorId, role: string): TensorSpec {
    const spec = this.#tensor(id, role);
    if (!this.#written.has(id))
      this.#refuse(
        `${role} to be written by an earlier op`,
        `tensor ${spec.name}, not yet written`,
      );
    return spec;
  }

  #write(id: TensorId, rows: TensorSpec['rows'], width: number): void {
    this.#expect(this.#tensor(id, 'out'), 'out', rows, width);
    this.#written.add(id);
  }

  #expect(spec: TensorSpec, role: string, rows: TensorSpec['rows'], width: number): void {
    if (spec.rows !== rows || spec.width !== width)
      this.#refuse(
        `${role} to be (${rows}, ${width})`,
        `tensor ${spec.name} (${spec.rows}, ${spec.width})`,
      );
  }

  #weight(id: WeightId, role: string, shape: readonly (number | undefined)[]): WeightSource {
    const weight = this.#program.weights[id];
    if (!weight)
      this.#refuse(`${role} to be a weight id below ${this.#program.weights.length}`, id);
    const fits =
      weight.shape.length === shape.length &&
      shape.every((size, axis) => size === undefined || size === weight.shape[axis]);
    if (!fits)
      this.#refuse(
        `${role} of shape [${shape.map((size) => size ?? 'any').join(', ')}]`,
        `${weight.name} [${weight.shape.join(', ')}]`,
      );
    return weight;
  }

  #distinct(out: TensorId, x: TensorId): void {
    if (out === x) this.#refuse('out to be another tensor than its input', `tensor ${x} twice`);
  }

  check(op: Op, index: number): void {
    const { heads, cache, vocabularyRows } = this.#program;
    const qkvWidth = (heads + 2 * cache.kvHeads) * cache.headSize;
    this.#subject = `op ${index} (${op.op}) of program ${this.#program.name}`;
    switch (op.op) {
      case 'embedding':
        this.#write(
          op.out,
          'tokens',
          this.#weight(op.weight, 'weight', [undefined, undefined]).shape[1]!,
        );
        return;
      case 'rmsNorm': {
        const x = this.#read(op.x, 'x');
        this.#weight(op.weight, 'weight', [x.width]);
        this.#eps(op.eps);
        if (op.residual !== undefined) {
          this.#expect(this.#read(op.residual, 'residual'), 'residual', x.rows, x.width);
          this.#distinct(op.residual, op.x);
          this.#distinct(op.out, op.residual);
        }
        this.#write(op.out, x.rows, x.width);
        return;
      }
      case 'linear': {
        const x = this.#read(op.x, 'x');
        const sizes = op.weights.map(
          (id) => this.#weight(id, 'weight', [undefined, x.width]).shape[0]!,
        );
        const gated = op.epilogue === 'siluMul';
        if (gated ? sizes.length !== 2 || sizes[0] !== sizes[1] : sizes.length === 0)
          this.#refuse(
            gated ? 'two weights of equal rows for siluMul' : 'at least one weight',
            `rows [${sizes.join(', ')}]`,
          );
        if (op.biases) {
          if (op.biases.length !== sizes.length)
            this.#refuse(`${sizes.length} biases, one for each weight`, op.biases.length);
          op.biases.forEach((id, i) => {
            this.#weight(id, 'bias', [sizes[i]]);
          });
        }
        const width = gated ? sizes[0]! : sizes.reduce((sum, size) => sum + size, 0);
        if (op.residual !== undefined)
          this.#expect(this.#read(op.residual, 'residual'), 'residual', x.rows, width);
        if (op.scale !== undefined) this.#weight(op.scale, 'scale', [width]);
        this.#distinct(op.out, op.x);
        this.#write(op.out, x.rows, width);
        return;
      }
      case 'ropeAndCache':
        this.#expect(this.#read(op.qkv, 'qkv'), 'qkv', 'tokens', qkvWidth);
        this.#layer(op.layer);
        if (op.rope && op.rope.inverseFrequencies.length !== cache.headSize / 2)
          this.#refuse(
            `${cache.headSize / 2} inverse frequencies`,
            op.rope.inverseFrequencies.length,
          );
        return;
      case 'attention':
        this.#expect(this.#read(op.qkv, 'qkv'), 'qkv', 'tokens', qkvWidth);
        this.#layer(op.layer);
        if (!Number.isFinite(op.scale)) this.#refuse('a finite scale', op.scale);
        this.#distinct(op.out, op.qkv);
        this.#write(op.out, 'tokens', heads * cache.headSize);
        return;
      case 'gatherRows': {
        const x = this.#read(op.x, 'x');
        this.#expect(x, 'x', 'tokens', x.width);
        const offsets = op.offsets ?? [0];
        if (offsets.length === 0 || !offsets.every((offset) => isCount(offset, 0)))
          this.#refuse('at least one offset, each 0 or more', `[${offsets.join(', ')}]`);
        this.#write(op.out, 'logitRows', x.width * offsets.length);
        return;
      }
      case 'input':
        if (this.#program.ops.findIndex((other) => other.op === 'input') !== index)
          this.#refuse('a single input op', 'a second one');
        this.#write(op.out, 'inputRows', this.#tensor(op.out, 'out').width);
        return;
      case 'scatterRows': {
        const x = this.#read(op.x, 'x');
        this.#expect(x, 'x', 'inputRows', x.width);
        this.#read(op.out, 'out');
        this.#write(op.out, 'tokens', x.width);
        return;
      }
      case 'layerNorm': {
        const x = this.#read(op.x, 'x');
        this.#weight(op.weight, 'weight', [x.width]);
        this.#weight(op.bias, 'bias', [x.width]);
        this.#eps(op.eps);
        this.#write(op.out, x.rows, x.width);
        return;
      }
      case 'queryKeyNorm':
        this.#expect(this.#read(op.qkv, 'qkv'), 'qkv', 'tokens', qkvWidth);
        this.#weight(op.queryWeight, 'queryWeight', [heads * cache.headSize]);
        this.#weight(op.keyWeight, 'keyWeight', [cache.kvHeads * cache.headSize]);
        this.#eps(op.eps);
        if (!isCount(op.meanWidth, 1, cache.kvHeads * cache.headSize))
          this.#refuse(`a meanWidth from 1 to ${cache.kvHeads * cache.headSize}`, op.meanWidth);
        return;
      case 'sample':
        this.#expect(this.#read(op.logits, 'logits'), 'logits', 'logitRows', vocabularyRows);
        if (index !== this.#program.ops.length - 1)
          this.#refuse('sample to be the last op', `op ${index} of ${this.#program.ops.length}`);
        return;
      default:
        this.#refuse('a known op', (op as { op: string }).op);
    }
  }

  #eps(eps: number): void {
    if (!(eps >= 0 && Number.isFinite(eps))) this.#refuse('eps of 0 or more', eps);
  }

  #layer(layer: number): void {
    if (!isCount(layer, 0, this.#program.cache.layers - 1))
      this.#refuse(`a layer below ${this.#program.cache.layers}`, layer);
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
}

/** Throws KernelError 'KERNEL_OPTION_INVALID' unless `threads` is an integer from 1 to 1024. */
export function validateThreads(threads: number): void {
  if (!isCount(threads, 1, 1024))
    refuse('KERNEL_OPTION_INVALID', 'threads', 'an integer from 1 to 1024', threads);
}
