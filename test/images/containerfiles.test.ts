import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { IMAGES, imageContents, USER } from '../../images/contents.mjs';

interface Instruction {
  readonly name: string;
  readonly value: string;
}

/** Instructions in their order; lines that go on are joined, comments left out. */
function read(file: string): Instruction[] {
  return readFileSync(file, 'utf8')
    .replaceAll(/^\s*#.*\n/gm, '')
    .replaceAll(/\\\n\s*/g, ' ')
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => {
      const [, name = '', value = ''] = /^(\S+)\s+(.*)$/.exec(line) ?? [];
      return { name, value };
    });
}

const packageJson = JSON.parse(readFileSync('package.json', 'utf8')) as {
  readonly devDependencies: Readonly<Record<string, string>>;
};
const lock = JSON.parse(readFileSync('package-lock.json', 'utf8')) as {
  readonly packages: Readonly<Record<string, { readonly dev?: boolean }>>;
};
const tracked = spawnSync('git', ['ls-files'], { encoding: 'utf8' }).stdout.trim().split('\n');

for (const name of ['engine', 'operator'] as const) {
  describe(`the Containerfile of the ${name}`, () => {
    const instructions = read(`images/${name}.Containerfile`);
    const lastFrom = instructions.findLastIndex((one) => one.name === 'FROM');
    const building = instructions.slice(0, lastFrom);
    const final = instructions.slice(lastFrom);
    const argumentOf = (instruction: string): string | undefined =>
      final.find((one) => one.name === instruction)?.value;
    const removed = building
      .flatMap(({ value }) => [.../rm -rf ([^&]+)/g[Symbol.matchAll](value)])
      .flatMap((match) => (match[1] ?? '').trim().split(/\s+/))
      .filter((path) => !path.startsWith('/'));
    const isRemoved = (path: string): boolean =>
      removed.some((folder) => path === folder || path.startsWith(`${folder}/`));

    test('builds on the Node of the lockfile, and on other bases when it is told to', () => {
      const [major] = (packageJson.devDependencies.node ?? '').split('.');
      const defaults = instructions.filter((one) => one.name === 'ARG').map(({ value }) => value);
      assert.deepEqual(defaults, [
        `BUILD_BASE=node:${major}-bookworm`,
        `BASE=node:${major}-bookworm-slim`,
      ]);
      const bases = instructions.filter((one) => one.name === 'FROM').map(({ value }) => value);
      // biome-ignore lint/suspicious/noTemplateCurlyInString: as a Containerfile writes it
      assert.deepEqual(bases, ['${BUILD_BASE} AS build', '${BASE}']);
    });

    test('runs as the image does that is made without a registry: user, command, folder, environment, port', () => {
      const { entrypoint, port } = IMAGES[name];
      assert.equal(argumentOf('USER'), `${USER}:${USER}`);
      assert.deepEqual(JSON.parse(argumentOf('ENTRYPOINT') ?? ''), entrypoint);
      assert.equal(argumentOf('WORKDIR'), '/app');
      const environment = argumentOf('ENV')?.split(' ') ?? [];
      assert.ok(environment.includes('NODE_ENV=production'));
      if (name === 'engine') assert.ok(environment.includes('XDG_CACHE_HOME=/models'));
      assert.ok(argumentOf('EXPOSE')?.split(' ').includes(String(port)));
      assert.equal(argumentOf('COPY'), '--from=build --chown=0:0 /app /app');
    });

    test('keeps every file and package that runs, and removes only what is there', () => {
      for (const folder of removed) {
        const there = folder.startsWith('node_modules/') ? Object.keys(lock.packages) : tracked;
        assert.ok(
          there.some((path) => path === folder || path.startsWith(`${folder}/`)),
          `${folder} does not exist`,
        );
      }
      const { layers, packages } = imageContents(name);
      const [, , sources] = layers;
      const needed = (sources?.entries ?? []).map(({ path }: { readonly path: string }) =>
        path.replace(/^app\//, ''),
      );
      assert.ok(needed.length > 50);
      const ignored = spawnSync('git', ['check-ignore', ...needed], { encoding: 'utf8' }).stdout;
      // The addon and the compiled page are made by the build stage.
      const made = new Set(ignored.trim().split('\n'));
      for (const path of needed) {
        assert.ok(!isRemoved(path), `${path} is removed`);
        assert.ok(made.has(path) || tracked.includes(path), `${path} is not in the checkout`);
      }
      for (const { path } of packages) {
        const locked = lock.packages[path];
        assert.ok(locked !== undefined && locked.dev !== true, `${path} is not installed`);
        assert.ok(!isRemoved(path), `${path} is removed`);
      }
      const install = building.map(({ value }) => value).join('\n');
      assert.match(install, /npm (ci|prune) --omit=dev/);
      if (name === 'engine') assert.match(install, /npm run build &&/);
    });
  });
}
