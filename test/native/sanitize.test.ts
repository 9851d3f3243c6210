import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';

const skip =
  process.env.CI || process.env.NVLM_TEST_SANITIZE
    ? false
    : 'takes minutes: runs under CI and with NVLM_TEST_SANITIZE=1';

test('the kernel suites pass under the address and undefined-behaviour sanitizers', {
  skip,
  timeout: 1_500_000,
}, () => {
  const { status, stdout, stderr } = spawnSync('scripts/sanitize.sh', {
    encoding: 'utf8',
    maxBuffer: 64 << 20,
  });
  assert.equal(status, 0, `${stdout.slice(-6000)}\n${stderr.slice(-6000)}`);
});
