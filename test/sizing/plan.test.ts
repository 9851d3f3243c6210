import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test } from 'node:test';

const plan = (...options: string[]) =>
  spawnSync(process.execPath, ['sizing/main.ts', ...options], { encoding: 'utf8' });
const config = ['--config', 'examples/nvlm-d-72b/config.json'];

test('npm run plan tells what fits, and ends with 1 and the number to change when nothing does', () => {
  const fits = plan(...config, '--tensor', '8', '--gpu', 'a100-40gb');
  assert.equal(fits.status, 0, fits.stderr);
  assert.match(fits.stdout, /79\.38 B parameters/);
  assert.match(fits.stdout, /weights +18\.5 GiB/);
  assert.match(fits.stdout, /largest batch +\d+ +sequences of 32768 tokens/);
  const refused = plan(...config, '--tensor', '4', '--gpu', 'a100-40gb');
  assert.equal(refused.status, 1);
  assert.match(refused.stderr, /Does not fit: .*Set parallelism\.tensor to 8/);
});

test('npm run plan takes any GPU by its memory and refuses what it cannot read', () => {
  assert.equal(plan(...config, '--gpu', 'big=320GiB').status, 0);
  assert.match(plan(...config, '--gpu', 'b200').stderr, /expected a100-40gb/);
  assert.match(plan(...config, '--tenser', '2').stderr, /did you mean --tensor/);
  assert.match(plan().stderr, /--config is needed/);
  assert.match(plan('--config', 'package.json').stderr, /MODEL_CONFIG_INVALID.*model_type/);
  assert.match(plan('--config', 'nowhere.json').stderr, /nowhere\.json/);
});
