import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';

function check(command: string, args: readonly string[]): void {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8' });
  assert.equal(status, 0, `${command} ${args.join(' ')}\n${stdout}${stderr}`);
}

test('the sources pass the linter and are formatted', () => {
  check('node_modules/.bin/biome', ['ci', '.', '--max-diagnostics=20', '--colors=off']);
});

test('the sources type-check', () => {
  check('node_modules/.bin/tsc', ['-p', '.']);
});

test('the page type-checks', () => {
  check('node_modules/.bin/tsc', ['-p', 'web', '--noEmit']);
});

test('what people install is what the charts make', () => {
  check(process.execPath, ['cdk8s.ts', '--check']);
});
