/** `npm test [-- PATTERN ...]`: every test file this machine can run, or those whose path contains a pattern. */
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildAddon, node, root } from './build.mjs';
import { buildCluster, findGo } from './cluster/build.mjs';
import { buildHelm } from './cluster/helm.mjs';
import { runForeground } from './command.mjs';

const patterns = process.argv.slice(2);
const files = globSync('test/**/*.test.ts', { cwd: root, exclude: ['test/fixtures/**'] })
  .filter((file) => patterns.length === 0 || patterns.some((pattern) => file.includes(pattern)))
  .sort();
if (files.length === 0) {
  console.error(`No test file matches ${patterns.join(', ')}.`);
  process.exit(2);
}

// Minutes on a bare machine: before the first test, not inside the time that a test file is given.
const { CI, NVLM_TEST_SANITIZE } = process.env;
if ((CI || NVLM_TEST_SANITIZE) && files.includes('test/native/sanitize.test.ts'))
  await buildAddon({ sanitize: true });
if (findGo()) {
  if (files.some((file) => /^test\/(cluster|node)\//.test(file))) await buildCluster();
  const usesHelm = (file) =>
    readFileSync(join(root, file), 'utf8').includes('support/cluster/helm');
  if (files.some(usesHelm)) await buildHelm();
}
process.exit(
  await runForeground(
    node,
    [
      '--test',
      '--test-concurrency=2',
      '--test-timeout=900000',
      `--test-reporter=${join(root, 'scripts/reporter.mjs')}`,
      ...files,
    ],
    { cwd: root },
  ),
);
