import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, afterEach, before, beforeEach, test } from 'node:test';
import { FakeResponsesServer } from '../../support/fake-responses-server.ts';

/** The terminal chat in a process of its own, over pipes. */
class Chat {
  readonly #child: ChildProcess;
  readonly #closed: Promise<unknown>;
  /** The model's answers. */
  output = '';
  /** What the chat says itself. */
  notes = '';

  constructor(directory: string, ...flags: readonly string[]) {
    const main = resolve('engine/chat/main.ts');
    const plain = Object.entries(process.env).filter(([name]) => !name.startsWith('NVLM_'));
    this.#child = spawn(process.execPath, [main, ...flags], {
      cwd: directory,
      env: Object.fromEntries(plain),
    });
    this.#closed = once(this.#child, 'close');
    this.#child.stdout?.on('data', (data) => {
      this.output += data;
    });
    this.#child.stderr?.on('data', (data) => {
      this.notes += data;
    });
  }

  say(line: string): void {
    this.#child.stdin?.write(`${line}\n`);
  }

  pressControlC(): void {
    this.#child.kill('SIGINT');
  }

  /** Resolves once the condition holds; the test's own time limit ends a wait in vain. */
  async until(holds: () => boolean): Promise<void> {
    while (!holds()) {
      const { exitCode, signalCode } = this.#child;
      assert.equal(exitCode ?? signalCode, null, `the chat ended early: ${this.notes}`);
      await new Promise((wake) => setTimeout(wake, 5));
    }
  }

  /** The number of answers that are out. */
  get answered(): number {
    return this.notes.match(/^\[\d+ tokens?,/gm)?.length ?? 0;
  }

  endInput(): void {
    this.#child.stdin?.end();
  }

  async exitCode(): Promise<number | null> {
    await this.#closed;
    return this.#child.exitCode;
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}

const limit = { timeout: 120_000 };
const server = new FakeResponsesServer();
let url = '';
let directory = '';
let chat: Chat;

before(async () => {
  url = await server.start();
});
after(() => server.stop());
beforeEach(() => {
  server.frames.length = 0;
  server.script = ({ input }) => ({ text: `You said: ${input.at(-1)?.content}.` });
  directory = mkdtempSync(join(tmpdir(), 'nvlm-chat-'));
  chat = new Chat(directory, '--url', url);
});
afterEach(() => {
  chat.kill();
  rmSync(directory, { recursive: true, force: true });
});

const created = () => server.sent('response.create');
const user = (content: string) => ({ type: 'message', role: 'user', content });
const assistant = (content: string) => ({ type: 'message', role: 'assistant', content });

test(
  'answers stream to standard output, one per line of input, and the end of input ends the chat',
  limit,
  async () => {
    chat.say('one');
    chat.say('two');
    chat.endInput();
    assert.equal(await chat.exitCode(), 0);
    assert.equal(chat.output, 'You said: one.\nYou said: two.\n');
    assert.match(chat.notes, /^\[3 tokens, [\d.]+ tokens\/s, first after \d+\.\d\d s\]$/m);
  },
);

test('text is out while the answer is still being made', limit, async () => {
  server.script = () => ({ text: 'early late', holdBefore: 1 });
  chat.say('go');
  await chat.until(() => chat.output === 'early');
  await chat.until(() => {
    // The server may reach its hold a moment after its text reached us.
    server.release();
    return chat.output === 'early late\n';
  });
});

test('a later question sends only itself and the id of the answer before it', limit, async () => {
  chat.say('one');
  await chat.until(() => chat.answered === 1);
  chat.say('two');
  await chat.until(() => chat.answered === 2);
  const [first, second] = created();
  assert.deepEqual(first?.input, [user('one')]);
  assert.equal(first?.previous_response_id, undefined);
  assert.deepEqual(second?.input, [user('two')]);
  assert.match(String(second?.previous_response_id), /^resp_/);
});

test('an engine that forgot the conversation is told all of it again', limit, async () => {
  chat.say('one');
  await chat.until(() => chat.answered === 1);
  server.forget();
  chat.say('two');
  await chat.until(() => chat.answered === 2);
  const last = created().at(-1);
  assert.equal(last?.previous_response_id, undefined);
  assert.deepEqual(last?.input, [user('one'), assistant('You said: one.'), user('two')]);
});

test(
  'Ctrl-C stops the answer; what was said of it stays part of the conversation',
  limit,
  async () => {
    server.script = ({ input }) =>
      input.length === 1 ? { text: 'half an answer', holdBefore: 1 } : { text: 'whole' };
    chat.say('one');
    await chat.until(() => chat.output === 'half');
    chat.pressControlC();
    await chat.until(() => server.sent('response.cancel').length === 1);
    await chat.until(() => {
      server.release();
      return chat.answered === 1;
    });
    assert.match(chat.notes, /, stopped\]/);
    chat.say('two');
    await chat.until(() => chat.answered === 2);
    assert.equal(chat.output, 'half\nwhole\n');
    assert.deepEqual(created().at(-1)?.input, [user('one'), assistant('half'), user('two')]);
  },
);

test('a second Ctrl-C leaves', limit, async () => {
  chat.say('one');
  await chat.until(() => chat.answered === 1);
  chat.pressControlC();
  await chat.until(() => chat.notes.includes('Ctrl-C again to leave.'));
  chat.pressControlC();
  assert.equal(await chat.exitCode(), 0);
});

test('a second Ctrl-C leaves while the engine has not stopped the answer yet', limit, async () => {
  server.script = () => ({ text: 'a b', pauseMs: 2000 });
  chat.say('one');
  await chat.until(() => chat.output === 'a');
  chat.pressControlC();
  await chat.until(() => server.sent('response.cancel').length === 1);
  chat.pressControlC();
  assert.equal(await chat.exitCode(), 0);
});

test('/system is sent with every question after it, and /system off ends that', limit, async () => {
  for (const line of ['/system Be brief.', 'one', 'two', '/system off', 'three']) chat.say(line);
  await chat.until(() => chat.answered === 3);
  const sent = created().map((frame) => frame.instructions);
  assert.deepEqual(sent, ['Be brief.', 'Be brief.', undefined]);
});

test('/reset forgets the conversation', limit, async () => {
  for (const line of ['one', '/reset', 'two']) chat.say(line);
  await chat.until(() => chat.answered === 2);
  const last = created().at(-1);
  assert.equal(last?.previous_response_id, undefined);
  assert.deepEqual(last?.input, [user('two')]);
});

test('/save writes Markdown, and never over a file that is there', limit, async () => {
  for (const line of ['one', '/save talk.md', '/reset', '/save talk.md']) chat.say(line);
  await chat.until(() => chat.notes.includes('Not saved: EEXIST'));
  const saved = readFileSync(join(directory, 'talk.md'), 'utf8');
  assert.equal(saved, '**You**\n\none\n\n**Model**\n\nYou said: one.\n');
});

test('a line that ends with a backslash goes on in the next one', limit, async () => {
  chat.say('one\\');
  chat.say('two');
  await chat.until(() => chat.answered === 1);
  assert.deepEqual(created()[0]?.input, [user('one\ntwo')]);
});

test('/help lists the commands, an unknown one is named, and /quit leaves', limit, async () => {
  for (const line of ['/help', '/frobnicate', '/quit', 'never sent']) chat.say(line);
  assert.equal(await chat.exitCode(), 0);
  assert.match(chat.notes, /\/save \[FILE\]/);
  assert.match(chat.notes, /Unknown command \/frobnicate/);
  assert.equal(created().length, 0);
});

test('sampling flags are sent as they were given', limit, async () => {
  chat.kill();
  chat = new Chat(directory, '--url', url, '--temperature', '0', '--max-tokens=9', '--seed', '7');
  chat.say('one');
  await chat.until(() => chat.answered === 1);
  const { temperature, max_output_tokens: maximum, seed } = created()[0] ?? {};
  assert.deepEqual({ temperature, maximum, seed }, { temperature: 0, maximum: 9, seed: 7 });
});

test('a refused question is explained, and the next one works', limit, async () => {
  const message = 'the prompt is too long';
  server.script = ({ input }) =>
    input.at(-1)?.content === 'long'
      ? { error: { code: 'context_length_exceeded', message } }
      : { text: 'fine' };
  chat.say('long');
  chat.say('short');
  await chat.until(() => chat.answered === 1);
  assert.match(chat.notes, /the prompt is too long \/reset starts afresh\./);
  assert.deepEqual(created().at(-1)?.input, [user('short')]);
});

test('an answer that fails is explained', limit, async () => {
  server.script = () => ({ text: 'a b', failure: { code: 'internal_error', message: 'it broke' } });
  chat.say('one');
  await chat.until(() => chat.notes.includes('it broke'));
  assert.equal(chat.output, 'a b\n');
});

test('a lost connection is told, and the next question connects again', limit, async () => {
  server.script = ({ input }) =>
    input.at(-1)?.content === 'one' ? { text: 'a b c', dropAfter: 1 } : { text: 'back' };
  chat.say('one');
  await chat.until(() => chat.notes.includes('the connection to the engine was lost'));
  chat.say('two');
  await chat.until(() => chat.answered === 1);
  assert.equal(chat.output, 'a\nback\n');
});

test('where no engine listens the chat says so and what to do', limit, async () => {
  chat.kill();
  chat = new Chat(directory, '--url', 'http://127.0.0.1:9');
  assert.equal(await chat.exitCode(), 1);
  assert.match(
    chat.notes,
    /cannot talk to ws:\/\/127\.0\.0\.1:9\/v1\/responses: .*ECONNREFUSED.*npm run serve/,
  );
});

test(
  'an engine of its own that cannot start ends the chat, with the reason on standard error',
  limit,
  async () => {
    chat.kill();
    chat = new Chat(directory, '--model', join(directory, 'no-such-model.gguf'));
    assert.equal(await chat.exitCode(), 1);
    assert.match(chat.notes, /the engine ended \(code 1\)/);
  },
);
