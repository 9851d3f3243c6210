/** The report of a run, over test files that run in a process of their own. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { temporaryDirectory } from '../support/checkpoint-files.ts';

const reporter = join(import.meta.dirname, '../../scripts/reporter.mjs');

const suite = "import { describe, test } from 'node:test';";

/** What is reported of these files, `*.test.mjs` of them run. */
function reportOf(context: TestContext, files: Readonly<Record<string, string>>) {
  const directory = temporaryDirectory(context);
  for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, name), text);
  // Inside a test run Node would report to the outer one.
  const { NODE_TEST_CONTEXT: _, ...env } = process.env;
  const tests = Object.keys(files).filter((name) => name.endsWith('.test.mjs'));
  const { stdout, status } = spawnSync(
    process.execPath,
    ['--test', `--test-reporter=${reporter}`, ...tests],
    { cwd: directory, env, encoding: 'utf8' },
  );
  return { stdout, status };
}

test('tests of a suite that several files share count for the file that was run', (context) => {
  const { stdout, status } = reportOf(context, {
    'suite.mjs': `${suite}
      export const suite = (isBroken) => describe('all', () => {
        test('works', () => {});
        test('needs a GPU', { skip: 'no GPU' }, () => {});
        test('holds', () => { if (isBroken) throw new Error('broken'); });
      });`,
    'a.test.mjs': "import { suite } from './suite.mjs'; suite(false);",
    'b.test.mjs': `import { test } from 'node:test'; import { suite } from './suite.mjs';
      suite(true); test('own', () => {});`,
  });
  assert.equal(status, 1, stdout);
  assert.match(stdout, /^✔ a\.test\.mjs +2 passed 1 skipped \(/m);
  assert.match(stdout, /^✖ b\.test\.mjs +2 passed 1 failed, 1 skipped \(/m);
  assert.match(stdout, /^✖ b\.test\.mjs: holds$/m);
  assert.match(stdout, /^ {2}- a\.test\.mjs: needs a GPU: no GPU$/m);
  assert.match(stdout, /^Failed \(1\):\n {2}✖ b\.test\.mjs: holds\n {6}Error: broken$/m);
});

test('a suite that is skipped as a whole is told with its reason', (context) => {
  const { stdout } = reportOf(context, {
    'a.test.mjs': `${suite} describe('all', { skip: 'no Go' }, () => { test('one', () => {}); });`,
  });
  assert.match(stdout, /^✔ a\.test\.mjs +0 passed 1 skipped \(/m);
  assert.match(stdout, /^ {2}- a\.test\.mjs: all: no Go$/m);
});

test('a suite whose preparation fails is told with the cause', (context) => {
  const { stdout } = reportOf(context, {
    'a.test.mjs': `import { before } from 'node:test'; ${suite}
      describe('all', () => {
        before(() => { throw new Error('port taken'); });
        test('one', () => {});
      });`,
  });
  assert.match(stdout, /^✖ a\.test\.mjs: all\n {4}Error: port taken$/m);
  assert.match(stdout, /^ {2}✖ a\.test\.mjs: all$/m);
});

test('a file that cannot be loaded is told with what it wrote', (context) => {
  const { stdout } = reportOf(context, { 'a.test.mjs': "import './nothing.mjs';" });
  assert.match(stdout, /^✖ a\.test\.mjs: a\.test\.mjs$/m);
  assert.match(stdout, /^ {4}Error .*Cannot find module '.*nothing\.mjs'/m);
});
