/** The engine as a process: how it starts, refuses to start, and ends. */
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { readFigures } from '#operator/scaling/scrape.ts';
import { freePorts } from '../../scripts/cluster/processes.ts';
import { findDefaultModel } from '../support/default-model.ts';
import { startFakeHub } from '../support/fake-hub.ts';
import { noLiveServer } from '../support/live-server.ts';

const skip = noLiveServer;
const found = await findDefaultModel();
const model = 'path' in found ? found.path : '';

interface Ended {
  readonly code: number | null;
  readonly output: string;
}

function run(
  context: TestContext,
  args: readonly string[],
  environment: Record<string, string> = {},
) {
  const child = spawn(process.execPath, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...environment },
  });
  let output = '';
  child.stdout.on('data', (chunk) => (output += chunk));
  child.stderr.on('data', (chunk) => (output += chunk));
  const ended: Promise<Ended> = once(child, 'close').then(([code]) => ({ code, output }));
  context.after(() => child.kill('SIGKILL'));
  const listening = async (): Promise<string> => {
    for (;;) {
      const url = /^listening on (\S+)/m.exec(output)?.[1];
      if (url !== undefined) return url;
      assert.equal(child.exitCode, null, output);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  };
  return { child, ended, listening };
}

const serve = (context: TestContext, ...args: string[]) =>
  run(context, [
    'engine/main.ts',
    '--model',
    model,
    '--port',
    '0',
    '--log-level',
    'error',
    ...args,
  ]);

test('SIGTERM lets a running stream finish, refuses new ones, and ends with 0', {
  skip,
}, async (context) => {
  const { child, ended, listening } = serve(context);
  const url = await listening();
  const stream = await fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ prompt: 'Once', max_tokens: 300, ignore_eos: true, stream: true }),
  });
  assert.ok(stream.body);
  const reader = stream.body.getReader();
  await reader.read();
  child.kill('SIGTERM');
  let text = '';
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    text += Buffer.from(value).toString();
  }
  assert.match(text, /data: \[DONE\]\s*$/);
  await assert.rejects(fetch(`${url}/v1/models`));
  assert.equal((await ended).code, 0);
});

test('while the model is on its way the address says how far it is: alive, not ready, a metric', async (context) => {
  const { promise: half, resolve: reachHalf } = Promise.withResolvers<void>();
  const hub = await startFakeHub(context, {
    'config.json': readFileSync('test/fixtures/nvlm-tiny/a/config.json'),
    'model.safetensors': Buffer.alloc(4 << 20),
  });
  hub.misbehave = ({ path, bytes }, response) => {
    if (!path.endsWith('.safetensors')) return false;
    response.writeHead(200, { 'content-length': bytes.length });
    response.write(bytes.subarray(0, bytes.length / 2), () => reachHalf());
    return true;
  };
  const [port = 0] = await freePorts(1);
  const cache = mkdtempSync(join(tmpdir(), 'nvlm-loading-'));
  context.after(() => rmSync(cache, { recursive: true, force: true }));
  const { child, ended } = run(context, [
    'engine/main.ts',
    '--model=hf://org/name',
    `--port=${port}`,
    `--hf-endpoint=${hub.endpoint}`,
    `--cache-directory=${cache}`,
  ]);
  await half;
  const get = (path: string) => fetch(`http://127.0.0.1:${port}${path}`);
  let told = '';
  for (let i = 0; i < 500 && !/downloading, (4\d|5\d) %/.test(told); i++) {
    const ready = await get('/readyz');
    assert.equal(ready.status, 503);
    told = ((await ready.json()) as { error: { message: string } }).error.message;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert.match(told, /the model is being loaded: downloading, (4\d|5\d) %/);
  assert.equal((await get('/healthz')).status, 200);
  assert.equal((await get('/v1/models')).status, 503);
  const figures = readFigures(await (await get('/metrics')).text());
  assert.equal(figures.loading?.phase, 'downloading');
  assert.ok(Math.abs((figures.loading?.fraction ?? 0) - 0.5) < 0.1);
  child.kill('SIGTERM');
  await ended;
});

test('a port in use is said with what to do, and the exit code is 1', { skip }, async (context) => {
  const other = createTcpServer().listen(0, '127.0.0.1');
  await once(other, 'listening');
  const { port } = other.address() as AddressInfo;
  const { code, output } = await serve(context, '--port', String(port)).ended;
  other.close();
  assert.equal(code, 1);
  assert.match(output, new RegExp(`Port ${port} of 127\\.0\\.0\\.1 is in use`));
  assert.match(output, /--port 0/);
});

test('cache memory that the machine does not have is refused with the number to change', {
  skip,
}, async (context) => {
  const { code, output } = await serve(context, '--kv-cache-memory', '64TiB').ended;
  assert.equal(code, 1);
  assert.match(output, /CACHE_MEMORY_TOO_LARGE/);
  assert.match(output, /--kv-cache-memory/);
});

test('--chat-template takes a name or a Jinja file, and a file that cannot be read ends the start', {
  skip,
}, async (context) => {
  const tiny = ['engine/main.ts', '--port=0', '--model=test/fixtures/nvlm-tiny/a'];
  const promptOf = async (template: string): Promise<string> => {
    const { child, listening } = run(context, [...tiny, `--chat-template=${template}`]);
    const url = await listening();
    const post = async (path: string, body: object) => {
      const response = await fetch(`${url}${path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
      });
      return (await response.json()) as { tokens: number[]; prompt: string };
    };
    const { tokens } = await post('/tokenize', { messages: [{ role: 'user', content: 'Hi' }] });
    const { prompt } = await post('/detokenize', { tokens });
    child.kill('SIGTERM');
    return prompt;
  };
  assert.equal(
    await promptOf('qwen2p0'),
    '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n',
  );
  const folder = mkdtempSync(join(tmpdir(), 'nvlm-template-'));
  context.after(() => rmSync(folder, { recursive: true }));
  const file = join(folder, 'mine.jinja');
  writeFileSync(file, '{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}');
  assert.equal(await promptOf(file), '[user] Hi');
  const missing = await run(context, [...tiny, `--chat-template=${folder}/none.jinja`]).ended;
  assert.equal(missing.code, 1);
  assert.match(missing.output, /CHAT_TEMPLATE_UNREADABLE.*none\.jinja.*chatml, qwen2, qwen2p0/);
});

test('a file of API keys that is missing or empty stops the start before the model is loaded, and lets nobody in', async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'nvlm-keys-'));
  context.after(() => rmSync(folder, { recursive: true }));
  writeFileSync(join(folder, 'empty'), ' \n\n');
  for (const [name, told] of [
    ['none', /API_KEYS_MISSING: --api-keys-file \S+none cannot be read: ENOENT/],
    [
      'empty',
      /API_KEYS_MISSING: --api-keys-file \S+empty has no key in it; write one key per line/,
    ],
  ] as const) {
    const start = ['engine/main.ts', '--model', join(folder, 'model'), '--port', '0'];
    const { ended } = run(context, [...start, `--api-keys-file=${join(folder, name)}`]);
    const { code, output } = await ended;
    assert.equal(code, 1);
    assert.match(output, told);
  }
});

test('a misspelt option or variable is refused with the nearest right one', () => {
  for (const [script, args, environment, expected] of [
    ['engine/main.ts', ['--modle', 'x'], {}, /--modle.*--model/],
    ['engine/main.ts', [], { NVLM_MODLE: 'x' }, /NVLM_MODLE.*NVLM_MODEL/],
    ['engine/demo/main.ts', ['--prot', '1'], {}, /--prot.*--port/],
    ['engine/chat/main.ts', ['--ulr', 'x'], {}, /--ulr.*--url/],
    ['bench/main.ts', ['study', '--token', '1'], {}, /--token.*--tokens/],
    ['operator/main.ts', ['--workres', '1'], {}, /--workres.*--workers/],
  ] as const) {
    const { status, stdout, stderr } = spawnSync(process.execPath, [script, ...args], {
      encoding: 'utf8',
      env: { ...process.env, ...environment },
    });
    assert.equal(status, 2, `${script} ${args.join(' ')}: ${stdout}${stderr}`);
    assert.match(stderr + stdout, expected);
  }
});

test('each command explains itself', () => {
  for (const script of [
    'engine/main.ts',
    'engine/demo/main.ts',
    'engine/chat/main.ts',
    'bench/main.ts',
    'operator/main.ts',
  ]) {
    const { status, stdout } = spawnSync(process.execPath, [script, '--help'], {
      encoding: 'utf8',
    });
    assert.equal(status, 0, script);
    assert.match(stdout, /npm run/, script);
  }
});

test('a full disk ends a download with its code and leaves nothing half that passes for whole', async (context) => {
  if (process.getuid?.() !== 0) return context.skip('needs root to mount a small file system');
  const folder = mkdtempSync(join(tmpdir(), 'nvlm-full-'));
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', folder]);
  if (mounted.status !== 0) {
    rmSync(folder, { recursive: true });
    return context.skip('cannot mount a tmpfs here');
  }
  context.after(() => {
    spawnSync('umount', [folder]);
    rmSync(folder, { recursive: true });
  });
  const bytes = 8 << 20;
  const hub = createServer((request, response) => {
    if (request.url?.startsWith('/api/')) {
      const siblings = [{ rfilename: 'config.json' }, { rfilename: 'model.safetensors' }];
      const tree = siblings.map(({ rfilename: path }) => ({
        type: 'file',
        path,
        size: path === 'config.json' ? 2 : bytes,
        oid: '0'.repeat(40),
      }));
      response.setHeader('content-type', 'application/json');
      return response.end(
        JSON.stringify(request.url.includes('/tree/') ? tree : { sha: 'a'.repeat(40), siblings }),
      );
    }
    if (request.url?.endsWith('config.json')) return response.end('{}');
    return response.writeHead(200, { 'content-length': bytes }).end(Buffer.alloc(bytes));
  }).listen(0, '127.0.0.1');
  context.after(() => hub.close());
  await once(hub, 'listening');
  const endpoint = `http://127.0.0.1:${(hub.address() as AddressInfo).port}`;
  const { code, output } = await run(context, [
    'engine/main.ts',
    '--model=hf://org/name',
    `--hf-endpoint=${endpoint}`,
    `--cache-directory=${folder}`,
    '--port=0',
  ]).ended;
  assert.equal(code, 1);
  assert.match(output, /CACHE_DISK_FULL/);
  const whole = (path: string): boolean =>
    existsSync(path) &&
    readdirSync(path, { recursive: true, withFileTypes: true }).some(
      (entry) =>
        entry.isFile() &&
        entry.name === 'model.safetensors' &&
        statSync(join(entry.parentPath, entry.name)).size > 0,
    );
  assert.equal(whole(folder), false);
});

test('the terminal chat takes its engine with it when it is killed', { skip }, async (context) => {
  const { child } = run(context, ['engine/chat/main.ts', '--model', model]);
  const children = (): number[] => {
    const { stdout } = spawnSync('pgrep', ['-P', String(child.pid)], { encoding: 'utf8' });
    return stdout.trim().split('\n').filter(Boolean).map(Number);
  };
  let engine: number | undefined;
  for (let tries = 0; tries < 250 && engine === undefined; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    [engine] = children();
  }
  assert.ok(engine !== undefined, 'no engine was started');
  const isAlive = (): boolean => {
    try {
      process.kill(engine as number, 0);
      return true;
    } catch {
      return false;
    }
  };
  child.kill('SIGKILL');
  for (let tries = 0; tries < 500 && isAlive(); tries++) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const survived = isAlive();
  if (survived) process.kill(engine, 'SIGKILL');
  assert.equal(survived, false);
});
