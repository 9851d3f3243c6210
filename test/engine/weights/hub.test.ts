import assert from 'node:assert/strict';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { describeModel } from '#engine/weights/describe.ts';
import { openCheckpoint } from '#engine/weights/open.ts';
import { type ResolveOptions, resolveModel } from '#engine/weights/resolve.ts';
import { refusesWith } from '../../support/checkpoint-error.ts';
import { temporaryDirectory, tinyGgufBytes } from '../../support/checkpoint-files.ts';
import { COMMIT, startFakeHub } from '../../support/fake-hub.ts';
import { readGolden } from '../../support/golden.ts';

const REFERENCE = 'hf://org/name';
const WEIGHTS = 'model.safetensors';

/** Enough bytes for several network writes, none like its neighbours. */
const weights = Buffer.from(Uint32Array.from({ length: 200_000 }, (_, i) => i * 2654435761).buffer);
const FILES = {
  'config.json': Buffer.from('{"model_type":"llama"}'),
  'tokenizer.json': Buffer.from('{}'),
  [WEIGHTS]: weights,
  'README.md': Buffer.from('not wanted'),
  'consolidated.00.pth': Buffer.from('not wanted either'),
};

async function setUp(context: TestContext, files: Readonly<Record<string, Buffer>> = FILES) {
  const hub = await startFakeHub(context, files);
  const cacheDirectory = join(temporaryDirectory(context), 'models');
  const waits: number[] = [];
  const resolve = (options: Partial<ResolveOptions> = {}, reference = REFERENCE) =>
    resolveModel(reference, {
      cacheDirectory,
      hub: { endpoint: hub.endpoint },
      wait: async (milliseconds) => void waits.push(milliseconds),
      ...options,
    });
  const entry = join(cacheDirectory, 'hf', 'org--name', 'main');
  return { hub, cacheDirectory, waits, resolve, entry };
}

test('a hub model arrives whole, without the files that are not needed, and is then used offline', async (t) => {
  const { hub, resolve, entry } = await setUp(t);
  const seen: [number, number | undefined][] = [];
  const first = await resolve({
    onProgress: ({ receivedBytes, totalBytes }) => seen.push([receivedBytes, totalBytes]),
  });
  assert.equal(first.path, entry);
  assert.deepEqual([first.revision, first.fromCache], [COMMIT, false]);
  assert.deepEqual(
    readdirSync(entry)
      .filter((name) => !name.startsWith('.'))
      .sort(),
    ['config.json', WEIGHTS, 'tokenizer.json'],
  );
  assert.deepEqual(readFileSync(join(entry, WEIGHTS)), weights);
  const total = weights.length + FILES['config.json'].length + FILES['tokenizer.json'].length;
  assert.deepEqual(seen.at(-1), [total, total]);
  assert.ok(seen.every(([received], i) => i === 0 || received >= seen[i - 1]![0]));
  const requests = hub.requests.length;
  const second = await resolve({ hub: { endpoint: 'http://127.0.0.1:9' } });
  assert.deepEqual([second.path, second.fromCache], [entry, true]);
  assert.equal(hub.requests.length, requests);
});

test('the token goes to the hub, and a revision gets an entry of its own', async (t) => {
  const { hub, cacheDirectory, resolve } = await setUp(t);
  const { path } = await resolve(
    { hub: { endpoint: `${hub.endpoint}/`, token: 'secret' } },
    `${REFERENCE}@refs/pr/1`,
  );
  assert.equal(path, join(cacheDirectory, 'hf', 'org--name', 'refs%2Fpr%2F1'));
  assert.ok(hub.authorizations.length > 0);
  assert.ok(hub.authorizations.every((value) => value === 'Bearer secret'));
});

test('a token from a file may end with a line break, and an empty one is refused before anything is asked', async (t) => {
  const { hub, resolve } = await setUp(t);
  await refusesWith('DOWNLOAD_TOKEN_EMPTY', ['token', 'none given'], () =>
    resolve({ hub: { endpoint: hub.endpoint, token: ' \n' } }),
  );
  assert.equal(hub.requests.length, 0);
  await resolve({ hub: { endpoint: hub.endpoint, token: 'secret\n' } });
  assert.ok(hub.authorizations.every((value) => value === 'Bearer secret'));
});

test('a repository of one .gguf file resolves to that file', async (t) => {
  const { resolve } = await setUp(t, {
    'README.md': Buffer.from('x'),
    'tiny.gguf': tinyGgufBytes(),
  });
  const { path } = await resolve();
  assert.ok(path.endsWith('tiny.gguf'));
  assert.equal((await openCheckpoint(path)).format, 'gguf');
});

test('a repository of several .gguf files is refused with their names', async (t) => {
  const { resolve } = await setUp(t, { 'a.gguf': tinyGgufBytes(), 'b.gguf': tinyGgufBytes() });
  await refusesWith('DOWNLOAD_FAILED', ['a.gguf, b.gguf'], resolve);
});

test('connections that drop mid-file are continued where they broke', async (t) => {
  const { hub, resolve, entry } = await setUp(t);
  hub.misbehave = ({ path, offset, bytes, attempt }, response) => {
    if (path !== WEIGHTS || attempt >= 3) return false;
    response.writeHead(offset > 0 ? 206 : 200, {
      'content-length': bytes.length - offset,
      ...(offset > 0
        ? { 'content-range': `bytes ${offset}-${bytes.length - 1}/${bytes.length}` }
        : {}),
    });
    response.write(bytes.subarray(offset, offset + 100_000), () => response.destroy());
    return true;
  };
  await resolve();
  assert.deepEqual(readFileSync(join(entry, WEIGHTS)), weights);
  const offsets = hub.requests
    .filter((request) => request.startsWith(WEIGHTS))
    .map((request) => Number(request.split('@')[1]));
  assert.equal(offsets.length, 4);
  assert.ok(
    offsets.every((offset, i) => i === 0 || offset > offsets[i - 1]!),
    `${offsets}`,
  );
});

test('a download given up on is continued by the next call', async (t) => {
  const { hub, resolve, entry } = await setUp(t);
  hub.misbehave = ({ path, offset, bytes }, response) => {
    if (path !== WEIGHTS) return false;
    if (offset > 0) response.writeHead(503).end();
    else {
      response.writeHead(200, { 'content-length': bytes.length });
      response.write(bytes.subarray(0, 300_000), () => response.destroy());
    }
    return true;
  };
  await refusesWith('DOWNLOAD_FAILED', [WEIGHTS, '503'], resolve);
  assert.ok(!existsSync(entry));
  hub.misbehave = () => false;
  hub.requests.length = 0;
  await resolve();
  assert.deepEqual(readFileSync(join(entry, WEIGHTS)), weights);
  const resumedAt = hub.requests.find((request) => request.startsWith(WEIGHTS));
  assert.ok(Number(resumedAt?.split('@')[1]) > 0, resumedAt);
});

test('a server that ignores ranges is read from the start again', async (t) => {
  const { hub, resolve, entry } = await setUp(t);
  hub.misbehave = ({ path, bytes, attempt }, response) => {
    if (path !== WEIGHTS) return false;
    response.writeHead(200, { 'content-length': bytes.length });
    if (attempt === 0) response.write(bytes.subarray(0, 5000), () => response.destroy());
    else response.end(bytes);
    return true;
  };
  await resolve();
  assert.deepEqual(readFileSync(join(entry, WEIGHTS)), weights);
});

test('busy answers are waited out as long as the server says', async (t) => {
  const { hub, waits, resolve } = await setUp(t);
  hub.misbehave = ({ path, attempt }, response) => {
    if (path !== WEIGHTS || attempt > 1) return false;
    if (attempt === 0) response.writeHead(429, { 'retry-after': '7' }).end();
    else response.writeHead(503).end();
    return true;
  };
  await resolve();
  assert.equal(waits[0], 7000);
  assert.equal(waits.length, 2);
});

const failures: readonly [string, number, readonly string[]][] = [
  ['a missing file', 404, ['404', 'revision']],
  ['a gated model', 403, ['403', 'token']],
];
for (const [what, status, mentions] of failures) {
  test(`${what} fails at once with advice`, async (t) => {
    const { hub, waits, resolve } = await setUp(t);
    hub.misbehave = (_file, response) => {
      response.writeHead(status).end();
      return true;
    };
    await refusesWith('DOWNLOAD_FAILED', mentions, resolve);
    assert.equal(waits.length, 0);
  });
}

test('an unreachable hub is named after several tries', async (t) => {
  const { waits, resolve } = await setUp(t);
  await refusesWith('DOWNLOAD_FAILED', ['127.0.0.1:9/'], () =>
    resolve({ hub: { endpoint: 'http://127.0.0.1:9' } }),
  );
  assert.ok(waits.length > 2);
});

const corruptions: readonly [string, string, { size?: number; oid?: string }, string][] = [
  ['weights with another checksum', WEIGHTS, { oid: 'f'.repeat(64) }, 'sha256'],
  ['a small file with another checksum', 'config.json', { oid: 'f'.repeat(40) }, 'gitBlob'],
  ['a file longer than announced', WEIGHTS, { size: 1000 }, '1000 bytes'],
];
for (const [what, path, announced, mention] of corruptions) {
  test(`${what} is refused and removed`, async (t) => {
    const { hub, resolve, entry } = await setUp(t);
    hub.announced.set(path, announced);
    await refusesWith('DOWNLOAD_CORRUPT', [path, mention], resolve);
    assert.ok(!existsSync(entry));
    const left = existsSync(join(`${entry}.partial`, `${path}.part`))
      ? readFileSync(join(`${entry}.partial`, `${path}.part`)).length
      : 0;
    assert.equal(left, 0);
    hub.announced.clear();
    assert.equal((await resolve()).path, entry);
  });
}

test('a file shorter than announced is never taken for whole', async (t) => {
  const { hub, resolve, entry } = await setUp(t);
  hub.announced.set(WEIGHTS, { size: weights.length + 1 });
  await refusesWith('DOWNLOAD_FAILED', [WEIGHTS, `${weights.length + 1} bytes`], resolve);
  assert.ok(!existsSync(entry));
});

test('a part damaged on disk is found by its checksum', async (t) => {
  const { hub, resolve, entry } = await setUp(t);
  mkdirSync(`${entry}.partial`, { recursive: true });
  writeFileSync(join(`${entry}.partial`, `${WEIGHTS}.part`), Buffer.alloc(1000, 7));
  await refusesWith('DOWNLOAD_CORRUPT', [WEIGHTS], resolve);
  assert.ok(hub.requests.includes(`${WEIGHTS}@1000`));
  await resolve();
  assert.deepEqual(readFileSync(join(entry, WEIGHTS)), weights);
});

test('an entry whose file was cut off afterwards is downloaded again', async (t) => {
  const { resolve, entry } = await setUp(t);
  await resolve();
  writeFileSync(join(entry, WEIGHTS), weights.subarray(0, 10));
  assert.equal((await resolve()).fromCache, false);
  assert.deepEqual(readFileSync(join(entry, WEIGHTS)), weights);
});

test('an entry without a manifest is not a model', async (t) => {
  const { resolve, entry } = await setUp(t);
  mkdirSync(entry, { recursive: true });
  writeFileSync(join(entry, WEIGHTS), weights);
  assert.equal((await resolve()).fromCache, false);
});

test('a cancelled download ends at once and leaves no model', async (t) => {
  const { hub, resolve, entry } = await setUp(t);
  const controller = new AbortController();
  hub.misbehave = ({ path, bytes }, response) => {
    if (path !== WEIGHTS) return false;
    response.writeHead(200, { 'content-length': bytes.length });
    response.write(bytes.subarray(0, 1000), () => controller.abort());
    return true;
  };
  await refusesWith('DOWNLOAD_ABORTED', ['cancelled'], () =>
    resolve({ signal: controller.signal }),
  );
  assert.ok(!existsSync(entry));
  assert.ok(!existsSync(`${entry}.lock`));
});

test('a full disk is named and the model is not taken for whole', {
  skip: existsSync('/dev/full') ? false : 'no /dev/full on this machine',
}, async (t) => {
  const { resolve, entry } = await setUp(t);
  mkdirSync(`${entry}.partial`, { recursive: true });
  symlinkSync('/dev/full', join(`${entry}.partial`, `${WEIGHTS}.part`));
  await refusesWith('CACHE_DISK_FULL', ['main.partial', 'free some'], resolve);
  assert.ok(!existsSync(entry));
});

test('a model larger than the disk is refused before its first byte', async (t) => {
  const { hub, resolve } = await setUp(t);
  hub.announced.set(WEIGHTS, { size: 2 ** 52 });
  await refusesWith('CACHE_DISK_FULL', ['bytes free'], resolve);
  assert.deepEqual(hub.requests, []);
});

test('a cache directory that cannot be made is named', async (t) => {
  const { resolve, cacheDirectory } = await setUp(t);
  writeFileSync(cacheDirectory, 'a file');
  await refusesWith('CACHE_UNUSABLE', [cacheDirectory, 'ENOTDIR'], resolve);
});

test('two callers at once download once and both get the model', async (t) => {
  const { hub, resolve, entry } = await setUp(t);
  const results = await Promise.all([resolve(), resolve(), resolve()]);
  assert.ok(results.every(({ path }) => path === entry));
  assert.equal(hub.requests.filter((request) => request.startsWith(WEIGHTS)).length, 1);
  assert.equal(results.filter(({ fromCache }) => !fromCache).length, 1);
});

test('a real checkpoint in shards opens after the download', async (t) => {
  const { checkpointPath } = readGolden('b');
  const files = Object.fromEntries(
    readdirSync(checkpointPath)
      .filter((name) => /\.(json|txt|safetensors)$/.test(name))
      .map((name) => [name, readFileSync(join(checkpointPath, name))]),
  );
  const { resolve } = await setUp(t, files);
  const downloaded = await openCheckpoint((await resolve()).path);
  const original = await openCheckpoint(checkpointPath);
  assert.deepEqual([...downloaded.tensors.keys()], [...original.tensors.keys()]);
  assert.deepEqual(downloaded.tokenizer, original.tokenizer);
});

test('a hub model is described by its listing and config alone, and from the cache once it is there', async (t) => {
  const config = { model_type: 'llama', hidden_size: 64, architectures: ['LlamaForCausalLM'] };
  const { hub, cacheDirectory } = await setUp(t, {
    ...FILES,
    'config.json': Buffer.from(JSON.stringify({ ...config, text_config: { hidden_size: 3 } })),
  });
  const options = { cacheDirectory, hub: { endpoint: hub.endpoint } };
  const described = await describeModel(REFERENCE, options);
  assert.equal(described.weightBytes, weights.length);
  assert.deepEqual(described.config, {
    model_type: 'llama',
    hidden_size: 64,
    text_config: { hidden_size: 3 },
  });
  assert.deepEqual(hub.requests, ['config.json@0'], 'no weights were asked for');
});

test('a directory is described by its config and the bytes of its tensors', async (t) => {
  const cacheDirectory = join(temporaryDirectory(t), 'models');
  const described = await describeModel('test/fixtures/nvlm-tiny/b', { cacheDirectory });
  assert.equal(described.config.model_type, 'NVLM_D');
  assert.ok(described.weightBytes > 100_000);
});
