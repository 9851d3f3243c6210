import type { CacheType, ComputeType, Program } from './program.ts';
import type { StepInputs, StepOutputs } from './step.ts';

export interface CacheOptions {
  /** Tokens per block; a multiple of 16. */
  readonly blockSize: number;
  readonly blockCount: number;
}

export interface LoadOptions {
  readonly cache: CacheOptions;
  /**
   * 'auto' keeps what the checkpoint stores: f32 and f16 run in float32, bf16 in bfloat16, 4-bit formats in int4, the other
   * quantised ones in int8. Otherwise every linear runs in the named type; embeddings are looked up from what is stored.
   */
  readonly computeType: ComputeType | 'auto';
  /** Default 'auto': what `cacheTypeOf` in storage.ts gives for the compute type of the largest linear. */
  readonly cacheType?: CacheType | 'auto' | undefined;
  /** Largest T and S of a step; workspaces are sized by them. */
  readonly maxTokens: number;
  readonly maxSequences: number;
  /** Positions of the rotary table. */
  readonly maxPositions: number;
  /** Fill cache and workspaces with NaN at load and workspaces again before every step, so that reading what no op wrote shows. */
  readonly poison?: boolean;
  /** 0..1 of the weight bytes done; called on the event loop a few times a second at most. */
  readonly onProgress?: (fraction: number) => void;
}

/** One program with its weights repacked and its paged cache allocated, or those of all ranks of a model. Runners share both. */
export interface LoadedProgram {
  /** Bytes held by all ranks: weights as repacked, and the cache. */
  readonly weightBytes: number;
  readonly cacheBytes: number;
  /** Compute type that 'auto' came to for the largest linear. */
  readonly computeType: ComputeType;
  readonly cacheType: CacheType;
  /** A runner has its own workspace and threads; runners of one program may run at the same time on disjoint blocks. */
  createRunner(options: { readonly threads: number }): Runner;
  close(): Promise<void>;
}

export interface Runner {
  /**
   * One forward step. One native call; resolves off the event loop. A second call before the first resolves is refused
   * (KernelError 'KERNEL_BUSY'). Inputs are validated and copied before the call returns.
   */
  run(inputs: StepInputs): Promise<StepOutputs>;
  /** Waits for a step in flight, then frees. Idempotent; `run` afterwards is refused with 'KERNEL_CLOSED'. */
  close(): Promise<void>;
}

export interface Backend {
  readonly name: 'reference' | 'cpu';
  /** What the backend runs on, for logs and benches: ISA path, CPU name. */
  describe(): { readonly isa: string; readonly device: string; readonly threads: number };
  /** Bytes one block takes in the cache of the program's rank, keys and values, all layers. */
  blockBytes(program: Program, cacheType: CacheType, blockSize: number): number;
  /**
   * A whole model, or the programs of all its ranks in order: then a step runs on every rank, its inputs are the same for all, and
   * what it gives are rank 0's outputs. Throws KernelError, 'KERNEL_RANKS_UNSUPPORTED' where the backend runs whole models only.
   */
  load(program: Program | readonly Program[], options: LoadOptions): Promise<LoadedProgram>;
}

/** Code -> what happened, in one clause. Codes are stable and never reused; the addon throws them too. */
export const KERNEL_ERRORS = {
  KERNEL_ADDON_MISSING: {
    meaning: 'the native addon is not built, or does not load on this machine',
    remedy: 'run `npm run build`; it needs CMake and a C++20 compiler',
  },
  KERNEL_BUSY: {
    meaning: 'a step was asked for while one was in flight',
    remedy: 'await the step before the next one',
  },
  KERNEL_CLOSED: {
    meaning: 'the program or runner was closed',
    remedy: 'load the program again, or make another runner',
  },
  KERNEL_INPUT_INVALID: {
    meaning: 'an input of a step is of the wrong length or out of range',
    remedy: 'correct the input that the message names',
  },
  KERNEL_ISA_UNAVAILABLE: {
    meaning: 'this CPU cannot run the instruction-set path that was asked for',
    remedy: 'leave NVLM_ISA and --isa out, or name one that the message lists',
  },
  KERNEL_OPTION_INVALID: {
    meaning: 'an option of loading or running has an impossible value',
    remedy: 'correct the option that the message names',
  },
  KERNEL_OUT_OF_MEMORY: {
    meaning: 'weights, cache or workspace could not be allocated',
    remedy: 'lower --kv-cache-memory, choose a narrower --dtype, or a smaller model',
  },
  KERNEL_PROGRAM_INVALID: {
    meaning: 'the op program contradicts itself or asks for what the backend cannot do',
    remedy: 'correct the op that the message names',
  },
  KERNEL_RANKS_UNSUPPORTED: {
    meaning: 'the backend runs whole models only, and this one is split over ranks',
    remedy:
      'record the model for one rank (tensor 1), or load it on a backend that the message names',
  },
  KERNEL_WEIGHT_INVALID: {
    meaning: 'a weight has another shape, type or size than the program says',
    remedy: 'convert or download the model again; the message names the weight',
  },
} as const;

export type KernelErrorCode = keyof typeof KERNEL_ERRORS;

/** A refused program, weight, option or input. `code` is one of KERNEL_ERRORS. */
export class KernelError extends Error {
  readonly code: string;
  constructor(code: string, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'KernelError';
    this.code = code;
  }
}
