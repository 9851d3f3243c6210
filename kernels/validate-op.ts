/** Checks of single ops: that their tensors and weights exist, fit each other and are written before they are read. */
import type { Op, Program, Rank, TensorId, TensorSpec, WeightId, WeightSource } from './program.ts';
import { isCount, refuse } from './refuse.ts';

/** Checks one op after another, knowing which tensors earlier ops wrote. */
export class ProgramChecker {
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
      case 'embedding': {
        const [rows, width] = this.#weight(op.weight, 'weight', [undefined, undefined]).shape;
        if (op.firstRow !== undefined) {
          this.#ranks();
          if (!isCount(op.firstRow, 0, vocabularyRows - rows!))
            this.#refuse(`a firstRow from 0 to ${vocabularyRows - rows!}`, op.firstRow);
        }
        this.#write(op.out, 'tokens', width!);
        return;
      }
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
      case 'queryKeySquares':
        this.#expect(this.#read(op.qkv, 'qkv'), 'qkv', 'tokens', qkvWidth);
        if (!isCount(op.width, 0, cache.kvHeads * cache.headSize))
          this.#refuse(`a width from 0 to ${cache.kvHeads * cache.headSize}`, op.width);
        this.#distinct(op.out, op.qkv);
        this.#write(op.out, 'tokens', 2);
        return;
      case 'queryKeyNorm': {
        this.#expect(this.#read(op.qkv, 'qkv'), 'qkv', 'tokens', qkvWidth);
        this.#weight(op.queryWeight, 'queryWeight', [heads * cache.headSize]);
        this.#weight(op.keyWeight, 'keyWeight', [cache.kvHeads * cache.headSize]);
        this.#eps(op.eps);
        let most = cache.kvHeads * cache.headSize;
        if (op.squares !== undefined) {
          const { count } = this.#ranks();
          this.#expect(this.#read(op.squares, 'squares'), 'squares', 'tokens', 2);
          // The heads of a rank are as many as those of any other, or one fewer or more.
          most = (most + cache.headSize) * count;
        }
        if (!isCount(op.meanWidth, 1, most))
          this.#refuse(`a meanWidth from 1 to ${most}`, op.meanWidth);
        return;
      }
      case 'allReduce':
        this.#ranks();
        this.#read(op.x, 'x');
        return;
      case 'allGather': {
        const { index: rank, count } = this.#ranks();
        const x = this.#read(op.x, 'x');
        if (op.widths.length !== count || !op.widths.every((width) => isCount(width, 1)))
          this.#refuse(`${count} widths of 1 or more, one for each rank`, op.widths.join(', '));
        if (op.widths[rank] !== x.width)
          this.#refuse(
            `a width of ${x.width} for rank ${rank}, whose x is as wide`,
            op.widths[rank],
          );
        this.#distinct(op.out, op.x);
        this.#write(
          op.out,
          x.rows,
          op.widths.reduce((sum, width) => sum + width, 0),
        );
        return;
      }
      case 'sample':
        this.#expect(this.#read(op.logits, 'logits'), 'logits', 'logitRows', vocabularyRows);
        if (index !== this.#program.ops.length - 1)
          this.#refuse('sample to be the last op', `op ${index} of ${this.#program.ops.length}`);
        return;
      default:
        this.#refuse('a known op', (op as { op: string }).op);
    }
  }

  /** The program's rank; ops between ranks are refused in the program of a whole model. */
  #ranks(): Rank {
    return this.#program.rank ?? this.#refuse('the program of a rank', 'that of a whole model');
  }

  #eps(eps: number): void {
    if (!(eps >= 0 && Number.isFinite(eps))) this.#refuse('eps of 0 or more', eps);
  }

  #layer(layer: number): void {
    if (!isCount(layer, 0, this.#program.cache.layers - 1))
      this.#refuse(`a layer below ${this.#program.cache.layers}`, layer);
  }
}
