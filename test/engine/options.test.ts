import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { OptionError, readServeOptions, serveHelp } from '#engine/options.ts';
import { optionsMarkdown } from '#engine/options-document.ts';

const read = (argv: readonly string[], environment: Record<string, string> = {}) => {
  const options = readServeOptions(argv, environment);
  assert.notEqual(options, 'help');
  return options as Exclude<typeof options, 'help'>;
};
const refuses = (
  argv: readonly string[],
  pattern: RegExp,
  environment: Record<string, string> = {},
) =>
  assert.throws(
    () => readServeOptions(argv, environment),
    (error) => error instanceof OptionError && pattern.test(error.message),
  );

test('defaults hold without flags or environment, and cannot be changed', () => {
  const options = read([]);
  assert.equal(options.port, 8000);
  assert.equal(options.batchMode, 'Continuous');
  assert.deepEqual(options.kvCacheMemory, { share: 0.3 });
  assert.ok(Object.isFrozen(options));
});

test('a flag wins over the environment, which wins over the default', () => {
  assert.equal(read([], { NVLM_PORT: '9000' }).port, 9000);
  assert.equal(read(['--port', '9001'], { NVLM_PORT: '9000' }).port, 9001);
  assert.equal(read(['--port=9002']).port, 9002);
});

test('sizes, shares and durations are read in their units', () => {
  const options = read([
    '--kv-cache-memory',
    '2GiB',
    '--queue-timeout',
    '500ms',
    '--max-body-bytes',
    '1MB',
  ]);
  assert.deepEqual(options.kvCacheMemory, { bytes: 2 ** 31 });
  assert.equal(options.queueTimeout, 500);
  assert.equal(options.maxBodyBytes, 1_000_000);
});

test('a misspelt flag or variable is refused with the nearest right one', () => {
  refuses(['--max-sequence', '4'], /--max-sequence; did you mean --max-sequences\?/);
  refuses([], /NVLM_PROT; did you mean NVLM_PORT\?/, { NVLM_PROT: '1' });
});

test('a value that cannot be read is refused with what was expected', () => {
  refuses(['--port', '99999'], /--port: expected a whole number from 0 to 65535, got '99999'/);
  refuses(['--dtype', 'int3'], /--dtype: expected one of auto, float32, bfloat16, int8, int4/);
  refuses(['--kv-cache-memory', 'much'], /expected a size such as 2GiB/);
  refuses(['--block-size', '24'], /expected a multiple of 16/);
  refuses(['--model'], /--model needs a value/);
  refuses([], /NVLM_MAX_SEQUENCES: expected a whole number/, { NVLM_MAX_SEQUENCES: 'NaN' });
});

test('a chat template is one of the names or a path, and a misspelt name is refused with the nearest', () => {
  assert.equal(read([]).chatTemplate, undefined);
  assert.equal(read(['--chat-template', 'chatml']).chatTemplate, 'chatml');
  assert.equal(read([], { NVLM_CHAT_TEMPLATE: 'qwen2p0' }).chatTemplate, 'qwen2p0');
  assert.equal(read(['--chat-template', './mine']).chatTemplate, './mine');
  assert.equal(read(['--chat-template', 'mine.jinja']).chatTemplate, 'mine.jinja');
  refuses(['--chat-template', 'chatlm'], /--chat-template: .*got 'chatlm'; did you mean chatml\?/);
  refuses(['--chat-template', 'qwen2po'], /did you mean qwen2p0\?/);
  refuses(
    ['--chat-template', 'llama'],
    /expected chatml, qwen2, qwen2p0 or the path of a Jinja file/,
  );
});

test('an on/off option may stand alone', () => {
  assert.equal(read(['--prefix-caching', 'off']).prefixCaching, false);
  assert.equal(read(['--prefix-caching', '--port', '1']).prefixCaching, true);
});

test('help names every option', () => {
  const help = serveHelp();
  for (const name of ['--model', '--kv-cache-memory', '--api-keys-file'])
    assert.ok(help.includes(name));
  assert.equal(readServeOptions(['--help'], {}), 'help');
});

test('docs/options.md is what the table generates', () => {
  assert.equal(readFileSync('docs/options.md', 'utf8'), optionsMarkdown());
});
