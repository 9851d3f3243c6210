/** The cpu backend: native kernels of kernels/src behind the contract of backend.ts. Everything is validated on this side. */
import { availableParallelism, cpus } from 'node:os';
import {
  type Backend,
  KernelError,
  type LoadedProgram,
  type LoadOptions,
  type Runner,
} from './backend.ts';
import {
  type Addon,
  CACHE_TYPES,
  loadAddon,
  type NativeModel,
  type NativeRunner,
  type Peak,
} from './cpu/addon.ts';
import { describeProgram } from './cpu/describe.ts';
import { availableMemory } from './cpu/memory.ts';
import type { CacheType, ComputeType, Program } from './program.ts';
import { refuse } from './refuse.ts';
import type { StepInputs, StepOutputs } from './step.ts';
import { cacheTypeOf, largestComputeType } from './storage.ts';
import { validateLoadOptions, validateThreads } from './validate.ts';
import { validateRanks } from './validate-ranks.ts';
import { validateStep } from './validate-step.ts';

export interface CpuBackendOptions {
  /** The built addon; kernels/build/nvlm.node unless given. */
  readonly addonPath?: string | undefined;
  /** One of `availableIsas()`; the fastest of them unless given. */
  readonly isa?: string | undefined;
}

/** Milliseconds between two calls of `onProgress`. */
const PROGRESS_INTERVAL = 200;

/** Instruction-set paths this machine can run, fastest first; 'amx-emulated', for tests, is the last. */
export function availableIsas(addonPath?: string): readonly string[] {
  return loadAddon(addonPath).availableIsas();
}

/** Measures this machine with the instructions of its fastest path for about a second, blocking; for benches. */
export function measurePeak(threads: number): Peak {
  validateThreads(threads);
  const addon = loadAddon();
  const [fastest] = addon.availableIsas();
  if (fastest === undefined)
    throw new KernelError('KERNEL_ISA_UNAVAILABLE', 'isa: this machine runs none of the paths');
  return addon.measurePeak(fastest, threads);
}

/**
 * Throws KernelError 'KERNEL_ADDON_MISSING' when the addon is not built and 'KERNEL_ISA_UNAVAILABLE' when the machine cannot
 * run the path asked for.
 */
export function createCpuBackend(options: CpuBackendOptions = {}): Backend {
  const addon = loadAddon(options.addonPath);
  const isas = addon.availableIsas();
  const isa = options.isa ?? isas[0];
  if (isa === undefined || !isas.includes(isa))
    throw new KernelError(
      'KERNEL_ISA_UNAVAILABLE',
      `isa: expected one that this machine runs (${isas.join(', ')}), received ${isa}; leave it out for the fastest`,
    );
  return {
    name: 'cpu',
    describe: () => ({
      isa:
        isa === 'amx-emulated'
          ? 'amx-emulated (AMX kernels over a software model of the tiles: for tests, slow)'
          : isa,
      device: cpus()[0]?.model ?? 'unknown CPU',
      threads: availableParallelism(),
    }),
    blockBytes: ({ cache }, cacheType, blockSize) =>
      cache.layers *
      addon.blockBytes(blockSize, cache.kvHeads, cache.headSize, CACHE_TYPES.indexOf(cacheType)),
    load: async (program, loadOptions) => {
      const [only, ...others] = validateRanks(program);
      validateLoadOptions(loadOptions);
      if (others.length > 0 || only?.rank !== undefined)
        refuse(
          'KERNEL_RANKS_UNSUPPORTED',
          'cpu backend',
          'a whole model (tensor 1); the reference backend runs split ones',
          `${others.length + 1} ranks`,
        );
      return loadNative(addon, isa, only!, loadOptions);
    },
  };
}

async function loadNative(
  addon: Addon,
  isa: string,
  program: Program,
  options: LoadOptions,
): Promise<LoadedProgram> {
  const computeType = largestComputeType(program, options.computeType);
  const cacheType = cacheTypeOf(computeType, options.cacheType);
  const model = new addon.Model(describeProgram(program, options, cacheType), isa);
  refuseTooLarge(model, options);
  const { onProgress } = options;
  const timer = onProgress && setInterval(() => onProgress(model.progress()), PROGRESS_INTERVAL);
  try {
    await model.load();
  } catch (error) {
    model.close();
    throw toKernelError(error);
  } finally {
    clearInterval(timer);
  }
  onProgress?.(1);
  return new CpuProgram(addon, model, program, options, { computeType, cacheType });
}

function refuseTooLarge(model: NativeModel, options: LoadOptions): void {
  const available = availableMemory();
  const wanted = model.weightBytes + model.cacheBytes;
  if (wanted <= available) return;
  const gigabytes = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(2)} GiB`;
  const perBlock = model.cacheBytes / options.cache.blockCount;
  const blocks = Math.floor((available - model.weightBytes) / perBlock);
  const remedy =
    blocks > 0
      ? `a cache of at most ${blocks} blocks fits`
      : 'the weights alone do not fit: use a smaller model or compute type';
  throw new KernelError(
    'KERNEL_OUT_OF_MEMORY',
    `memory: expected at most the ${gigabytes(available)} available, received weights of ${gigabytes(model.weightBytes)} and a key-value cache of ${gigabytes(model.cacheBytes)} (${options.cache.blockCount} blocks); ${remedy}`,
  );
}

/** Errors of the native side carry their code. */
function toKernelError(error: unknown): unknown {
  if (!(error instanceof Error) || !('code' in error) || typeof error.code !== 'string')
    return error;
  return new KernelError(error.code, error.message, { cause: error });
}

class CpuProgram implements LoadedProgram {
  readonly weightBytes: number;
  readonly cacheBytes: number;
  readonly computeType: ComputeType;
  readonly cacheType: CacheType;
  readonly #addon: Addon;
  readonly #model: NativeModel;
  readonly #program: Program;
  readonly #options: LoadOptions;
  readonly #runners = new Set<CpuRunner>();
  #closed = false;

  constructor(
    addon: Addon,
    model: NativeModel,
    program: Program,
    options: LoadOptions,
    types: { readonly computeType: ComputeType; readonly cacheType: CacheType },
  ) {
    this.#addon = addon;
    this.#model = model;
    this.#program = program;
    this.#options = options;
    this.weightBytes = model.weightBytes;
    this.cacheBytes = model.cacheBytes;
    this.computeType = types.computeType;
    this.cacheType = types.cacheType;
  }

  createRunner(options: { readonly threads: number }): Runner {
    if (this.#closed) refuse('KERNEL_CLOSED', 'createRunner', 'an open program', 'a closed one');
    validateThreads(options.threads);
    let native: NativeRunner;
    try {
      native = new this.#addon.Runner(this.#model, options.threads);
    } catch (error) {
      throw toKernelError(error);
    }
    const runner = new CpuRunner(native, this.#program, this.#options, () =>
      this.#runners.delete(runner),
    );
    this.#runners.add(runner);
    return runner;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await Promise.all([...this.#runners].map((runner) => runner.close()));
    this.#model.close();
  }
}

class CpuRunner implements Runner {
  readonly #native: NativeRunner;
  readonly #program: Program;
  readonly #options: LoadOptions;
  readonly #onClose: () => void;
  #inFlight: Promise<void> | undefined;
  #closed = false;

  constructor(native: NativeRunner, program: Program, options: LoadOptions, onClose: () => void) {
    this.#native = native;
    this.#program = program;
    this.#options = options;
    this.#onClose = onClose;
  }

  async run(inputs: StepInputs): Promise<StepOutputs> {
    if (this.#closed) refuse('KERNEL_CLOSED', 'run', 'an open runner', 'a closed one');
    if (this.#inFlight !== undefined)
      refuse('KERNEL_BUSY', 'run', 'no step in flight', 'a second step');
    checkArrayTypes(inputs, this.#program);
    validateStep(this.#program, this.#options, inputs);
    const outputs = allocateOutputs(inputs, this.#program);
    try {
      this.#inFlight = this.#native.run(inputs, outputs);
      await this.#inFlight;
    } catch (error) {
      throw toKernelError(error);
    } finally {
      this.#inFlight = undefined;
    }
    return outputs;
  }

  async close(): Promise<void> {
    this.#closed = true;
    await this.#inFlight?.catch(() => undefined);
    this.#native.close();
    this.#onClose();
  }
}

const STEP_ARRAYS = {
  tokenIds: Int32Array,
  positions: Int32Array,
  slotMapping: Int32Array,
  cuSeqlensQ: Int32Array,
  seqLens: Int32Array,
  blockTables: Int32Array,
  logitRows: Int32Array,
} as const;

const SAMPLING_ARRAYS = {
  temperature: Float32Array,
  topK: Int32Array,
  topP: Float32Array,
  minP: Float32Array,
  repetitionPenalty: Float32Array,
  presencePenalty: Float32Array,
  frequencyPenalty: Float32Array,
  seed: Uint32Array,
  position: Uint32Array,
  seenOffsets: Int32Array,
  seenIds: Int32Array,
  seenCounts: Int32Array,
  biasOffsets: Int32Array,
  biasIds: Int32Array,
  biasValues: Float32Array,
  logprobs: Int32Array,
} as const;

/** The native side reads raw memory: an array of another type would be read as wild numbers. */
function checkArrayTypes(inputs: StepInputs, program: Program): void {
  const check = (name: string, value: unknown, type: new () => unknown): void => {
    if (!(value instanceof type))
      refuse('KERNEL_INPUT_INVALID', name, type.name, Object.prototype.toString.call(value));
  };
  for (const [name, type] of Object.entries(STEP_ARRAYS))
    check(name, inputs[name as keyof typeof STEP_ARRAYS], type);
  if (inputs.inputRows) check('inputRows', inputs.inputRows, Float32Array);
  if (inputs.inputTargets) check('inputTargets', inputs.inputTargets, Int32Array);
  if (!samples(program)) return;
  const { sampling } = inputs;
  for (const [name, type] of Object.entries(SAMPLING_ARRAYS))
    check(`sampling.${name}`, sampling[name as keyof typeof SAMPLING_ARRAYS], type);
  if (sampling.allowedMask) check('sampling.allowedMask', sampling.allowedMask, Uint32Array);
}

function samples(program: Program): boolean {
  return program.ops.at(-1)?.op === 'sample';
}

function allocateOutputs(inputs: StepInputs, program: Program): StepOutputs {
  const rows = samples(program) ? inputs.logitRows.length : 0;
  let maxTop = 0;
  for (let l = 0; l < rows; l++) maxTop = Math.max(maxTop, inputs.sampling.logprobs[l]!);
  return {
    tokenIds: new Int32Array(rows).fill(-1),
    logprobs: new Float32Array(rows).fill(Number.NaN),
    topIds: new Int32Array(rows * maxTop).fill(-1),
    topLogprobs: new Float32Array(rows * maxTop).fill(Number.NaN),
    maxTop,
    ...(inputs.wantLogits && samples(program)
      ? { logits: new Float32Array(rows * program.vocabularyRows) }
      : {}),
    ...(inputs.wantTensors
      ? {
          tensors: inputs.wantTensors.map((id) => {
            const { rows: kind, width } = program.tensors[id]!;
            const counted = {
              tokens: 'tokenIds',
              logitRows: 'logitRows',
              inputRows: 'inputTargets',
            };
            const rowsOfKind = inputs[counted[kind] as 'tokenIds' | 'logitRows' | 'inputTargets'];
            return new Float32Array((rowsOfKind?.length ?? 0) * width);
          }),
        }
      : {}),
  };
}
