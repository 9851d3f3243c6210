import assert from 'node:assert/strict';
import { createServer, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { readFigures, scrape } from '#operator/scaling/scrape.ts';

describe('the figures of an engine', () => {
  test('are summed over their labels, whatever stands in them, beside other metrics and comments', () => {
    const text = [
      '# HELP vllm:num_requests_waiting Requests that wait.',
      '# TYPE vllm:num_requests_waiting gauge',
      'vllm:num_requests_waiting{model_name="a",engine="0"} 3',
      'vllm:num_requests_waiting{model_name="b}c, \\"d\\" {e 7"} 4',
      'vllm:num_requests_running 2 1763800000000',
      'vllm:num_requests_waiting_total 99',
      'vllm:request_success_total{finished_reason="stop"} 10',
      'vllm:request_success_total{finished_reason="length"} 1e1',
      'vllm:generation_tokens_total{model_name="a"} 700',
      'vllm:generation_tokens_total{model_name="b"} 7',
      '',
    ].join('\n');
    assert.deepEqual(readFigures(text), {
      waiting: 7,
      running: 2,
      finished: 20,
      tokens: 707,
    });
  });

  test('are refused when waiting or running is not told, or is no number: silence is not zero', () => {
    assert.throws(() => readFigures(''), /num_requests_waiting, got none/);
    assert.throws(() => readFigures('vllm:num_requests_waiting 1\n'), /num_requests_running/);
    for (const value of ['NaN', '+Inf', 'x']) {
      const text = `vllm:num_requests_waiting ${value}\nvllm:num_requests_running 0\n`;
      assert.throws(() => readFigures(text), /num_requests_waiting/);
    }
  });

  test('need no count of ended requests: an engine has none before its first', () => {
    const text = 'vllm:num_requests_waiting 0\nvllm:num_requests_running 0\n';
    assert.equal(readFigures(text).finished, 0);
  });
});

test('an engine that loads its model says how far it is, and has no requests', () => {
  const text = '# TYPE nvlm_load_fraction gauge\nnvlm_load_fraction{phase="downloading"} 0.41\n';
  assert.deepEqual(readFigures(text), {
    waiting: 0,
    running: 0,
    finished: 0,
    loading: { phase: 'downloading', fraction: 0.41 },
  });
});

describe('an engine is asked, and', () => {
  let server: Server;
  let url: string;
  let answer: (response: ServerResponse) => void;
  beforeEach(async () => {
    server = createServer((_request, response) => answer(response));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/metrics`;
  });
  afterEach(() => {
    server.closeAllConnections();
    server.close();
  });
  const good = 'vllm:num_requests_waiting 5\nvllm:num_requests_running 1\n';

  test('its answer is read', async () => {
    answer = (response) => response.end(good);
    assert.deepEqual(await scrape(url, 2000), { waiting: 5, running: 1, finished: 0 });
  });

  test('silence ends at the deadline, also in the middle of an answer', async () => {
    answer = () => {};
    await assert.rejects(scrape(url, 100), /not answered within 100 ms/);
    answer = (response) => {
      response.write(good);
      const timer = setInterval(() => response.write('# more\n'), 20);
      response.on('close', () => clearInterval(timer));
    };
    await assert.rejects(scrape(url, 150), /within 150 ms|aborted/);
  });

  test('what is no answer is an error: a status, a broken connection, nobody there, an endless text', async () => {
    answer = (response) => response.writeHead(503).end(good);
    await assert.rejects(scrape(url, 2000), /answered 503/);
    answer = (response) => {
      response.write(good);
      setTimeout(() => response.socket?.destroy(), 20);
    };
    await assert.rejects(scrape(url, 2000));
    answer = (response) => {
      const more = (): void => void response.write('#'.repeat(1 << 20), more);
      more();
    };
    await assert.rejects(scrape(url, 20_000), /without an end/);
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    await assert.rejects(scrape(url, 2000), { code: 'ECONNREFUSED' });
  });

  test('the caller may give up', async () => {
    answer = () => {};
    const stop = new AbortController();
    const asking = scrape(url, 10_000, stop.signal);
    stop.abort();
    await assert.rejects(asking, { name: 'AbortError' });
  });
});
