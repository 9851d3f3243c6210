/** Helm of the version that the tests pin, in folders of its own: it neither reads nor writes those of the user. */
import { spawn } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Yaml } from 'cdk8s';
import type { KubeObject } from '#charts/kube.ts';
import { findGo } from '../../../scripts/cluster/build.mjs';
import { buildHelm } from '../../../scripts/cluster/helm.mjs';

export const CHART = join(import.meta.dirname, '../../../charts/nvlm-operator');

/** Why tests with helm are skipped, or false. Under CI a missing Go fails them. */
export const noHelm = (): string | false =>
  process.env.CI || findGo() !== undefined
    ? false
    : 'no Go to build helm with; install Go 1.25 or later';

/** Plain objects, with every field that is written: a typed loader drops those that it does not know. */
export const readManifest = (file: string): readonly KubeObject[] =>
  (Yaml.load(file) as (KubeObject | null)[]).filter((object) => object !== null);

export function parseManifest(text: string): readonly KubeObject[] {
  const folder = mkdtempSync(join(tmpdir(), 'nvlm-manifest-'));
  try {
    writeFileSync(join(folder, 'all.yaml'), text);
    return readManifest(join(folder, 'all.yaml'));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export interface HelmResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Helm {
  run(...args: readonly string[]): Promise<HelmResult>;
  /** Throws with what helm said when it fails. */
  succeed(...args: readonly string[]): Promise<string>;
  /** A copy of our chart with files of it edited. */
  editedChart(edits: Readonly<Record<string, (text: string) => string>>): string;
  stop(): void;
}

export async function startHelm(kubeconfig = '/dev/null'): Promise<Helm> {
  const program = await buildHelm();
  const folder = mkdtempSync(join(tmpdir(), 'nvlm-helm-'));
  let copies = 0;
  const env = {
    ...process.env,
    KUBECONFIG: kubeconfig,
    HELM_CACHE_HOME: join(folder, 'cache'),
    HELM_CONFIG_HOME: join(folder, 'config'),
    HELM_DATA_HOME: join(folder, 'data'),
  };
  const run = (...args: readonly string[]): Promise<HelmResult> =>
    new Promise((resolve, reject) => {
      const child = spawn(program, args, { env });
      let stdout = '';
      let stderr = '';
      child.stdout.on('data', (chunk) => (stdout += chunk));
      child.stderr.on('data', (chunk) => (stderr += chunk));
      child.on('error', reject);
      child.on('close', (code) => resolve({ code: code ?? 1, stdout, stderr }));
    });
  return {
    run,
    async succeed(...args) {
      const { code, stdout, stderr } = await run(...args);
      if (code !== 0) throw new Error(`helm ${args.join(' ')} ended with ${code}:\n${stderr}`);
      return stdout;
    },
    editedChart(edits) {
      const copy = join(folder, `chart-${++copies}`);
      cpSync(CHART, copy, { recursive: true });
      for (const [path, edit] of Object.entries(edits)) {
        const before = readFileSync(join(copy, path), 'utf8');
        const after = edit(before);
        if (after === before) throw new Error(`the edit of ${path} changes nothing`);
        writeFileSync(join(copy, path), after);
      }
      return copy;
    },
    stop: () => rmSync(folder, { recursive: true, force: true }),
  };
}
