/** What the contract suites run on: the reference and the cpu backend on every instruction-set path, with reasons for those left out. */
import type { Backend } from '#kernels/backend.ts';
import { availableIsas, createCpuBackend } from '#kernels/cpu.ts';
import type { ComputeType } from '#kernels/program.ts';
import { createReferenceBackend } from '#kernels/reference/backend.ts';

/** Another addon than kernels/build/nvlm.node: scripts/sanitize.sh names one built with sanitizers. */
const addonPath = process.env.NVLM_TEST_ADDON;

/** Every path of the addon, fastest first. */
const ALL_ISAS = ['amx', 'avx512', 'avx2', 'portable', 'amx-emulated'];

export const COMPUTE_TYPES: readonly ComputeType[] = ['float32', 'bfloat16', 'int8', 'int4'];

export interface Subject {
  /** 'reference' or 'cpu avx2', say. */
  readonly name: string;
  readonly skip: string | false;
  /** Not to be called when `skip` has a reason. */
  readonly create: () => Backend;
}

/** The cpu backend on each path. Without the addon there is one subject, skipped with the reason. */
export function cpuSubjects(): Subject[] {
  let available: readonly string[];
  try {
    available = availableIsas(addonPath);
  } catch (error) {
    return [unavailable('cpu', `the native addon does not load: ${(error as Error).message}`)];
  }
  return ALL_ISAS.map((isa) =>
    available.includes(isa)
      ? { name: `cpu ${isa}`, skip: false, create: () => createCpuBackend({ addonPath, isa }) }
      : unavailable(`cpu ${isa}`, `this machine cannot run ${isa}`),
  );
}

/** The reference and every cpu path. */
export function allSubjects(): Subject[] {
  return [{ name: 'reference', skip: false, create: createReferenceBackend }, ...cpuSubjects()];
}

function unavailable(name: string, reason: string): Subject {
  return {
    name,
    skip: reason,
    create: () => {
      throw new Error(reason);
    },
  };
}
