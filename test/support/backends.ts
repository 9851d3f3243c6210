/** The backends of this machine, each with the reason when it cannot run here. */
import { existsSync } from 'node:fs';
import type { Backend } from '#kernels/backend.ts';
import { createReferenceBackend } from '#kernels/reference/backend.ts';

export interface AvailableBackend {
  readonly name: Backend['name'];
  /** Undefined with the reason in `skip`. */
  readonly backend: Backend | undefined;
  readonly skip: string | false;
}

export async function availableBackends(): Promise<AvailableBackend[]> {
  return [
    { name: 'reference', backend: createReferenceBackend(), skip: false },
    await nativeBackend(),
  ];
}

async function nativeBackend(): Promise<AvailableBackend> {
  // Not a literal import: this module must load on a machine that has no built addon.
  const module = new URL('../../kernels/cpu.ts', import.meta.url);
  try {
    if (!existsSync(module)) throw new Error('kernels/cpu.ts is not there');
    const { createCpuBackend } = await import(module.href);
    return { name: 'cpu', backend: await createCpuBackend(), skip: false };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return { name: 'cpu', backend: undefined, skip: `no cpu backend on this machine: ${reason}` };
  }
}
