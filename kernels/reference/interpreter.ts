/** One step of the program on one rank, op after op. */
import type {
  ComputeType,
  LinearOp,
  Op,
  Program,
  QueryKeyNormOp,
  QueryKeySquaresOp,
  RopeAndCacheOp,
  ScatterRowsOp,
  TensorId,
  WeightId,
} from '../program.ts';
import type { StepInputs, StepOutputs } from '../step.ts';
import { attention, type LayerCache } from './attention.ts';
import type { CacheRounding } from './cache-rounding.ts';
import { roundToBfloat16 } from './dequantise.ts';
import {
  embedding,
  gelu,
  layerNorm,
  matmulTransposed,
  rmsNorm,
  rotate,
  scaleByNorm,
  silu,
  sumOfSquares,
} from './ops.ts';
import { quantiseActivations } from './quantise.ts';
import { logProbabilities, sampleRow, topIds } from './sample.ts';

/** What a step needs of a loaded program. */
export interface StepContext {
  readonly program: Program;
  readonly blockSize: number;
  readonly poison: boolean;
  readonly layers: readonly LayerCache[];
  /** How keys and values are rounded when they are stored. */
  readonly cacheRounding: CacheRounding;
  /** Values as stored. */
  readonly weight: (id: WeightId) => Float32Array;
  /** Values as a linear multiplies by them, rounded where its compute type asks for it. */
  readonly linearWeight: (id: WeightId) => Float32Array;
  /** The arithmetic of a linear over this weight. */
  readonly computeType: (id: WeightId) => ComputeType;
}

/** Lets timers and sockets run between two ops: a step of a real model takes seconds here. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

/** Activations (rows, width) as a linear of `computeType` multiplies by them. */
function linearInput(x: Float32Array, width: number, computeType: ComputeType): Float32Array {
  if (computeType === 'float32') return x;
  if (computeType === 'bfloat16') return x.map(roundToBfloat16);
  return quantiseActivations(x, width);
}

/** One run of the program over one step's inputs, with tensors of its own. */
export class Step {
  readonly program: Program;
  readonly #context: StepContext;
  readonly #inputs: StepInputs;
  readonly #tensors: readonly Float32Array[];
  #outputs: StepOutputs;

  constructor(context: StepContext, inputs: StepInputs) {
    this.#context = context;
    this.program = context.program;
    this.#inputs = inputs;
    const rows = {
      tokens: inputs.tokenIds.length,
      logitRows: inputs.logitRows.length,
      inputRows: inputs.inputTargets?.length ?? 0,
    };
    this.#tensors = context.program.tensors.map((spec) =>
      new Float32Array(rows[spec.rows] * spec.width).fill(context.poison ? Number.NaN : 0),
    );
    this.#outputs = {
      tokenIds: new Int32Array(0),
      logprobs: new Float32Array(0),
      topIds: new Int32Array(0),
      topLogprobs: new Float32Array(0),
      maxTop: 0,
    };
  }

  tensor(id: TensorId): Float32Array {
    return this.#tensors[id]!;
  }

  outputs(): StepOutputs {
    const { wantTensors } = this.#inputs;
    return {
      ...this.#outputs,
      ...(wantTensors && { tensors: wantTensors.map((id) => this.tensor(id)) }),
    };
  }

  /** Runs op `index` where this rank has it: only rank 0 samples. */
  execute(index: number): void {
    const op = this.program.ops[index];
    if (op) this.#execute(op);
  }

  #weight(id: WeightId): Float32Array {
    return this.#context.weight(id);
  }

  #execute(op: Op): void {
    const inputs = this.#inputs;
    const tensors = this.#tensors;
    switch (op.op) {
      case 'embedding': {
        const width = this.program.tensors[op.out]!.width;
        const { firstRow = 0 } = op;
        const rows = inputs.tokenIds.map((id) => id - firstRow);
        embedding(this.#weight(op.weight), width, rows, tensors[op.out]!);
        return;
      }
      case 'rmsNorm': {
        const residual = op.residual === undefined ? undefined : tensors[op.residual]!;
        rmsNorm(tensors[op.x]!, residual, this.#weight(op.weight), op.eps, tensors[op.out]!);
        return;
      }
      case 'linear':
        this.#linear(op);
        return;
      case 'ropeAndCache':
        this.#ropeAndCache(op);
        return;
      case 'attention': {
        const { kvHeads, headSize } = this.program.cache;
        const { blockSize, cacheRounding: rounding } = this.#context;
        const { heads } = this.program;
        const { scale, causal = true } = op;
        const shape = { heads, kvHeads, headSize, blockSize, scale, causal, rounding };
        const cache = this.#context.layers[op.layer]!;
        attention(tensors[op.qkv]!, cache, inputs, shape, tensors[op.out]!);
        return;
      }
      case 'gatherRows': {
        const width = this.program.tensors[op.x]!.width;
        const { offsets = [0] } = op;
        const rows = Int32Array.from(
          [...inputs.logitRows].flatMap((row) => offsets.map((offset) => row + offset)),
        );
        embedding(tensors[op.x]!, width, rows, tensors[op.out]!);
        return;
      }
      case 'input':
        if (inputs.inputRows) tensors[op.out]!.set(inputs.inputRows);
        return;
      case 'scatterRows':
        this.#scatterRows(op);
        return;
      case 'layerNorm': {
        const out = tensors[op.out]!;
        layerNorm(tensors[op.x]!, this.#weight(op.weight), this.#weight(op.bias), op.eps, out);
        return;
      }
      case 'queryKeySquares':
        this.#queryKeySquares(op);
        return;
      case 'queryKeyNorm':
        this.#queryKeyNorm(op);
        return;
      case 'allReduce':
      case 'allGather':
        // Between ranks: ranks.ts.
        return;
      case 'sample':
        this.#outputs = this.#sample(tensors[op.logits]!);
        return;
    }
  }

  #linear(op: LinearOp): void {
    const { tensors } = this.program;
    const width = tensors[op.x]!.width;
    const x = this.#tensors[op.x]!;
    // Stacked weights of one compute type share the rounded activations.
    const rounded = new Map<ComputeType, Float32Array>();
    const parts = op.weights.map((id, i) => {
      const bias = op.biases ? this.#weight(op.biases[i]!) : undefined;
      const type = this.#context.computeType(id);
      const input = rounded.get(type) ?? linearInput(x, width, type);
      rounded.set(type, input);
      return matmulTransposed(input, this.#context.linearWeight(id), width, bias);
    });
    const residual = op.residual === undefined ? undefined : this.#tensors[op.residual]!;
    const out = this.#tensors[op.out]!;
    const outWidth = tensors[op.out]!.width;
    const scale = op.scale === undefined ? undefined : this.#weight(op.scale);
    const rows = x.length / width;
    for (let row = 0; row < rows; row++) {
      const first = row * outWidth;
      let at = first;
      const put = (value: number): void => {
        const scaled = scale ? value * scale[at - first]! : value;
        out[at] = residual ? residual[at]! + scaled : scaled;
        at++;
      };
      const activate = op.epilogue === 'gelu' ? gelu : (value: number) => value;
      if (op.epilogue === 'siluMul') {
        const [gate, up] = parts as [Float32Array, Float32Array];
        for (let n = row * outWidth; n < (row + 1) * outWidth; n++) put(silu(gate[n]!) * up[n]!);
      } else {
        for (const part of parts) {
          const partWidth = part.length / rows;
          for (let n = row * partWidth; n < (row + 1) * partWidth; n++) put(activate(part[n]!));
        }
      }
    }
  }

  #scatterRows(op: ScatterRowsOp): void {
    const { width } = this.program.tensors[op.x]!;
    const x = this.#tensors[op.x]!;
    const out = this.#tensors[op.out]!;
    this.#inputs.inputTargets?.forEach((target, r) => {
      for (let i = 0; i < width; i++) {
        const at = target * width + i;
        out[at] = op.add ? out[at]! + x[r * width + i]! : x[r * width + i]!;
      }
    });
  }

  #queryKeySquares(op: QueryKeySquaresOp): void {
    const { heads, cache } = this.program;
    const { width } = this.program.tensors[op.qkv]!;
    const qkv = this.#tensors[op.qkv]!;
    const out = this.#tensors[op.out]!;
    for (let t = 0; t < qkv.length / width; t++) {
      const query = t * width;
      out[2 * t] = sumOfSquares(qkv, query, op.width);
      out[2 * t + 1] = sumOfSquares(qkv, query + heads * cache.headSize, op.width);
    }
  }

  #queryKeyNorm(op: QueryKeyNormOp): void {
    const { width } = this.program.tensors[op.qkv]!;
    const qkv = this.#tensors[op.qkv]!;
    const squares = op.squares === undefined ? undefined : this.#tensors[op.squares]!;
    const { meanWidth, eps } = op;
    for (let t = 0; t < qkv.length / width; t++) {
      let at = t * width;
      for (const [part, id] of [op.queryWeight, op.keyWeight].entries()) {
        const weight = this.#weight(id);
        const sum = squares ? squares[2 * t + part]! : sumOfSquares(qkv, at, meanWidth);
        scaleByNorm(qkv, at, weight, 1 / Math.sqrt(sum / meanWidth + eps));
        at += weight.length;
      }
    }
  }

  #ropeAndCache(op: RopeAndCacheOp): void {
    const { heads, cache } = this.program;
    const { kvHeads, headSize } = cache;
    const qkv = this.#tensors[op.qkv]!;
    const qkvWidth = (heads + 2 * kvHeads) * headSize;
    const kvWidth = kvHeads * headSize;
    const { keys, values } = this.#context.layers[op.layer]!;
    const rounding = this.#context.cacheRounding;
    this.#inputs.positions.forEach((position, t) => {
      const q = t * qkvWidth;
      if (op.rope) rotate(qkv, q, heads + kvHeads, headSize, position, op.rope);
      const slot = this.#inputs.slotMapping[t]!;
      if (slot < 0) return;
      const k = q + heads * headSize;
      for (let i = 0; i < kvWidth; i += headSize) {
        rounding.key(qkv, k + i, headSize, keys, slot * kvWidth + i);
        rounding.value(qkv, k + kvWidth + i, headSize, values, slot * kvWidth + i);
      }
    });
  }

  #sample(logits: Float32Array): StepOutputs {
    const { vocabularyRows, validTokenCount } = this.program;
    const { sampling, wantLogits } = this.#inputs;
    const rows = this.#inputs.logitRows.length;
    const maxTop = Math.max(0, ...sampling.logprobs);
    const outputs = {
      tokenIds: new Int32Array(rows),
      logprobs: new Float32Array(rows).fill(Number.NaN),
      topIds: new Int32Array(rows * maxTop).fill(-1),
      topLogprobs: new Float32Array(rows * maxTop).fill(Number.NaN),
      maxTop,
      ...(wantLogits && { logits: logits.slice() }),
    };
    for (let l = 0; l < rows; l++) {
      const raw = logits.subarray(l * vocabularyRows, (l + 1) * vocabularyRows);
      const id = sampleRow(raw, sampling, l, validTokenCount);
      outputs.tokenIds[l] = id;
      const wanted = sampling.logprobs[l]!;
      if (wanted < 0) continue;
      const logprobs = logProbabilities(raw, validTokenCount);
      if (id >= 0) outputs.logprobs[l] = logprobs[id]!;
      topIds(raw, wanted, validTokenCount).forEach((topId, i) => {
        outputs.topIds[l * maxTop + i] = topId;
        outputs.topLogprobs[l * maxTop + i] = logprobs[topId]!;
      });
    }
    return outputs;
  }
}
