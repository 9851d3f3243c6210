/** Requests that no honest client sends: each gets a typed refusal, and the server serves on as before. */
import assert from 'node:assert/strict';
import { connect } from 'node:net';
import { after, afterEach, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  closeModel,
  type LiveServer,
  noLiveServer,
  startLiveServer,
} from '../support/live-server.ts';

interface ErrorAnswer {
  readonly error: {
    readonly code: string;
    readonly message: string;
    readonly param: string | null;
  };
}

describe('hostile requests over HTTP', { skip: noLiveServer, timeout: 120_000 }, () => {
  let server: LiveServer;

  before(async () => {
    server = await startLiveServer({ maxBodyBytes: 64 << 10, requestTimeoutMs: 2000 });
  });
  after(async () => {
    await server?.close();
    await closeModel();
  });
  // Whatever was sent: the next honest request is served, and nothing of the last one is left.
  afterEach(async () => {
    const answer = await server.post<{ choices: { text: string }[] }>('/v1/completions', {
      prompt: 'The capital of France is',
      max_tokens: 4,
    });
    assert.equal(answer.status, 200);
    assert.match(answer.json.choices[0]?.text ?? '', /Paris/);
    await server.idle();
  });

  const refused = async (
    path: string,
    body: unknown,
    status: number,
    code: string,
    param?: string,
  ): Promise<string> => {
    const answer = await server.post<ErrorAnswer>(path, body);
    assert.equal(answer.status, status, JSON.stringify(answer.json));
    assert.equal(answer.json.error.code, code, answer.json.error.message);
    if (param !== undefined) assert.equal(answer.json.error.param, param);
    return answer.json.error.message;
  };
  const sendRaw = async (body: Uint8Array | string, type = 'application/json') => {
    const response = await fetch(`${server.url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': type },
      body: Buffer.from(body),
    });
    return { status: response.status, json: (await response.json()) as ErrorAnswer };
  };

  test('an empty prompt, as text, ids, messages or input', async () => {
    await refused('/v1/completions', { prompt: '' }, 400, 'invalid_request', 'prompt');
    await refused('/v1/completions', { prompt: [] }, 400, 'invalid_request', 'prompt');
    await refused('/v1/chat/completions', { messages: [] }, 400, 'invalid_request', 'messages');
    await refused('/v1/responses', { input: '' }, 400, 'invalid_request', 'input');
  });

  test('a prompt over the limit names both numbers', async () => {
    const prompt = 'word '.repeat(2000);
    const message = await refused('/v1/completions', { prompt }, 400, 'context_length_exceeded');
    assert.match(message, /1024/);
    assert.match(message, /20\d\d/);
  });

  test('token ids that the model does not have', async () => {
    await refused('/v1/completions', { prompt: [1, 2 ** 30] }, 400, 'invalid_request');
    await refused('/v1/completions', { prompt: [-1] }, 400, 'invalid_request');
    await refused('/v1/completions', { prompt: [1.5] }, 400, 'invalid_request');
  });

  test('no new tokens are wanted: the prompt alone is computed, or the field is refused where it must be positive', async () => {
    const answer = await server.post<{ usage: { completion_tokens: number } }>('/v1/completions', {
      prompt: 'Hello',
      max_tokens: 0,
      echo: true,
    });
    assert.equal(answer.status, 200);
    assert.equal(answer.json.usage.completion_tokens, 0);
    const none = { prompt: 'Hello', max_tokens: 0 };
    await refused('/v1/completions', none, 400, 'invalid_request', 'max_tokens');
    await refused(
      '/v1/responses',
      { input: 'Hello', max_output_tokens: 0 },
      400,
      'invalid_request',
      'max_output_tokens',
    );
  });

  test('sampling values that are negative, out of range, or no numbers', async () => {
    const wrong: readonly (readonly [string, unknown])[] = [
      ['temperature', -1],
      ['temperature', 1e9],
      ['temperature', 'hot'],
      ['top_p', 0],
      ['top_p', 1.5],
      ['top_p', 'x'],
      ['top_k', -5],
      ['top_k', 1.5],
      ['min_p', -0.1],
      ['repetition_penalty', 0],
      ['presence_penalty', 3],
      ['frequency_penalty', -3],
      ['seed', -1],
      ['seed', 1.5],
      ['max_tokens', -1],
      ['n', 0],
      ['n', 1e6],
      ['logprobs', 1000],
      ['logit_bias', { a: 1 }],
      ['logit_bias', { '5': 1e9 }],
      ['stop', ['']],
      ['stop', 'x'.repeat(5000)],
    ];
    for (const [field, value] of wrong) {
      const answer = await server.post<ErrorAnswer>('/v1/completions', {
        prompt: 'Hi',
        [field]: value,
      });
      assert.equal(answer.status, 400, `${field} ${JSON.stringify(value)}`);
      assert.match(answer.json.error.message, new RegExp(field));
    }
  });

  test('NaN and infinity, which JSON does not have', async () => {
    for (const value of ['NaN', 'Infinity', '-Infinity', '1e999']) {
      const { status, json } = await sendRaw(`{"prompt":"Hi","temperature":${value}}`);
      assert.equal(status, 400, value);
      assert.match(json.error.code, /^invalid_(json|request)$/);
    }
  });

  test('10,000 stop strings', async () => {
    const stop = Array.from({ length: 10_000 }, (_, i) => `s${i}`);
    const message = await refused(
      '/v1/completions',
      { prompt: 'Hi', stop: stop.slice(0, 5000) },
      400,
      'invalid_request',
      'stop',
    );
    assert.match(message, /64/);
    await refused('/v1/completions', { prompt: 'Hi', stop }, 413, 'request_too_large');
  });

  test('bodies that are no JSON, no UTF-8, no object, or not called JSON', async () => {
    for (const body of ['{', '', 'null', '[]', '"text"', '{"prompt":"Hi"}{', '{"prompt":"Hi",}']) {
      const { status, json } = await sendRaw(body);
      assert.equal(status, 400, body);
      assert.match(json.error.code, /^invalid_(json|request)$/, body);
    }
    const { status, json } = await sendRaw(
      Buffer.concat([Buffer.from('{"prompt":"'), Buffer.from([0xff, 0xfe]), Buffer.from('"}')]),
    );
    assert.equal(status, 400);
    assert.equal(json.error.code, 'invalid_json');
    const plain = await sendRaw('{"prompt":"Hi"}', 'text/plain');
    assert.equal(plain.status, 415);
    assert.equal(plain.json.error.code, 'unsupported_media_type');
  });

  test('JSON that is nested to exhaust the stack, and __proto__ as a field', async () => {
    const deep = await sendRaw(`{"prompt":${'['.repeat(20_000)}${']'.repeat(20_000)}}`);
    assert.equal(deep.status, 400);
    const proto = await sendRaw('{"prompt":"Hi","max_tokens":1,"__proto__":{"stream":true}}');
    assert.equal(proto.status, 400);
    assert.equal(({} as { stream?: boolean }).stream, undefined);
  });

  test('a body over the limit is not read to its end', async () => {
    const { status, json } = await sendRaw(JSON.stringify({ prompt: 'x'.repeat(1 << 20) }));
    assert.equal(status, 413);
    assert.equal(json.error.code, 'request_too_large');
  });

  test('a request that is never finished is cut, and its connection with it', async () => {
    const socket = connect(Number(new URL(server.url).port), '127.0.0.1');
    socket.on('error', () => {});
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.write('POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{');
    socket.resume();
    await closed;
  });

  test('headers over the limit are refused', async () => {
    const response = await fetch(`${server.url}/v1/models`, {
      headers: { 'x-filler': 'x'.repeat(20_000) },
    });
    assert.equal(response.status, 431);
  });

  test('a client that goes away in the middle of a long prompt leaves nothing running', async () => {
    const abort = new AbortController();
    const sent = fetch(`${server.url}/v1/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ prompt: 'word '.repeat(900), max_tokens: 100 }),
      signal: abort.signal,
    });
    while (server.stats().running === 0) await sleep(1);
    abort.abort();
    await assert.rejects(sent);
    await server.idle();
  });
});
