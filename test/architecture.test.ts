import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { dirname, join, sep } from 'node:path';
import { test } from 'node:test';

/** Layer -> layers it may import; 'type x' allows `import type` only. The only copy of this table. */
const mayImport: Record<string, readonly string[]> = {
  options: [],
  sizing: ['options'],
  crds: [],
  charts: ['crds'],
  'operator/kube': [],
  'operator/metrics-api': ['operator/kube'],
  'operator/scaling': ['operator/kube', 'crds'],
  'operator/plugin': ['operator/kube', 'operator/nvlm', 'crds', 'charts', 'options'],
  'operator/nvlm': ['operator/kube', 'operator/scaling', 'crds', 'charts', 'sizing'],
  kernels: [],
  'engine/protocol': [],
  'engine/tokenizer': ['engine/protocol'],
  'engine/weights': ['engine/protocol', 'type engine/tokenizer', 'type kernels'],
  'engine/model': ['kernels', 'engine/protocol', 'type engine/weights'],
  'engine/cache': [],
  'engine/scheduler': ['engine/cache', 'engine/protocol', 'type engine/model'],
  'engine/vision': ['engine/model', 'engine/protocol', 'kernels'],
  'engine/server': [
    'engine/protocol',
    'engine/tokenizer',
    'engine/scheduler',
    'type engine/vision',
  ],
  web: ['type engine/protocol'],
};
const importLine = /^(?:import|export) (type )?[^;]*?from '([#.][^']+)'/gm;
const layerOf = (path: string): string | undefined =>
  Object.keys(mayImport).find((layer) => path.startsWith(`${layer}/`));

for (const [layer, allowed] of Object.entries(mayImport)) {
  test(`${layer} imports only ${allowed.join(', ') || 'itself'}`, () => {
    for (const file of globSync(`${layer}/**/*.ts`, { exclude: ['**/dist/**'] })) {
      for (const [, type = '', from = ''] of readFileSync(file, 'utf8').matchAll(importLine)) {
        const path = from.startsWith('#') ? from.slice(1) : join(dirname(file), from);
        const target = layerOf(path) ?? path;
        const legal =
          target === layer ||
          allowed.includes(target) ||
          (type !== '' && allowed.includes(type + target));
        assert.ok(legal, `${file} imports ${from}`);
      }
    }
  });
}

test('only tests and benchmarks use what tests are made of', () => {
  const files = globSync(
    '{*.ts,{options,sizing,crds,charts,operator,engine,kernels,web,scripts,images,examples}/**/*.{ts,mjs}}',
    // The pictures of the README are taken in the tests' browser.
    { exclude: ['**/dist/**', 'kernels/build*/**', 'scripts/screenshots.ts'] },
  );
  assert.ok(files.includes(join('scripts', 'cluster', 'main.ts')));
  const users = files.filter((file) =>
    [...readFileSync(file, 'utf8').matchAll(importLine)].some(([, , from = '']) =>
      join(dirname(file), from).startsWith(`test${sep}`),
    ),
  );
  assert.deepEqual(users, []);
});

const sources = globSync(
  '{options,sizing,crds,charts,operator,engine,kernels,web,bench,scripts,examples,test}/**/*.{ts,mjs,cc,h,css}',
  {
    exclude: ['**/dist/**', 'kernels/build*/**', 'test/fixtures/**'],
  },
);

test('no source file is longer than 500 lines', () => {
  const long = sources
    .map((file) => [file, readFileSync(file, 'utf8').split('\n').length] as const)
    .filter(([, lines]) => lines > 500);
  assert.deepEqual(long, []);
});

test('only composition roots read the environment', () => {
  const readers = globSync('{options,sizing,crds,charts,operator,engine,kernels,web}/**/*.ts', {
    exclude: ['**/dist/**'],
  }).filter(
    (file) => !/(^|\/)main\.ts$/.test(file) && readFileSync(file, 'utf8').includes('process.env'),
  );
  assert.deepEqual(readers, []);
});
