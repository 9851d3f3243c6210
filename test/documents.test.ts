import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { chatFields } from '#engine/protocol/chat-request.ts';
import { completionFields } from '#engine/protocol/completion-request.ts';
import { ERRORS } from '#engine/protocol/errors.ts';
import { responsesFields } from '#engine/protocol/responses-request.ts';
import { allCodes, errorsMarkdown } from '../scripts/errors-document.ts';
import { operatorMetricsMarkdown } from '../scripts/operator-metrics-document.ts';
import { operatorOptionsMarkdown } from '../scripts/operator-options-document.ts';
import { operatorSecurityMarkdown } from '../scripts/operator-security-document.ts';
import { resourceMarkdown } from '../scripts/resource-document.ts';

for (const [file, what, markdown] of [
  ['docs/errors.md', 'is what the tables of the code say', errorsMarkdown],
  ['docs/operator-options.md', 'is what the operator reads', operatorOptionsMarkdown],
  ['docs/operator-metrics.md', 'is what the operator serves', operatorMetricsMarkdown],
  [
    'docs/operator-security.md',
    'has every right that is installed, with its reason',
    operatorSecurityMarkdown,
  ],
  ['docs/resource.md', 'is what the schema and the conditions say', resourceMarkdown],
] as const) {
  test(`${file} ${what}`, async () => {
    assert.equal(readFileSync(file, 'utf8'), await markdown(), 'run node scripts/documents.ts');
  });
}

test('every code that the sources throw is in a table', () => {
  const known = new Set(allCodes());
  const families =
    /['"]((?:KERNEL|TOKENIZER|MODEL|CHECKPOINT|REFERENCE|DOWNLOAD|CACHE|KUBE)_[A-Z_]+)['"]/g;
  const unknown = globSync('{kernels,engine,operator}/**/*.{ts,cc,h}', {
    exclude: ['kernels/build*/**'],
  }).flatMap((file) =>
    [...readFileSync(file, 'utf8').matchAll(families)]
      .map(([, code = '']) => code)
      .filter((code) => !known.has(code))
      .map((code) => `${file}: ${code}`),
  );
  assert.deepEqual(unknown, []);
});

test('every code that a document names exists', () => {
  const known = new Set(allCodes());
  const wire = /`([a-z]+(?:_[a-z]+)+)` \((?:4|5)\d\d\)/g;
  for (const file of globSync('docs/*.md')) {
    for (const [, code = ''] of readFileSync(file, 'utf8').matchAll(wire)) {
      assert.ok(known.has(code), `${file} names ${code}`);
    }
  }
});

test('every route of the server is in docs/protocol.md', () => {
  const document = readFileSync('docs/protocol.md', 'utf8');
  const routes = /app\.(get|post|delete)\('([^']+)'/g;
  const missing = globSync('engine/server/*.ts').flatMap((file) =>
    [...readFileSync(file, 'utf8').matchAll(routes)]
      .map(([, method = '', path = '']) => [method.toUpperCase(), path] as const)
      .filter(([, path]) => !document.includes(path))
      .map(([method, path]) => `${method} ${path}`),
  );
  assert.deepEqual(missing, []);
});

test('every code of the wire is a way out in docs/lifecycle.md', () => {
  const document = readFileSync('docs/lifecycle.md', 'utf8');
  assert.deepEqual(
    Object.keys(ERRORS).filter((code) => !document.includes(`\`${code}\``)),
    [],
  );
});

test('every field of a request that generates is in docs/protocol.md', () => {
  const document = readFileSync('docs/protocol.md', 'utf8');
  const fields = { ...responsesFields, ...chatFields, ...completionFields };
  assert.deepEqual(
    Object.keys(fields).filter((name) => !document.includes(`\`${name}\``)),
    [],
  );
});

test('every metric of the engine is in docs/protocol.md, and no other', () => {
  const document = readFileSync('docs/protocol.md', 'utf8');
  const served = globSync('engine/server/*.ts').flatMap((file) =>
    [...readFileSync(file, 'utf8').matchAll(/'((?:vllm:|nvlm_)\w+)'/g)].map(
      ([, name = '']) => name,
    ),
  );
  const named = [...document.matchAll(/`((?:vllm:|nvlm_)\w+)`/g)].map(([, name = '']) => name);
  assert.deepEqual([...new Set(named)].sort(), [...new Set(served)].sort());
});

/** The anchors that GitHub gives to the headings of a document. */
const anchorsOf = (file: string): Set<string> =>
  new Set(
    [...readFileSync(file, 'utf8').matchAll(/^#{1,6} (.+)$/gm)].map(([, heading = '']) =>
      heading
        .toLowerCase()
        .replaceAll(/[^\p{L}\p{N}_ -]/gu, '')
        .replaceAll(' ', '-'),
    ),
  );

test('every document, and every heading, that a document links to exists', () => {
  for (const file of ['README.md', 'CHANGELOG.md', ...globSync('docs/**/*.md')]) {
    const links = readFileSync(file, 'utf8').matchAll(/\]\(([^):#\s]*)(?:#([^)\s]+))?\)/g);
    for (const [link, path = '', anchor] of links) {
      const target = path === '' ? file : join(dirname(file), path);
      assert.ok(existsSync(target), `${file} links to ${link}`);
      if (anchor !== undefined)
        assert.ok(anchorsOf(target).has(anchor), `${file} links to ${link}`);
    }
  }
});
