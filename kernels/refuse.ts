/** How kernels refuse: one form of message, a code from KERNEL_ERRORS. */
import { KernelError } from './backend.ts';

export type RefusalCode =
  | 'KERNEL_PROGRAM_INVALID'
  | 'KERNEL_WEIGHT_INVALID'
  | 'KERNEL_OPTION_INVALID'
  | 'KERNEL_INPUT_INVALID'
  | 'KERNEL_RANKS_UNSUPPORTED'
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

/** Whether `value` is a whole number from `least` to `most`. */
export function isCount(value: number, least: number, most = 2 ** 31 - 1): boolean {
  return Number.isInteger(value) && value >= least && value <= most;
}
