/** What the LeaderWorkerSet controller needs in a cluster, out of the Go module that it is built from: its CRDs and webhooks, kept in the cache. */
import { createHash } from 'node:crypto';
import { cpSync, existsSync, globSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { cacheDirectory } from '../build.mjs';
import { run } from '../command.mjs';
import { modules } from './build.mjs';

const module = 'sigs.k8s.io/lws';

/**
 * Copies them when they are missing; resolves with the paths of the YAML files.
 *
 * @returns {Promise<{ crds: string[], webhooks: string }>}
 */
export async function leaderWorkerSetManifests() {
  const cwd = join(modules, 'kube');
  const sums = readFileSync(join(cwd, 'go.sum'), 'utf8');
  const pinned = sums.split('\n').filter((line) => line.startsWith(`${module} `));
  const key = createHash('sha256').update(pinned.join('\n')).digest('hex').slice(0, 12);
  const folder = join(cacheDirectory, 'cluster', `lws-${key}`);
  if (!existsSync(folder)) {
    const options = { cwd, env: { GOWORK: 'off', GOFLAGS: '-modcacherw', GOTOOLCHAIN: 'local' } };
    await run('go', ['mod', 'download', module], options);
    const source = (await run('go', ['list', '-m', '-f', '{{.Dir}}', module], options)).trim();
    const work = `${folder}.${process.pid}`;
    mkdirSync(work, { recursive: true });
    try {
      cpSync(join(source, 'config/crd/bases'), join(work, 'crds'), { recursive: true });
      cpSync(join(source, 'config/webhook/manifests.yaml'), join(work, 'webhooks.yaml'));
      if (!existsSync(folder)) renameSync(work, folder);
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
  }
  return {
    crds: globSync(join(folder, 'crds/*.yaml')).sort(),
    webhooks: join(folder, 'webhooks.yaml'),
  };
}
