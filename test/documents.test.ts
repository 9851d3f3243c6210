import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { allCodes, errorsMarkdown } from '../scripts/errors-document.ts';

test('docs/errors.md is what the tables of the code say', () => {
  assert.equal(
    readFileSync('docs/errors.md', 'utf8'),
    errorsMarkdown(),
    'run node scripts/documents.ts',
  );
});

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
