/** npm packages that an image needs: what its sources import, and what those depend on, by the lockfile. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import { join } from 'node:path';

const importLine =
  /(?:^|[;}\s])(?:import|export)\s[^;'"]*?from\s*['"]([^'"#.][^'"]*)['"]|import\(\s*['"]([^'"#.][^'"]*)['"]|^import\s+['"]([^'"#.][^'"]*)['"]/gm;

const packageOf = (specifier) => specifier.split('/', specifier.startsWith('@') ? 2 : 1).join('/');

/** Names of packages that the sources import; types alone do not count. */
export function importedPackages(root, files) {
  const names = new Set();
  for (const file of files.filter((name) => /\.(ts|mjs|js)$/.test(name))) {
    const text = readFileSync(join(root, file), 'utf8').replace(/^import type [^;]*;/gm, '');
    for (const [, from, dynamic, bare] of text.matchAll(importLine)) {
      const specifier = from ?? dynamic ?? bare;
      if (specifier.startsWith('node:') || builtinModules.includes(specifier)) continue;
      names.add(packageOf(specifier));
    }
  }
  return [...names].sort();
}

/** Where `name` is found from the package at `from`, the way Node looks: `from`'s own node_modules, then its parents'. */
function locate(packages, from, name) {
  for (let place = from; ; ) {
    const path = place === '' ? `node_modules/${name}` : `${place}/node_modules/${name}`;
    if (packages[path] !== undefined) return path;
    if (place === '') return undefined;
    const cut = place.lastIndexOf('/node_modules/');
    place = cut === -1 ? '' : place.slice(0, cut);
  }
}

/**
 * The packages with all they depend on, as they are installed here.
 *
 * @param {string} root
 * @param {readonly string[]} names Packages that the checkout's sources need.
 * @returns {{ path: string, name: string, version: string, license?: string, integrity?: string }[]} Sorted by path.
 */
export function productionPackages(root, names) {
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8'));
  const declared = packages[''].dependencies;
  const found = new Map();
  const add = (from, name, isOptional) => {
    const path = locate(packages, from, name);
    if (path === undefined || !existsSync(join(root, path))) {
      if (isOptional) return;
      throw new Error(
        `${name}, needed by ${from || 'the sources'}, is not installed; run npm install.`,
      );
    }
    if (found.has(path)) return;
    const { version, license, integrity, ...rest } = packages[path];
    found.set(path, {
      path,
      name: path.slice(path.lastIndexOf('node_modules/') + 13),
      version,
      license,
      integrity,
    });
    for (const dependency of Object.keys(rest.dependencies ?? {})) add(path, dependency, false);
    for (const dependency of Object.keys(rest.optionalDependencies ?? {}))
      add(path, dependency, true);
    for (const dependency of Object.keys(rest.peerDependencies ?? {})) add(path, dependency, true);
  };
  for (const name of names) {
    if (declared[name] === undefined) {
      throw new Error(`The sources import ${name}, which is no dependency in package.json.`);
    }
    add('', name, false);
  }
  return [...found.values()].sort((a, b) => (a.path < b.path ? -1 : 1));
}

const notNeeded = /\.(md|markdown|map|d\.ts|d\.mts|d\.cts|tsbuildinfo)$/i;

/** Files of a folder below `root`, without documents, source maps and packages nested in it. */
export function filesOfPackage(root, path) {
  return readdirSync(join(root, path), { withFileTypes: true }).flatMap((entry) => {
    const inner = `${path}/${entry.name}`;
    if (entry.name === 'node_modules' || entry.name === '.bin') return [];
    if (entry.isDirectory()) return filesOfPackage(root, inner);
    return entry.isFile() && !notNeeded.test(entry.name) ? [inner] : [];
  });
}
