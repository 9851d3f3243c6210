/** The backends of this machine, the cpu one once per instruction-set path, each with the reason when it cannot run here. */
import type { Backend } from '#kernels/backend.ts';
import { availableIsas, createCpuBackend } from '#kernels/cpu.ts';
import { createReferenceBackend } from '#kernels/reference/backend.ts';

export interface TestBackend {
  readonly name: string;
  /** Throws where `skip` gives a reason. */
  readonly create: () => Backend;
  readonly skip: string | false;
}

export function testBackends(): TestBackend[] {
  return [{ name: 'reference', create: createReferenceBackend, skip: false }, ...cpuBackends()];
}

/** Fastest path first. */
export function cpuBackends(): TestBackend[] {
  try {
    return availableIsas().map((isa) => ({
      name: `cpu (${isa})`,
      create: () => createCpuBackend({ isa }),
      skip: false,
    }));
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return [{ name: 'cpu', create: createCpuBackend, skip: `no cpu backend here: ${reason}` }];
  }
}
