/** Shared libraries of this machine that programs load, and the packages they came in. */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, realpathSync } from 'node:fs';

/** Loaded by name while names of hosts are looked up; a C library of 2.34 or newer has them within. */
const lookedUp = ['libnss_files.so.2', 'libnss_dns.so.2', 'libresolv.so.2'];

/** Paths of the libraries and the loader, all that these need too; those below `own` are left out. */
export function librariesOf(programs, own) {
  const found = new Set();
  for (const program of programs) {
    const { status, stdout, stderr } = spawnSync('ldd', [program], { encoding: 'utf8' });
    if (status !== 0) throw new Error(`ldd ${program} failed: ${stderr || stdout}`);
    const missing = /^\s*(\S+) => not found/m.exec(stdout);
    if (missing)
      throw new Error(`${program} needs ${missing[1]}, which this machine does not have.`);
    for (const [, path] of stdout.matchAll(/(?:=>\s+|^\s+)(\/\S+) \(0x/gm)) {
      if (!realpathSync(path).startsWith(`${own}/`)) found.add(path);
    }
  }
  const libc = [...found].find((path) => /\/libc\.so\.6$/.test(path));
  if (libc === undefined) throw new Error('Images are made on Linux with the GNU C library.');
  for (const name of lookedUp) {
    const path = libc.replace(/libc\.so\.6$/, name);
    if (existsSync(path)) found.add(path);
  }
  return [...found].sort();
}

/**
 * What a library is, for the bill of materials: the distribution's package where dpkg knows it.
 *
 * @returns {{ path: string, sha256: string, package?: string, version?: string }}
 */
export function describeLibrary(path) {
  const sha256 = createHash('sha256').update(readFileSync(path)).digest('hex');
  const real = realpathSync(path);
  for (const candidate of [path, real, real.replace(/^\/usr/, '')]) {
    const owner = spawnSync('dpkg-query', ['-S', candidate], { encoding: 'utf8' });
    const [, name] = /^([^:,\s]+)/.exec(owner.stdout ?? '') ?? [];
    if (owner.status !== 0 || name === undefined) continue;
    const { stdout } = spawnSync('dpkg-query', ['--status', name], { encoding: 'utf8' });
    return { path, sha256, package: name, version: /^Version: (.+)$/m.exec(stdout)?.[1] };
  }
  return { path, sha256 };
}
