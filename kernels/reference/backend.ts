/** The op program interpreted in plain TypeScript: the oracle that every other backend is compared with. */
import type { Backend, LoadedProgram, LoadOptions, Runner } from '../backend.ts';
import type { CacheType, ComputeType, Program, WeightId, WeightSource } from '../program.ts';
import { refuse } from '../refuse.ts';
import type { StepInputs, StepOutputs } from '../step.ts';
import {
  cacheTypeOf,
  computeTypeOf,
  elementCount,
  largestComputeType,
  storageBytes,
} from '../storage.ts';
import { validateLoadOptions, validateThreads } from '../validate.ts';
import { validateRanks } from '../validate-ranks.ts';
import { validateStep } from '../validate-step.ts';
import { CACHE_ROUNDINGS } from './cache-rounding.ts';
import { roundToBfloat16 } from './dequantise.ts';
import { nextTurn, Step, type StepContext } from './interpreter.ts';
import { quantiseWeights } from './quantise.ts';
import { runStep } from './ranks.ts';
import { readWeight } from './weights.ts';

/** Weights and cache of one rank. */
class ReferenceRank {
  readonly program: Program;
  readonly options: LoadOptions;
  readonly computeType: ComputeType;
  readonly cacheType: CacheType;
  readonly weightBytes: number;
  readonly cacheBytes: number;
  readonly context: StepContext;
  readonly #weights: Float32Array[] = [];
  readonly #linearWeights: Float32Array[] = [];

  constructor(program: Program, options: LoadOptions) {
    this.program = program;
    this.options = options;
    this.computeType = largestComputeType(program, options.computeType);
    this.cacheType = cacheTypeOf(this.computeType, options.cacheType);
    this.weightBytes = program.weights.reduce(
      (sum, weight) => sum + Float32Array.BYTES_PER_ELEMENT * elementCount(weight.shape),
      0,
    );
    const { layers, kvHeads, headSize } = program.cache;
    const { blockCount, blockSize } = options.cache;
    const values = blockCount * blockSize * kvHeads * headSize;
    this.cacheBytes = 2 * Float32Array.BYTES_PER_ELEMENT * layers * values;
    const poison = options.poison ?? false;
    const allocate = (): Float32Array => new Float32Array(values).fill(poison ? Number.NaN : 0);
    this.context = {
      program,
      blockSize,
      poison,
      layers: Array.from({ length: layers }, () => ({ keys: allocate(), values: allocate() })),
      cacheRounding: CACHE_ROUNDINGS[this.cacheType],
      weight: (id) => this.#weights[id]!,
      linearWeight: (id) => this.#linearWeights[id]!,
      computeType: (id) => this.#computeType(id),
    };
  }

  #computeType(id: WeightId): ComputeType {
    return computeTypeOf(this.program.weights[id]!.type, this.options.computeType);
  }

  /** `onProgress`: 0..1 of the weight bytes of this rank. */
  async readWeights(onProgress: (fraction: number) => void): Promise<void> {
    const { weights, ops } = this.program;
    const ofLinears = new Set(ops.flatMap((op) => (op.op === 'linear' ? op.weights : [])));
    const total = weights.reduce((sum, { type, shape }) => sum + storageBytes(type, shape), 0);
    let done = 0;
    for (const [id, weight] of weights.entries()) {
      const values = readWeight(weight);
      this.#weights.push(values);
      // Tables are looked up as stored, so an embedding table that is also a linear keeps both.
      const computeType = ofLinears.has(id) ? this.#computeType(id) : 'float32';
      this.#linearWeights.push(linearValues(values, weight, computeType));
      done += storageBytes(weight.type, weight.shape);
      onProgress(done / total);
      await nextTurn();
    }
  }

  forgetWeights(): void {
    this.#weights.length = 0;
    this.#linearWeights.length = 0;
  }
}

class ReferenceProgram implements LoadedProgram {
  readonly ranks: readonly ReferenceRank[];
  readonly options: LoadOptions;
  readonly computeType: ComputeType;
  readonly cacheType: CacheType;
  readonly weightBytes: number;
  readonly cacheBytes: number;
  readonly runners = new Set<ReferenceRunner>();
  #closed = false;

  constructor(programs: readonly Program[], options: LoadOptions) {
    this.ranks = programs.map((program) => new ReferenceRank(program, options));
    this.options = options;
    this.computeType = this.ranks[0]!.computeType;
    this.cacheType = this.ranks[0]!.cacheType;
    this.weightBytes = this.ranks.reduce((sum, rank) => sum + rank.weightBytes, 0);
    this.cacheBytes = this.ranks.reduce((sum, rank) => sum + rank.cacheBytes, 0);
  }

  async readWeights(): Promise<void> {
    const { onProgress } = this.options;
    for (const [index, rank] of this.ranks.entries())
      await rank.readWeights((done) => onProgress?.((index + done) / this.ranks.length));
  }

  createRunner(options: { readonly threads: number }): Runner {
    if (this.#closed) refuse('KERNEL_CLOSED', 'createRunner', 'an open program', 'a closed one');
    validateThreads(options.threads);
    const runner = new ReferenceRunner(this);
    this.runners.add(runner);
    return runner;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.runners].map((runner) => runner.close()));
    for (const rank of this.ranks) rank.forgetWeights();
  }
}

/** The values that a linear of `computeType` multiplies by; `values` itself where they are those. */
function linearValues(
  values: Float32Array,
  weight: WeightSource,
  computeType: ComputeType,
): Float32Array {
  if (computeType === 'float32') return values;
  if (computeType !== 'bfloat16')
    return quantiseWeights(values, weight.shape.at(-1)!, weight.type, computeType);
  return weight.type === 'bf16' ? values : values.map(roundToBfloat16);
}

class ReferenceRunner implements Runner {
  readonly #loaded: ReferenceProgram;
  #inFlight: Promise<StepOutputs> | undefined;
  #closed = false;

  constructor(loaded: ReferenceProgram) {
    this.#loaded = loaded;
  }

  async run(inputs: StepInputs): Promise<StepOutputs> {
    if (this.#closed) refuse('KERNEL_CLOSED', 'run', 'an open runner', 'a closed one');
    if (this.#inFlight) refuse('KERNEL_BUSY', 'run', 'no step in flight', 'a second step');
    const { ranks, options } = this.#loaded;
    validateStep(ranks[0]!.program, options, inputs);
    const copy = structuredClone(inputs);
    this.#inFlight = runStep(ranks.map(({ context }) => new Step(context, copy)));
    try {
      return await this.#inFlight;
    } finally {
      this.#inFlight = undefined;
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#loaded.runners.delete(this);
    await this.#inFlight?.catch(() => undefined);
  }
}

/**
 * The reference backend, and the definition of each compute type: float32 linears use the exact values of the stored weights,
 * bfloat16 ones round activations and weights, int8 and int4 ones quantise activations (and weights that have no such codes)
 * as quantise.ts says; all sum in double. A step runs on the event loop, which gets a turn between two ops. The ranks of a split
 * model run in lockstep, op by op.
 */
export function createReferenceBackend(): Backend {
  return {
    name: 'reference',
    describe: () => ({
      isa: 'javascript',
      device: `${process.platform} ${process.arch}`,
      threads: 1,
    }),
    blockBytes: ({ cache }, _cacheType, blockSize) =>
      2 *
      Float32Array.BYTES_PER_ELEMENT *
      cache.layers *
      cache.kvHeads *
      cache.headSize *
      blockSize,
    load: async (program, options) => {
      const programs = validateRanks(program);
      validateLoadOptions(options);
      const loaded = new ReferenceProgram(programs, options);
      await loaded.readWeights();
      return loaded;
    },
  };
}
