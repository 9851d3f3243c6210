import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { after, before, test } from 'node:test';

const readme = readFileSync('README.md', 'utf8');
const protocol = readFileSync('docs/protocol.md', 'utf8');
const blocks = (language: string, document = readme): string[] =>
  [...document.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\``, 'gms'))].map(
    ([, code = '']) => code,
  );
const packageJson = JSON.parse(readFileSync('package.json', 'utf8')) as {
  scripts: Record<string, string>;
};

let demo: ChildProcess;
let output = '';
let url = '';

before(async () => {
  demo = spawn(process.execPath, ['engine/demo/main.ts', '--port', '0', '--log-level', 'error'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const take = (chunk: Buffer) => {
    output += chunk;
  };
  demo.stdout?.on('data', take);
  demo.stderr?.on('data', take);
  const deadline = Date.now() + 240_000;
  while (!output.includes('Stop with Ctrl-C')) {
    assert.ok(
      demo.exitCode === null && Date.now() < deadline,
      `the demo did not start:\n${output}`,
    );
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  url = /listening on (http:\S+)/.exec(output)?.[1] ?? '';
});

after(async () => {
  if (demo.exitCode !== null) return;
  const closed = new Promise((resolve) => demo.once('close', resolve));
  demo.kill('SIGTERM');
  await closed;
});

const hereUrl = (code: string) =>
  code
    .replaceAll('http://127.0.0.1:8000', url)
    .replaceAll('ws://127.0.0.1:8000', url.replace('http', 'ws'));

test('the demo prints the page and an example for curl, the SDK and a raw WebSocket', async () => {
  for (const part of [`${url}/`, 'curl -N', "from 'openai'", 'new WebSocket'])
    assert.ok(output.includes(part), part);
  const page = await fetch(`${url}/`);
  assert.equal(page.status, 200);
  assert.match(await page.text(), /<html/i);
});

test('every npm script the README names exists', () => {
  const named = [...readme.matchAll(/npm (?:run )?(\w+)/g)]
    .map(([, name = '']) => name)
    .filter((name) => name !== 'run');
  for (const name of named) assert.ok(packageJson.scripts[name], `npm run ${name}`);
});

for (const [index, code] of blocks('sh')
  .filter((code) => code.startsWith('curl'))
  .entries()) {
  test(`shell block ${index + 1} of the README runs`, () => {
    const { status, stdout, stderr } = spawnSync('bash', ['-c', hereUrl(code)], {
      encoding: 'utf8',
      timeout: 60_000,
    });
    assert.equal(status, 0, stderr);
    assert.match(stdout, /data: .*"content"/);
    assert.match(stdout, /data: \[DONE\]/);
  });
}

const scripts = [
  ...blocks('js').map((code, index) => [`block ${index + 1} of the README`, code] as const),
  ...blocks('js', protocol).map(
    (code, index) => [`block ${index + 1} of the protocol`, code] as const,
  ),
];
for (const [index, [name, code]] of scripts.entries()) {
  test(`JavaScript ${name} runs`, () => {
    // Inside the checkout, so that the block's imports resolve as in a user's project.
    const file = `test/.readme-block-${process.pid}-${index}.mjs`;
    writeFileSync(file, hereUrl(code));
    try {
      const { status, stdout, stderr } = spawnSync(process.execPath, [file], {
        encoding: 'utf8',
        timeout: 60_000,
      });
      assert.equal(status, 0, stderr);
      assert.ok(stdout.trim().length > 0, 'the block printed nothing');
    } finally {
      rmSync(file, { force: true });
    }
  });
}
