/** Files out of the Go modules that the test cluster is built from, kept in the cache by the version that go.sum pins. */
import { createHash } from 'node:crypto';
import { cpSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { cacheDirectory } from '../build.mjs';
import { buildOnce } from '../build-once.mjs';
import { run } from '../command.mjs';
import { modules } from './build.mjs';

/**
 * Copies files or folders of `module` when they are missing; resolves with the folder that has them.
 *
 * @param {{ name: string, builtBy: string, module: string, paths: Record<string, string> }} what `builtBy` is the folder of go.mod
 *   under modules/; `paths` are names in the folder and where they are in the module
 * @returns {Promise<string>}
 */
export async function moduleFiles({ name, builtBy, module, paths }) {
  const cwd = join(modules, builtBy);
  const sums = readFileSync(join(cwd, 'go.sum'), 'utf8');
  const pinned = sums.split('\n').filter((line) => line.startsWith(`${module} `));
  const key = createHash('sha256')
    .update(pinned.join('\n'))
    .update(JSON.stringify(paths))
    .digest('hex')
    .slice(0, 12);
  const folder = join(cacheDirectory, 'cluster', `${name}-${key}`);
  await buildOnce(folder, async (work) => {
    const options = { cwd, env: { GOWORK: 'off', GOFLAGS: '-modcacherw', GOTOOLCHAIN: 'local' } };
    await run('go', ['mod', 'download', module], options);
    const source = (await run('go', ['list', '-m', '-f', '{{.Dir}}', module], options)).trim();
    for (const [to, from] of Object.entries(paths)) {
      cpSync(join(source, from), join(work, to), { recursive: true });
    }
  });
  return folder;
}
