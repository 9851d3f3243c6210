/** Loads the native addon and types what it exports. Enumerations cross as indices into the lists here. */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { KernelError } from '../backend.ts';
import type { CacheType, ComputeType, Op, StorageType, TensorSpec } from '../program.ts';
import type { StepInputs, StepOutputs } from '../step.ts';

/** Order of `StorageType` in kernels/src/format.h. */
export const STORAGE_TYPES: readonly StorageType[] = [
  'f32',
  'f16',
  'bf16',
  'q4_0',
  'q4_1',
  'q5_0',
  'q5_1',
  'q8_0',
  'q4_k',
  'q5_k',
  'q6_k',
];

/** Order of `ComputeType` in kernels/src/pack.h. */
export const COMPUTE_TYPES: readonly (ComputeType | 'auto')[] = [
  'float32',
  'bfloat16',
  'int8',
  'int4',
  'auto',
];

/** Order of `CacheType` in kernels/src/ops.h. */
export const CACHE_TYPES: readonly CacheType[] = ['float32', 'bfloat16', 'int8'];

/** Order of `OpKind` in kernels/src/model.h. */
export const OPS: readonly Op['op'][] = [
  'embedding',
  'rmsNorm',
  'linear',
  'ropeAndCache',
  'attention',
  'gatherRows',
  'sample',
  'input',
  'scatterRows',
  'layerNorm',
  'queryKeyNorm',
];

/** Order of `RowKind` in kernels/src/model.h. */
export const ROW_KINDS: readonly TensorSpec['rows'][] = ['tokens', 'logitRows', 'inputRows'];

export interface NativeModel {
  /** Bytes of the repacked weights and of the cache; known before `load`. */
  readonly weightBytes: number;
  readonly cacheBytes: number;
  load(): Promise<void>;
  /** 0..1, while `load` runs. */
  progress(): number;
  close(): void;
}

export interface NativeRunner {
  /** Copies `inputs`, fills the arrays of `outputs`, resolves when they are filled. */
  run(inputs: StepInputs, outputs: StepOutputs): Promise<void>;
  close(): void;
}

/** What this machine's memory and arithmetic units give, per second: bytes read and operations (a multiply-add is two). */
export interface Peak {
  readonly readBytes: number;
  readonly float32: number;
  readonly bfloat16: number;
  readonly int8: number;
}

export interface Addon {
  readonly Model: new (description: object, isa: string) => NativeModel;
  readonly Runner: new (model: NativeModel, threads: number) => NativeRunner;
  availableIsas(): string[];
  blockBytes(blockSize: number, kvHeads: number, headSize: number, cacheType: number): number;
  measurePeak(isa: string, threads: number): Peak;
  /** See kernels/resample.ts, which checks what comes here. */
  resampleRows(
    source: Uint8Array,
    width: number,
    rows: number,
    taps: number,
    first: Int32Array,
    count: Int32Array,
    weights: Int32Array,
    out: Uint8Array,
  ): void;
  resampleColumns(
    source: Uint8Array,
    width: number,
    taps: number,
    first: Int32Array,
    count: Int32Array,
    weights: Int32Array,
    out: Uint8Array,
  ): void;
}

const defaultPath = fileURLToPath(new URL('../build/nvlm.node', import.meta.url));
const require = createRequire(import.meta.url);

/** Throws KernelError 'KERNEL_ADDON_MISSING' with the ways out when there is no addon, or none that loads here. */
export function loadAddon(path: string = defaultPath): Addon {
  try {
    return require(path);
  } catch (error) {
    const found = existsSync(path);
    const reason = error instanceof Error ? error.message.split('\n')[0] : String(error);
    throw new KernelError(
      'KERNEL_ADDON_MISSING',
      `native kernels: expected an addon built for this machine at ${path}, ${found ? `which does not load: ${reason}` : 'but there is no such file'}
Possible solutions:
  - build it: npm run build (or: cmake -S kernels -B kernels/build && cmake --build kernels/build -j2)
  - if it was built on another machine or for another Node.js, delete kernels/build first
  - it needs Linux, a C++20 compiler and CMake 3.24 or later`,
      { cause: error },
    );
  }
}
