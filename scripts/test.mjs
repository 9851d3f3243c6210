/** `npm test [-- PATTERN ...]`: every test file this machine can run, or those whose path contains a pattern. */
import { globSync } from 'node:fs';
import { join } from 'node:path';
import { node, root } from './build.mjs';
import { runForeground } from './command.mjs';

const patterns = process.argv.slice(2);
const files = globSync('test/**/*.test.ts', { cwd: root, exclude: ['test/fixtures/**'] })
  .filter((file) => patterns.length === 0 || patterns.some((pattern) => file.includes(pattern)))
  .sort();
if (files.length === 0) {
  console.error(`No test file matches ${patterns.join(', ')}.`);
  process.exit(2);
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
