import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { type TestContext, test } from 'node:test';
import { buildOnce } from '../../scripts/build-once.mjs';

const module = resolve('scripts/build-once.mjs');

function temporaryFolder(context: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'nvlm-build-once-'));
  context.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A process that builds `folder` by adding a line to `log` and waiting a while. */
const builder = (folder: string, log: string, wait: number) =>
  spawn(process.execPath, [
    '--input-type=module',
    '-e',
    `import { buildOnce } from ${JSON.stringify(module)};
     import { appendFileSync, writeFileSync } from 'node:fs';
     await buildOnce(${JSON.stringify(folder)}, async (work) => {
       appendFileSync(${JSON.stringify(log)}, process.pid + '\\n');
       writeFileSync(work + '/half', '');
       await new Promise((go) => setTimeout(go, ${wait}));
       writeFileSync(work + '/whole', '');
     });`,
  ]);

const ended = (child: ReturnType<typeof spawn>) =>
  new Promise<number | null>((go) => child.once('close', go));

test('processes that want the same build at once get it from one of them', async (context) => {
  const root = temporaryFolder(context);
  const folder = join(root, 'key');
  const log = join(root, 'log');
  const codes = await Promise.all([1, 2, 3].map(() => ended(builder(folder, log, 500))));
  assert.deepEqual(codes, [0, 0, 0]);
  assert.equal(readFileSync(log, 'utf8').trim().split('\n').length, 1);
  assert.deepEqual(readdirSync(folder).sort(), ['half', 'whole']);
  assert.deepEqual(readdirSync(root).sort(), ['key', 'log']);
});

test('a build that was killed is made by the next one, whole', {
  timeout: 60_000,
}, async (context) => {
  const root = temporaryFolder(context);
  const folder = join(root, 'key');
  const log = join(root, 'log');
  const first = builder(folder, log, 600_000);
  while (!existsSync(log)) await new Promise((go) => setTimeout(go, 20));
  first.kill('SIGKILL');
  await ended(first);
  assert.ok(!existsSync(folder));
  assert.equal(await ended(builder(folder, log, 0)), 0);
  assert.deepEqual(readdirSync(folder).sort(), ['half', 'whole']);
  assert.deepEqual(readdirSync(root).sort(), ['key', 'log']);
});

test('a build that fails leaves nothing under the key, and the next one may try', async (context) => {
  const folder = join(temporaryFolder(context), 'key');
  await assert.rejects(
    buildOnce(folder, async (work: string) => {
      writeFileSync(join(work, 'half'), '');
      throw new Error('no space');
    }),
    /no space/,
  );
  assert.ok(!existsSync(folder));
  await buildOnce(folder, async (work: string) => writeFileSync(join(work, 'whole'), ''));
  assert.deepEqual(readdirSync(folder), ['whole']);
});

test('what is there is not built again', async (context) => {
  const folder = join(temporaryFolder(context), 'key');
  const log = join(folder, '../log');
  await buildOnce(folder, async () => {});
  await buildOnce(folder, async () => writeFileSync(log, 'built'));
  assert.ok(!existsSync(log));
});
