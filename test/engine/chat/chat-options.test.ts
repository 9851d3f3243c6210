import assert from 'node:assert/strict';
import { test } from 'node:test';
import { chatHelp, readChatOptions } from '#engine/chat/chat-options.ts';
import { OptionError } from '#engine/options.ts';

const read = (argv: readonly string[], environment: Record<string, string> = {}) => {
  const options = readChatOptions(argv, environment);
  assert.notEqual(options, 'help');
  return options as Exclude<typeof options, 'help'>;
};
const refuses = (argv: readonly string[], pattern: RegExp) =>
  assert.throws(
    () => readChatOptions(argv, {}),
    (error) => error instanceof OptionError && pattern.test(error.message),
  );

test('options of the engine are handed on as its variables, those of the chat are not', () => {
  const environment = { NVLM_THREADS: '2', NVLM_CHAT_SYSTEM: 'Be brief.', NVLM_PORT: '80' };
  const options = read(['--model', 'x.gguf', '--dtype=int8', '--temperature', '0.5'], environment);
  assert.deepEqual(options.engineEnvironment, {
    NVLM_THREADS: '2',
    NVLM_MODEL: 'x.gguf',
    NVLM_DTYPE: 'int8',
  });
  assert.equal(options.values.system, 'Be brief.');
  assert.equal(options.values.temperature, 0.5);
  assert.equal(options.values.url, undefined);
});

test('an engine option beside --url is refused: it could have no effect', () => {
  refuses(['--url', 'http://h:1', '--model', 'x'], /--model has no effect on the engine at --url/);
  assert.equal(read(['--url', 'http://h:1'], { NVLM_MODEL: 'x' }).values.url, 'http://h:1');
});

test('what cannot be read is refused by name', () => {
  refuses(['--tempreature', '1'], /did you mean --temperature\?/);
  refuses(['--temperature', '-1'], /--temperature: expected a number from 0 to 2, got '-1'/);
  refuses(['--dtype', 'int3'], /--dtype: expected one of/);
  refuses(['--port', '80'], /Unknown option --port/);
  refuses(['--api-key', 'k'], /--api-key needs --url/);
});

test('help names the options of both', () => {
  assert.equal(readChatOptions(['--help'], {}), 'help');
  for (const flag of ['--url', '--system', '--model', '--kv-cache-memory']) {
    assert.ok(chatHelp().includes(flag));
  }
});
