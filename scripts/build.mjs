/** Everything that stands between a clone and a running engine; each step is skipped when its result is there. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { homedir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildOnce } from './build-once.mjs';
import { run } from './command.mjs';
import { findCompiler } from './prerequisites.mjs';
import { startStep } from './progress.mjs';

export const root = dirname(dirname(fileURLToPath(import.meta.url)));
export const cacheDirectory = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'nvlm');
/** Node 24 of the lockfile: the sources are TypeScript and run as they are. */
export const node = join(root, 'node_modules/node/bin/node');

/** Files below a folder of the checkout with one of the endings, build outputs left out. */
function listFiles(folder, endings) {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory())
      return /^(build|dist)/.test(entry.name) ? [] : listFiles(path, endings);
    return endings.some((ending) => entry.name.endsWith(ending)) ? [path] : [];
  });
}

function digest(paths, ...extra) {
  const hash = createHash('sha256');
  for (const part of extra) hash.update(part).update('\0');
  for (const path of [...paths].sort())
    hash
      .update(path)
      .update('\0')
      .update(readFileSync(join(root, path)));
  return hash.digest('hex').slice(0, 20);
}

const readStamp = (path) => (existsSync(path) ? readFileSync(path, 'utf8') : '');

async function step(title, action) {
  const progress = startStep(title);
  try {
    progress.done((await action(progress)) ?? 'done');
  } catch (error) {
    progress.fail('failed');
    throw error;
  }
}

async function installPackages() {
  const stamp = join(root, 'node_modules/.nvlm-installed');
  const wanted = digest(['package-lock.json'], process.arch, process.platform);
  if (readStamp(stamp) === wanted && existsSync(node)) return;
  await step('Install packages (npm install)', async () => {
    // Not `npm ci`: it refuses a lockfile without the binaries of platforms that a registry does not carry.
    await run('npm', ['install', '--no-save', '--no-audit', '--no-fund'], { cwd: root });
    if (!existsSync(node)) {
      throw new Error(
        'npm install left no node_modules/node/bin/node: its install script did not run. Allow install scripts for the package "node" and try again.',
      );
    }
    writeFileSync(stamp, wanted);
  });
}

/**
 * Builds the addon in the cache, keyed by sources, compiler and machine, and copies it to kernels/build.
 * `sanitize` builds with address and undefined-behaviour sanitizers into kernels/build-sanitize.
 */
export async function buildAddon({ sanitize = false } = {}) {
  const compiler = findCompiler();
  const version = spawnSync(compiler, ['--version'], { encoding: 'utf8' }).stdout;
  const key = digest(
    ['kernels/CMakeLists.txt', ...listFiles('kernels/src', ['.cc', '.h'])],
    process.arch,
    version,
    sanitize ? 'sanitize' : 'release',
  );
  const folder = join(cacheDirectory, 'addon', key);
  const wanted = join(root, sanitize ? 'kernels/build-sanitize' : 'kernels/build', 'nvlm.node');
  const stamp = `${wanted}.key`;
  if (existsSync(wanted) && readStamp(stamp) === key) return;
  await buildOnce(folder, (made) =>
    step(
      sanitize ? 'Build the kernels (sanitizers)' : 'Build the kernels (C++)',
      async (progress) => {
        const work = join(made, 'work');
        const generator = spawnSync('ninja', ['--version']).status === 0 ? ['-G', 'Ninja'] : [];
        await run(
          'cmake',
          [
            '-S',
            join(root, 'kernels'),
            '-B',
            work,
            ...generator,
            '-DCMAKE_BUILD_TYPE=Release',
            `-DCMAKE_CXX_COMPILER=${compiler}`,
            `-DNVLM_SANITIZE=${sanitize ? 'ON' : 'OFF'}`,
          ],
          { cwd: root },
        );
        await run('cmake', ['--build', work, '--parallel', '2'], {
          cwd: root,
          onLine: (line) => {
            const ninja = /^\[(\d+)\/(\d+)\]/.exec(line);
            const make = /^\[ *(\d+)%\]/.exec(line);
            if (ninja) progress.update(Number(ninja[1]) / Number(ninja[2]));
            else if (make) progress.update(Number(make[1]) / 100);
          },
        });
        copyFileSync(join(work, 'nvlm.node'), join(made, 'nvlm.node'));
        rmSync(work, { recursive: true });
      },
    ),
  );
  mkdirSync(dirname(wanted), { recursive: true });
  copyFileSync(join(folder, 'nvlm.node'), `${wanted}.new`);
  renameSync(`${wanted}.new`, wanted);
  writeFileSync(stamp, key);
}

async function buildPage() {
  const stamp = join(root, 'web/dist/.key');
  const key = digest(listFiles('web', ['.ts', '.json']));
  if (readStamp(stamp) === key) return;
  await step('Compile the chat page', async () => {
    await run(node, [join(root, 'node_modules/typescript/bin/tsc'), '-p', 'web'], { cwd: root });
    mkdirSync(dirname(stamp), { recursive: true });
    writeFileSync(stamp, key);
  });
}

/** Packages, addon and page, as far as they are missing or out of date. */
export async function build() {
  await installPackages();
  await buildAddon();
  await buildPage();
}
