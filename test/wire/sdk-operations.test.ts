/** What an operator relies on: keys, request ids, log lines, health, metrics and origins, on a real model. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { after, before, describe, test } from 'node:test';
import OpenAI from 'openai';
import { ResponsesWS } from 'openai/resources/responses/ws';
import { WebSocket } from 'ws';
import {
  closeModel,
  type LiveServer,
  MODEL_NAME as model,
  noLiveServer,
  samplesOf,
  startLiveServer,
  useLiveServer,
} from '../support/live-server.ts';

const messages = [{ role: 'user' as const, content: 'Name three colours of the rainbow.' }];
const KEYS = ['first-key', 'second-key'];

/** Answer to an upgrade: 101, or the status that refused it. */
async function upgradeStatus(
  server: LiveServer,
  options: { headers?: Record<string, string>; protocols?: string[]; path?: string },
): Promise<number> {
  const url = `${server.url.replace('http', 'ws')}${options.path ?? '/v1/responses'}`;
  const socket = new WebSocket(url, options.protocols ?? [], { headers: options.headers ?? {} });
  const refused = new Promise<number>((resolve) => {
    socket.on('unexpected-response', (_request, response) => {
      response.resume();
      resolve(response.statusCode ?? 0);
    });
  });
  const status = await Promise.race([refused, once(socket, 'open').then(() => 101)]);
  socket.on('error', () => {});
  socket.terminate();
  return status;
}

describe('a server with API keys', { skip: noLiveServer, timeout: 300_000 }, () => {
  let server: LiveServer;

  before(async () => {
    server = await startLiveServer({ apiKeys: KEYS });
  });
  after(async () => {
    await server?.close();
  });

  test('each key opens every route, no other key opens one, and health stays open', async () => {
    for (const apiKey of KEYS) {
      const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey, maxRetries: 0 });
      assert.equal((await client.models.list()).data[0]?.id, model);
    }
    for (const apiKey of ['wrong', 'first-ke', 'first-key2', 'first-key,second-key']) {
      const client = new OpenAI({ baseURL: `${server.url}/v1`, apiKey, maxRetries: 0 });
      for (const call of [
        () => client.models.list(),
        () => client.chat.completions.create({ model, messages }),
        () => client.responses.create({ model, input: 'Hi' }),
        () => client.completions.create({ model, prompt: 'Hi' }),
        () => client.responses.retrieve('resp_x'),
      ]) {
        await assert.rejects(call, (error: unknown) => {
          assert.ok(error instanceof OpenAI.AuthenticationError);
          assert.equal(error.code, 'invalid_api_key');
          return true;
        });
      }
    }
    const status = async (path: string, headers = {}) =>
      (await fetch(`${server.url}${path}`, { headers })).status;
    assert.equal(await status('/v1/models'), 401);
    assert.equal(await status('/V1/models'), 404);
    assert.equal(await status('//v1/models'), 404);
    assert.equal(await status('/v1/models?x=/healthz'), 401);
    assert.equal(await status('/v1/models', { authorization: 'Basic first-key' }), 401);
    for (const path of ['/healthz', '/readyz', '/metrics']) assert.equal(await status(path), 200);
    for (const path of ['/tokenize', '/detokenize', '/reset_prefix_cache']) {
      const response = await fetch(`${server.url}${path}`, { method: 'POST' });
      assert.equal(response.status, 401, path);
      await response.body?.cancel();
    }
  });

  test('an encoded path opens nothing without a key', async () => {
    for (const path of ['/%76%31/models', '/v1%2Fmodels', '/./v1/models', '/x/../v1/models']) {
      const response = await fetch(`${server.url}${path}`);
      assert.ok([401, 404].includes(response.status), `${path}: ${response.status}`);
      await response.body?.cancel();
    }
    for (const path of ['/%76%31/completions', '/v%31/responses', '/%74okenize']) {
      const response = await fetch(`${server.url}${path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ model, prompt: 'Hi', input: 'Hi' }),
      });
      assert.ok([401, 404].includes(response.status), `${path}: ${response.status}`);
      await response.body?.cancel();
    }
  });

  test('a socket is refused without a key, and takes it as header or as subprotocol', async () => {
    assert.equal(await upgradeStatus(server, {}), 401);
    assert.equal(await upgradeStatus(server, { headers: { authorization: 'Bearer no' } }), 401);
    const headers = { authorization: `Bearer ${KEYS[1]}` };
    assert.equal(await upgradeStatus(server, { headers }), 101);
    const protocols = ['realtime', `openai-insecure-api-key.${KEYS[0]}`];
    assert.equal(await upgradeStatus(server, { protocols }), 101);
    assert.equal(await upgradeStatus(server, { headers, path: '/v1/other' }), 404);
  });

  test('no key appears in a log line', () => {
    const log = JSON.stringify(server.log);
    for (const key of KEYS) assert.ok(!log.includes(key));
  });
});

describe('logs, health, metrics and origins', { skip: noLiveServer, timeout: 300_000 }, () => {
  let server: LiveServer;
  useLiveServer((live) => {
    server = live;
  });

  const metrics = async (): Promise<string> => (await fetch(`${server.url}/metrics`)).text();
  const finished = () => server.log.filter(({ msg }) => msg === 'request finished');

  test('the request id of the client comes back and stands in one line of the log with reason, counts and timings', async () => {
    const before = finished().length;
    const { data, response } = await server.client.chat.completions
      .create(
        { model, messages, max_completion_tokens: 7, ...{ ignore_eos: true } },
        { headers: { 'x-request-id': 'my-id.1' } },
      )
      .withResponse();
    assert.equal(response.headers.get('x-request-id'), 'my-id.1');
    const lines = finished().slice(before);
    assert.equal(lines.length, 1);
    const [line] = lines;
    assert.equal(line?.requestId, 'my-id.1');
    assert.equal(line?.route, '/v1/chat/completions');
    assert.equal(line?.reason, 'length');
    assert.equal(line?.promptTokens, data.usage?.prompt_tokens);
    assert.equal(line?.generatedTokens, 7);
    assert.equal(line?.cachedTokens, data.usage?.prompt_tokens_details?.cached_tokens);
    for (const timing of ['queuedMs', 'prefillMs', 'decodeMs', 'firstTokenMs', 'totalMs']) {
      assert.equal(typeof line?.[timing], 'number', timing);
    }
    // What people write is theirs.
    assert.ok(!JSON.stringify(server.log).includes('rainbow'));
  });

  test('a request id that could forge a log line is replaced', async () => {
    for (const sent of ['a b', 'x'.repeat(129), '"}{']) {
      const response = await fetch(`${server.url}/healthz`, { headers: { 'x-request-id': sent } });
      assert.match(response.headers.get('x-request-id') ?? '', /^req_[\w-]{36}$/);
    }
  });

  test('every way to end is one line of the log and one count of its reason', async () => {
    const before = finished().length;
    const counts = samplesOf(await metrics(), 'vllm:request_success_total');
    const ask = (extras: object) =>
      server.client.chat.completions.create({
        model,
        messages,
        max_completion_tokens: 5,
        ...extras,
        stream: false,
      });
    await ask({});
    await ask({ stop: ' ' });
    const socket = new ResponsesWS(server.client);
    socket.on('error', () => {});
    const started = new Promise((resolve) => socket.on('response.output_text.delta', resolve));
    socket.send({
      type: 'response.create',
      model,
      input: 'Count.',
      max_output_tokens: 900,
      ...{ ignore_eos: true },
    });
    await started;
    socket.close();
    await server.idle();
    const reasons = finished()
      .slice(before)
      .map(({ reason }) => reason);
    assert.deepEqual(reasons, ['length', 'stop', 'abort']);
    const grown = samplesOf(await metrics(), 'vllm:request_success_total');
    for (const reason of ['length', 'stop', 'abort']) {
      const label = [...grown.keys()].find((text) => text.includes(`"${reason}"`)) ?? '';
      assert.equal((grown.get(label) ?? 0) - (counts.get(label) ?? 0), 1, reason);
    }
    assert.match(String(finished().at(-1)?.requestId), /^req_.*\.1$/);
  });

  test('metrics carry the names, labels and buckets that dashboards of vLLM read, and count exactly', async () => {
    const value = (text: string, name: string): number => {
      const values = [...samplesOf(text, name).values()];
      assert.equal(values.length, 1, name);
      return values[0] as number;
    };
    const before = await metrics();
    const { usage } = await server.client.chat.completions.create({
      model,
      messages,
      max_completion_tokens: 9,
      ...{ ignore_eos: true },
    });
    await server.idle();
    const after = await metrics();
    const growth = (name: string): number => value(after, name) - value(before, name);
    assert.equal(growth('vllm:prompt_tokens_total'), usage?.prompt_tokens);
    assert.equal(growth('vllm:generation_tokens_total'), 9);
    assert.equal(growth('vllm:time_to_first_token_seconds_count'), 1);
    assert.equal(growth('vllm:inter_token_latency_seconds_count'), 8);
    assert.equal(growth('vllm:request_time_per_output_token_seconds_count'), 1);
    assert.equal(growth('vllm:request_prompt_tokens_sum'), usage?.prompt_tokens);
    assert.equal(growth('vllm:request_generation_tokens_sum'), 9);
    assert.equal(growth('vllm:request_params_max_tokens_sum'), 9);
    assert.equal(growth('vllm:request_params_n_sum'), 1);
    assert.equal(
      growth('vllm:request_prefill_kv_computed_tokens_sum'),
      (usage?.prompt_tokens ?? 0) - (usage?.prompt_tokens_details?.cached_tokens ?? 0),
    );
    for (const phase of ['queue', 'prefill', 'decode', 'inference']) {
      assert.equal(growth(`vllm:request_${phase}_time_seconds_count`), 1, phase);
    }
    assert.equal(growth('vllm:e2e_request_latency_seconds_count'), 1);
    assert.equal(value(after, 'vllm:num_requests_running'), 0);
    assert.equal(value(after, 'vllm:num_requests_waiting'), 0);
    assert.equal(value(after, 'vllm:kv_cache_usage_perc'), 0);
    for (const name of ['num_preemptions', 'prefix_cache_queries', 'prefix_cache_hits']) {
      assert.ok(value(after, `vllm:${name}_total`) >= 0);
    }
    assert.match(after, /vllm:num_requests_running\{model_name="smol",engine="0"\} 0/);

    const buckets = (name: string): number[] =>
      [...samplesOf(after, `${name}_bucket`).keys()].map((label) =>
        Number((/le="([^"]+)"/.exec(label)?.[1] ?? '').replace('+Inf', 'Infinity')),
      );
    const request = [0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480];
    request.push(960, 1920, 7680, Infinity);
    for (const phase of ['queue', 'prefill', 'decode', 'inference']) {
      assert.deepEqual(buckets(`vllm:request_${phase}_time_seconds`), request, phase);
    }
    assert.deepEqual(buckets('vllm:e2e_request_latency_seconds'), request);
    const first = [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5];
    first.push(7.5, 10, 20, 40, 80, 160, 640, 2560, Infinity);
    assert.deepEqual(buckets('vllm:time_to_first_token_seconds'), first);
    const gap = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5];
    gap.push(10, 20, 40, 80, Infinity);
    assert.deepEqual(buckets('vllm:inter_token_latency_seconds'), gap);
    const counts = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, Infinity];
    assert.deepEqual(buckets('vllm:request_prompt_tokens'), counts);
    assert.deepEqual(buckets('vllm:request_generation_tokens'), counts);
  });

  test('refused requests are counted by their code', async () => {
    const refusals = async () =>
      samplesOf(await metrics(), 'nvlm_errors_total').get('{code="unsupported_parameter"}') ?? 0;
    const before = await refusals();
    await server.post('/v1/chat/completions', { messages, functions: [{}] });
    assert.equal((await refusals()) - before, 1);
  });

  test('ready means that a token was decoded: at rest by one of its own, which no figure counts', async () => {
    await server.idle();
    const before = server.stats();
    const response = await fetch(`${server.url}/readyz`);
    assert.equal(response.status, 200);
    const { steps, lastStepAt, blocksUsed, ...after } = server.stats();
    assert.ok(steps > 0);
    const { steps: _, lastStepAt: __, blocksUsed: ___, ...asked } = before;
    assert.deepEqual(after, asked);
    assert.equal((await fetch(`${server.url}/healthz`)).status, 200);
  });

  test('pages of other sites may neither read answers nor open sockets', async () => {
    const origin = 'https://elsewhere.example';
    const response = await fetch(`${server.url}/v1/models`, { headers: { origin } });
    assert.equal(response.headers.get('access-control-allow-origin'), null);
    const preflight = await fetch(`${server.url}/v1/chat/completions`, {
      method: 'OPTIONS',
      headers: { origin, 'access-control-request-method': 'POST' },
    });
    assert.equal(preflight.headers.get('access-control-allow-origin'), null);
    assert.equal(await upgradeStatus(server, { headers: { origin } }), 403);
    assert.equal(await upgradeStatus(server, { headers: { origin: server.url } }), 101);
  });
});

describe('a server that names an origin', { skip: noLiveServer, timeout: 300_000 }, () => {
  let server: LiveServer;
  const origin = 'https://app.example';

  before(async () => {
    server = await startLiveServer({ corsOrigins: [origin], apiKeys: KEYS });
  });
  after(async () => {
    await server?.close();
    await closeModel();
  });

  test('its pages may ask, be refused readably, and open sockets; those of others may not', async () => {
    const preflight = await fetch(`${server.url}/v1/chat/completions`, {
      method: 'OPTIONS',
      headers: { origin, 'access-control-request-method': 'POST' },
    });
    assert.equal(preflight.status, 204);
    assert.equal(preflight.headers.get('access-control-allow-origin'), origin);
    assert.match(preflight.headers.get('access-control-allow-headers') ?? '', /authorization/);
    const refused = await fetch(`${server.url}/v1/models`, { headers: { origin } });
    assert.equal(refused.status, 401);
    assert.equal(refused.headers.get('access-control-allow-origin'), origin);
    const stream = await fetch(`${server.url}/v1/chat/completions`, {
      method: 'POST',
      headers: {
        origin,
        authorization: `Bearer ${KEYS[0]}`,
        'content-type': 'application/json',
      },
      body: JSON.stringify({ messages, max_tokens: 2, stream: true }),
    });
    assert.equal(stream.headers.get('access-control-allow-origin'), origin);
    assert.match(await stream.text(), /data: \[DONE\]/);
    const other = await fetch(`${server.url}/healthz`, {
      headers: { origin: 'https://app.example.evil' },
    });
    assert.equal(other.headers.get('access-control-allow-origin'), null);
    const authorization = `Bearer ${KEYS[0]}`;
    assert.equal(await upgradeStatus(server, { headers: { origin, authorization } }), 101);
    const evil = { origin: 'https://app.example.evil', authorization };
    assert.equal(await upgradeStatus(server, { headers: evil }), 403);
  });
});
