/** kubectl of the cluster's own version, as the administrator. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import type { ControlPlane } from './control-plane.ts';

export interface KubectlResult {
  readonly code: number;
  /** Standard output and error, as they came. */
  readonly output: string;
}

export type Kubectl = (...args: readonly string[]) => Promise<KubectlResult>;

export const kubectlOf =
  ({ programs, kubeconfig }: Pick<ControlPlane, 'programs' | 'kubeconfig'>): Kubectl =>
  (...args) =>
    new Promise((resolve, reject) => {
      const child = spawn(join(programs, 'kubectl'), ['--kubeconfig', kubeconfig, ...args], {
        stdio: ['ignore', 'pipe', 'pipe'],
      });
      let output = '';
      child.stdout.on('data', (chunk) => (output += chunk));
      child.stderr.on('data', (chunk) => (output += chunk));
      child.on('error', reject);
      child.on('close', (code) => resolve({ code: code ?? 1, output }));
    });

/** The output. Throws with it when kubectl fails. */
export async function succeed(kubectl: Kubectl, ...args: readonly string[]): Promise<string> {
  const { code, output } = await kubectl(...args);
  if (code !== 0) throw new Error(`kubectl ${args.join(' ')} ended with ${code}:\n${output}`);
  return output;
}
