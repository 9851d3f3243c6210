/** Helm, built from its Go module and kept in the cache by version: the tests install our chart with it. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { cacheDirectory } from '../build.mjs';
import { buildOnce } from '../build-once.mjs';
import { buildProgram, findGo, modules } from './build.mjs';

const program = {
  title: 'Helm',
  module: 'helm',
  package: 'helm.sh/helm/v3/cmd/helm',
  output: 'helm',
  // The Kubernetes that `helm template` renders for, as Helm's own releases set it.
  flags: [
    '-s',
    '-w',
    ...['Major=1', 'Minor=34'].map((part) => `-X helm.sh/helm/v3/pkg/chartutil.k8sVersion${part}`),
  ].join(' '),
};

/**
 * Builds it when it is missing; resolves with its path.
 *
 * @returns {Promise<string>}
 */
export async function buildHelm() {
  const hash = createHash('sha256').update(process.arch).update(JSON.stringify(program));
  for (const file of ['go.mod', 'go.sum']) hash.update(readFileSync(join(modules, 'helm', file)));
  const folder = join(cacheDirectory, 'cluster', `helm-${hash.digest('hex').slice(0, 12)}`);
  const path = join(folder, program.output);
  if (existsSync(path)) return path;
  if (!findGo()) throw new Error('Helm is built from its Go module: install Go 1.25 or later.');
  await buildOnce(folder, (work) => buildProgram(program, work));
  return path;
}
