import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { gunzipSync } from 'node:zlib';

interface Descriptor {
  readonly mediaType: string;
  readonly digest: string;
  readonly size: number;
  readonly artifactType?: string;
}
interface Manifest {
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
  readonly subject?: Descriptor;
  readonly artifactType?: string;
}

const root = join(import.meta.dirname, '../..');
const names = ['engine', 'operator'] as const;
const notLinux = process.platform === 'linux' ? false : 'images hold Linux programs';
const notRoot = process.getuid?.() === 0 ? false : 'chroot needs root';

describe('images made from this checkout', { skip: notLinux, timeout: 600_000 }, () => {
  let folder = '';
  const build = (output: string): string => {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [join(root, 'images/build.mjs'), '--output', join(folder, output)],
      { encoding: 'utf8' },
    );
    assert.equal(status, 0, stderr);
    return stdout;
  };
  let built = '';
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'nvlm-images-'));
    built = build('first');
  });
  after(() => rmSync(folder, { recursive: true, force: true }));

  const blob = (name: string, { digest }: Descriptor): Buffer =>
    readFileSync(join(folder, 'first', name, 'blobs', digest.replace(':', '/')));
  const json = (name: string, descriptor: Descriptor) =>
    JSON.parse(blob(name, descriptor).toString());
  const index = (name: string): readonly Descriptor[] =>
    JSON.parse(readFileSync(join(folder, 'first', name, 'index.json'), 'utf8')).manifests;
  const imageOf = (name: string): Manifest => {
    const [first] = index(name);
    assert.ok(first);
    return json(name, first);
  };
  /** Unpacks the layers the way a runtime does, with a tar that is not ours. */
  const unpack = (name: string): string => {
    const rootfs = join(folder, `${name}.rootfs`);
    if (existsSync(rootfs)) return rootfs;
    mkdirSync(rootfs);
    for (const { digest } of imageOf(name).layers) {
      const layer = join(folder, 'first', name, 'blobs', digest.replace(':', '/'));
      const { status, stderr } = spawnSync('tar', ['-xzpf', layer, '-C', rootfs], {
        encoding: 'utf8',
      });
      assert.equal(status, 0, stderr);
    }
    return rootfs;
  };

  test('a second build has the same digests', () => {
    assert.match(built, /^docker\.io\/library\/nvlm-engine:\S+ sha256:[0-9a-f]{64}$/m);
    assert.equal(build('second'), built);
    for (const name of names) {
      const hash = (output: string): string =>
        createHash('sha256')
          .update(readFileSync(join(folder, output, `nvlm-${name}.tar`)))
          .digest('hex');
      assert.equal(hash('first'), hash('second'), name);
    }
  });

  test('every blob has the digest and size that name it, every layer its diff id, and the bill its subject', () => {
    for (const name of names) {
      const [image, bill] = index(name);
      assert.ok(image && bill);
      const { config, layers } = imageOf(name);
      const attached = json(name, bill) as Manifest;
      assert.equal(attached.artifactType, 'application/vnd.cyclonedx+json');
      assert.equal(attached.subject?.digest, image.digest);
      const all = [image, bill, config, ...layers, attached.config, ...attached.layers];
      for (const descriptor of all) {
        const data = blob(name, descriptor);
        assert.equal(data.length, descriptor.size);
        assert.equal(
          `sha256:${createHash('sha256').update(data).digest('hex')}`,
          descriptor.digest,
        );
      }
      const stored = new Set(all.map(({ digest }) => digest.slice(7)));
      const found = globSync(join(folder, 'first', name, 'blobs/sha256/*'));
      assert.deepEqual(found.map((path) => path.slice(-64)).sort(), [...stored].sort());
      const diffs = layers.map(
        (layer) =>
          `sha256:${createHash('sha256')
            .update(gunzipSync(blob(name, layer)))
            .digest('hex')}`,
      );
      assert.deepEqual(json(name, config).rootfs.diff_ids, diffs);
    }
  });

  test('containers run as a numeric user that is not root, and no file of the image is theirs to change but their caches', () => {
    for (const name of names) {
      assert.equal(json(name, imageOf(name).config).config.User, '65532:65532');
      const { stdout } = spawnSync('tar', ['-tvzf', '-', '--numeric-owner'], {
        input: blob(name, imageOf(name).layers[0] as Descriptor),
        encoding: 'utf8',
      });
      const owned = stdout.split('\n').filter((line) => / 65532\/65532 /.test(line));
      assert.deepEqual(
        owned.map((line) => line.split(' ').at(-1)),
        ['home/nvlm/', 'models/'],
      );
    }
  });

  test('the bill lists every package that is in the image, and every shared library', () => {
    for (const name of names) {
      const bill = JSON.parse(readFileSync(join(folder, 'first', `nvlm-${name}.cdx.json`), 'utf8'));
      const listed = new Set<string>(
        bill.components.map(
          (one: { name: string; version?: string }) => `${one.name}@${one.version}`,
        ),
      );
      const places = new Set<string>(
        bill.components.flatMap((one: { evidence?: { occurrences: { location: string }[] } }) =>
          (one.evidence?.occurrences ?? []).map(({ location }) => location),
        ),
      );
      const rootfs = unpack(name);
      const manifests = globSync('app/node_modules/{*,@*/*}/package.json', { cwd: rootfs });
      assert.ok(manifests.length > 3);
      for (const path of manifests) {
        const { name: packageName, version } = JSON.parse(readFileSync(join(rootfs, path), 'utf8'));
        assert.ok(listed.has(`${packageName}@${version}`), `${name} lacks ${path}`);
      }
      const libraries = globSync('{lib,lib64,usr/lib}/**/*.so*', { cwd: rootfs });
      assert.ok(libraries.length > 5);
      for (const path of libraries) assert.ok(places.has(`/${path}`), `${name} lacks ${path}`);
    }
  });

  describe('unpacked and entered as the image’s user', { skip: notRoot }, () => {
    const enter = (name: string, ...args: string[]) =>
      spawnSync(
        'chroot',
        ['--userspec=65532:65532', unpack(name), '/usr/local/bin/node', ...args],
        { encoding: 'utf8', env: { PATH: '/usr/local/bin:/usr/sbin:/usr/bin' } },
      );

    test('both answer --help with nothing of the host', () => {
      for (const name of names) {
        const { status, stdout, stderr } = enter(name, `/app/${name}/main.ts`, '--help');
        assert.equal(status, 0, stderr);
        assert.match(stdout, /--log-level/);
      }
    });

    test('the engine has its kernels and its picture decoder, and every source of both resolves its imports', () => {
      const engine = enter(
        'engine',
        '--input-type=module',
        '-e',
        `const addon = process.getBuiltinModule('module').createRequire('/app/')('/app/kernels/build/nvlm.node');
         const { default: sharp } = await import('/app/node_modules/sharp/dist/index.mjs').catch(() => import('/app/node_modules/sharp/lib/index.js'));
         const { width } = await sharp({ create: { width: 3, height: 2, channels: 3, background: 'red' } }).metadata();
         console.log(Object.keys(addon).length > 0, width);`,
      );
      assert.equal(engine.stdout.trim(), 'true 3', engine.stderr);
      for (const [name, entry] of [
        ['engine', 'start.ts'],
        ['engine', 'server/app.ts'],
        ['operator', 'controllers.ts'],
      ] as const) {
        const script = `await import('/app/${name}/${entry}'); process.exit(0)`;
        const { status, stderr } = enter(name, '--input-type=module', '-e', script);
        assert.equal(status, 0, stderr);
      }
    });
  });
});
