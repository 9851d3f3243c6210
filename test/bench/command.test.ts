import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, it } from 'node:test';

const main = join(import.meta.dirname, '../../bench/main.ts');
const bench = (...args: string[]) =>
  spawnSync(process.execPath, [main, ...args], { encoding: 'utf8', timeout: 30_000 });

describe('the bench command', () => {
  it('tells its commands and options by --help', () => {
    const { status, stdout } = bench('--help');
    assert.equal(status, 0);
    for (const word of ['study', 'serve', 'kernels', '--peer', '--slo-ttft'])
      assert.ok(stdout.includes(word), word);
  });

  for (const [args, expected] of [
    [['serve', '--requets', '4'], /--requests/],
    [['study', '--rounds', 'none'], /--rounds none: expected a number above 0/],
    [['study', '--peer', 'other'], /Unknown peer other/],
    [['study', '--dtype', 'int3'], /--dtype int3: expected one of/],
    [['model', '--kv-cache-dtype', 'int4'], /--kv-cache-dtype int4: expected one of auto/],
    [['study', '--isa', 'avx3'], /--isa avx3: expected one of .*portable/],
    [['width', '--work', 'encode'], /--work encode: expected part of one of: InternViT layer/],
  ] as const)
    it(`refuses ${args.join(' ')} by name, with exit code 2`, () => {
      const { status, stderr } = bench(...args);
      assert.equal(status, 2, stderr);
      assert.match(stderr, expected);
    });

  it('refuses an unknown command with exit code 2', () => {
    assert.equal(bench('studdy').status, 2);
  });
});
