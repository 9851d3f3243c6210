import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Chat } from '#web/chat.ts';
import { activePath, emptyConversation } from '#web/conversation.ts';
import type { CreateRequest, ServerEvent } from '#web/protocol.ts';
import { defaultSettings } from '#web/settings.ts';

function harness(conversation = emptyConversation()) {
  const requests: CreateRequest[] = [];
  const calls: unknown[][] = [];
  const settings = defaultSettings();
  let now = 0;
  let ids = 0;
  const chat = new Chat(
    {
      connection: {
        create: (request) => requests.push(request),
        resume: (...parts) => calls.push(['resume', ...parts]),
        cancel: (streamId) => calls.push(['cancel', streamId]),
        drop: (streamId) => calls.push(['drop', streamId]),
      },
      settings: () => settings,
      pictureUrl: (id) => (id === 'p1' ? 'data:image/png;base64,AA==' : undefined),
      now: () => {
        now += 100;
        return now;
      },
      newId: () => `t${ids++}`,
      onChange: () => {},
      onError: (error) => calls.push(['error', error.code]),
    },
    conversation,
  );
  const asked = (): CreateRequest => {
    const request = requests.at(-1);
    assert.ok(request, 'nothing was asked');
    return request;
  };
  const deliver = (event: object): void => chat.receive(asked().stream_id, event as ServerEvent);
  const answer = (id: string, text: string): void => {
    deliver({ type: 'response.created', sequence_number: 0, response: { id } });
    deliver({ type: 'response.output_text.delta', sequence_number: 1, delta: text });
    deliver({ type: 'response.completed', sequence_number: 2, response: { id } });
  };
  const texts = (): string[] => activePath(chat.conversation).map((turn) => turn.text);
  return { chat, requests, calls, settings, asked, deliver, answer, texts };
}

test('a second question sends only its own text and names the answer before it', () => {
  const { chat, answer, asked, texts } = harness();
  chat.ask('first');
  assert.deepEqual(asked().input, [{ role: 'user', content: 'first' }]);
  assert.equal(asked().background, true);
  answer('resp_1', 'one');
  chat.ask('second');
  assert.deepEqual(asked().input, [{ role: 'user', content: 'second' }]);
  assert.equal(asked().previous_response_id, 'resp_1');
  assert.deepEqual(texts(), ['first', 'one', 'second', '']);
});

test('an edited question branches from the answer before it and the old branch can be shown again', () => {
  const { chat, answer, asked, texts } = harness();
  chat.ask('first');
  answer('resp_1', 'one');
  chat.ask('second');
  const old = activePath(chat.conversation)[2];
  answer('resp_2', 'two');
  chat.edit(old?.id ?? '', 'other');
  assert.equal(asked().previous_response_id, 'resp_1');
  answer('resp_3', 'three');
  assert.deepEqual(texts(), ['first', 'one', 'other', 'three']);
  chat.show(old?.id ?? '');
  assert.deepEqual(texts(), ['first', 'one', 'second', 'two']);
});

test('editing the first question starts afresh', () => {
  const { chat, answer, asked } = harness();
  chat.ask('first');
  const first = activePath(chat.conversation)[0];
  answer('resp_1', 'one');
  chat.edit(first?.id ?? '', 'anew');
  assert.equal(asked().previous_response_id, undefined);
  assert.deepEqual(asked().input, [{ role: 'user', content: 'anew' }]);
});

test('a regenerated answer stands beside the old one', () => {
  const { chat, answer, texts } = harness();
  chat.ask('first');
  answer('resp_1', 'one');
  const old = activePath(chat.conversation)[1];
  chat.regenerate(old?.id ?? '');
  answer('resp_2', 'another');
  assert.deepEqual(texts(), ['first', 'another']);
  chat.show(old?.id ?? '');
  assert.deepEqual(texts(), ['first', 'one']);
});

test('a stopped answer keeps its text, ignores late tokens, and the next question sends the whole branch', () => {
  const { chat, deliver, asked, calls, texts } = harness();
  chat.ask('first');
  deliver({ type: 'response.created', sequence_number: 0, response: { id: 'resp_1' } });
  deliver({ type: 'response.output_text.delta', sequence_number: 1, delta: 'par' });
  chat.stop();
  assert.deepEqual(calls, [['cancel', asked().stream_id]]);
  deliver({ type: 'response.output_text.delta', sequence_number: 2, delta: 'tial' });
  deliver({ type: 'response.cancelled', sequence_number: 3, response: { id: 'resp_1' } });
  assert.deepEqual(texts(), ['first', 'par']);
  assert.equal(chat.running, null);
  chat.ask('second');
  assert.equal(asked().previous_response_id, undefined);
  assert.deepEqual(asked().input, [
    { role: 'user', content: 'first' },
    { role: 'assistant', content: 'par' },
    { role: 'user', content: 'second' },
  ]);
});

test('when the engine has forgotten the answer before, the whole branch is sent once', () => {
  const { chat, answer, asked, deliver, requests, texts } = harness();
  chat.ask('first');
  answer('resp_1', 'one');
  chat.ask('second');
  const lost = { type: 'error', error: { code: 'response_not_found', message: 'gone' } };
  deliver(lost);
  assert.equal(requests.length, 3);
  assert.equal(asked().previous_response_id, undefined);
  assert.deepEqual(
    asked().input.map(({ content }) => content),
    ['first', 'one', 'second'],
  );
  deliver(lost);
  assert.equal(requests.length, 3);
  assert.deepEqual(texts(), ['first', 'one', 'second', '']);
  const failed = activePath(chat.conversation)[3];
  assert.equal(failed?.kind === 'assistant' && failed.status, 'failed');
});

test('after a reload a running answer is resumed after the last event that was kept', () => {
  const before = harness();
  before.chat.ask('first');
  before.deliver({ type: 'response.created', sequence_number: 0, response: { id: 'resp_1' } });
  before.deliver({ type: 'response.output_text.delta', sequence_number: 1, delta: 'par' });
  const stored = JSON.parse(JSON.stringify(before.chat.conversation));
  const after = harness(stored);
  void after.chat.resumeRunning(Promise.resolve());
  const { stream_id: streamId } = before.asked();
  assert.deepEqual(after.calls, [['resume', streamId, 'resp_1', 1]]);
  after.chat.receive(streamId, {
    type: 'response.output_text.delta',
    sequence_number: 2,
    delta: 'tial',
  });
  assert.deepEqual(after.texts(), ['first', 'partial']);
});

test('while pictures are loading, a question is sent once, and one asked before the reload waits or is stopped', async () => {
  const before = harness();
  before.chat.ask('first');
  const stored = JSON.stringify(before.chat.conversation);
  const { promise: loaded, resolve: load } = Promise.withResolvers<void>();
  const [waiting, stopped] = [harness(JSON.parse(stored)), harness(JSON.parse(stored))];
  const resumed = [waiting, stopped].map(({ chat }) => chat.resumeRunning(loaded));
  const first = activePath(stopped.chat.conversation)[0];
  stopped.chat.edit(first?.id ?? '', 'other');
  assert.deepEqual([waiting.requests.length, stopped.requests.length], [0, 1]);
  load();
  await Promise.all(resumed);
  assert.deepEqual(
    [waiting, stopped].map(({ requests }) => requests.map(({ input }) => input[0]?.content)),
    [['first'], ['other']],
  );
});

test('settings that were chosen go with the request and others do not', () => {
  const { chat, settings, asked } = harness();
  settings.systemPrompt = '  Be brief.  ';
  settings.sampling = { temperature: 0, top_k: 20 };
  chat.ask('first');
  const { instructions, temperature, top_k, top_p, seed, model } = asked();
  assert.deepEqual(
    { instructions, temperature, top_k, top_p, seed, model },
    {
      instructions: 'Be brief.',
      temperature: 0,
      top_k: 20,
      top_p: undefined,
      seed: undefined,
      model: undefined,
    },
  );
});

test('the final text of the engine replaces what was pieced together', () => {
  const { chat, deliver, texts } = harness();
  chat.ask('first');
  deliver({ type: 'response.output_text.delta', sequence_number: 1, delta: 'helo' });
  deliver({ type: 'response.output_text.done', sequence_number: 2, text: 'hello' });
  assert.deepEqual(texts(), ['first', 'hello']);
});

test('an error that names no answer is reported and ends none', () => {
  const { chat, calls } = harness();
  chat.ask('first');
  chat.receive(null, { type: 'error', error: { code: 'shutting_down', message: 'stopping' } });
  assert.deepEqual(calls, [['error', 'shutting_down']]);
  assert.notEqual(chat.running, null);
});

test('pictures go before the words, stay with an edited question, and are left out when the browser lost them', () => {
  const { chat, answer, asked } = harness();
  const picture = { id: 'p1', name: 'a.png', width: 10, height: 10 };
  const image = { type: 'input_image', image_url: 'data:image/png;base64,AA==', detail: 'auto' };
  chat.ask('What is it?', [picture, { ...picture, id: 'lost' }]);
  assert.deepEqual(asked().input, [
    { role: 'user', content: [image, { type: 'input_text', text: 'What is it?' }] },
  ]);
  const first = activePath(chat.conversation)[0];
  answer('resp_1', 'A cat.');
  chat.edit(first?.id ?? '', 'Really?');
  assert.deepEqual(asked().input, [
    { role: 'user', content: [image, { type: 'input_text', text: 'Really?' }] },
  ]);
});
