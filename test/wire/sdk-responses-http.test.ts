/** The Responses interface over HTTP, by the official npm client, on a real model. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import OpenAI from 'openai';
import type { ResponseStreamEvent } from 'openai/resources/responses/responses';
import { assertOfficialTypes } from '../support/event-types.ts';
import {
  type LiveServer,
  MODEL_NAME as model,
  noLiveServer,
  useLiveServer,
} from '../support/live-server.ts';
import { assertLifecycle, official, textOf } from '../support/response-events.ts';

const QUESTION = 'Name three colours of the rainbow.';

/** All events of a stream, after checking that they are numbered 0, 1, 2 ... (or from `first`). */
async function readAll(
  stream: AsyncIterable<ResponseStreamEvent>,
  first = 0,
): Promise<ResponseStreamEvent[]> {
  const events: ResponseStreamEvent[] = [];
  for await (const event of stream) {
    assert.equal(event.sequence_number, first + events.length);
    events.push(event);
  }
  return events;
}

describe('responses over HTTP', { skip: noLiveServer, timeout: 120_000 }, () => {
  let server: LiveServer;
  let client: OpenAI;
  useLiveServer((live) => {
    server = live;
    client = live.client;
  });

  test('a stream has every lifecycle and text event in order, each of the official type', async () => {
    const stream = await client.responses.create({
      model,
      input: QUESTION,
      max_output_tokens: 24,
      stream: true,
      include: ['message.output_text.logprobs'],
      top_logprobs: 2,
    });
    const events = official(await readAll(stream));
    assertLifecycle(events, 'response.incomplete');
    const last = events.at(-1);
    assert.ok(last?.type === 'response.incomplete');
    assert.equal(last.response.incomplete_details?.reason, 'max_output_tokens');
    const [message] = last.response.output;
    assert.ok(message?.type === 'message' && message.content[0]?.type === 'output_text');
    assert.equal(message.content[0].text, textOf(events));
    assert.equal(message.content[0].logprobs?.length, 24);
    assertOfficialTypes([
      { type: 'OpenAI.Responses.ResponseStreamEvent[]', value: events },
      { type: 'OpenAI.Responses.Response', value: last.response },
    ]);
  });

  test('usage equals what the tokenizer counts, and a prompt seen before is reported as cached', async () => {
    const input = `Once upon a time ${'there was a fox and a hen and '.repeat(12)}then?`;
    const { json } = await server.post<{ count: number }>('/tokenize', {
      messages: [{ role: 'user', content: input }],
    });
    const ask = () =>
      client.responses.create({
        model,
        input,
        max_output_tokens: 9,
        // The drawn ids come back, so that they are counted by something else than the usage.
        ...{ return_token_ids: true, ignore_eos: true },
      });
    await server.post('/reset_prefix_cache', {});
    const first = await ask();
    const again = await ask();
    for (const { usage } of [first, again]) {
      assert.equal(usage?.input_tokens, json.count);
      assert.equal(usage?.output_tokens, 9);
      assert.equal(usage?.total_tokens, json.count + 9);
    }
    const { token_ids: ids } = first as unknown as { token_ids: number[] };
    assert.equal(ids.length, 9);
    assert.equal(server.model.tokenizer.decode(ids), first.output_text);
    assert.equal(first.output_text, again.output_text);
    assert.equal(first.usage?.input_tokens_details.cached_tokens, 0);
    const { blockSize } = server.model;
    // The last prompt token is always computed: its logits are needed.
    assert.equal(
      again.usage?.input_tokens_details.cached_tokens,
      Math.floor((json.count - 1) / blockSize) * blockSize,
    );
  });

  test('a response is the same object streamed, awaited and retrieved', async () => {
    const awaited = await client.responses.create({
      model,
      input: QUESTION,
      max_output_tokens: 12,
    });
    const retrieved = await client.responses.retrieve(awaited.id);
    assert.deepEqual(retrieved, awaited);
    const streamed = await readAll(
      await client.responses.create({
        model,
        input: QUESTION,
        max_output_tokens: 12,
        stream: true,
      }),
    );
    assert.equal(textOf(streamed), awaited.output_text);
    const items = await client.responses.inputItems.list(awaited.id);
    assert.deepEqual(
      items.data.map((item) => item.type === 'message' && item.content),
      [[{ type: 'input_text', text: QUESTION }]],
    );
  });

  test('a background stream that broke off is resumed after any event without a lost or doubled one', async () => {
    const started = await client.responses.create({
      model,
      input: QUESTION,
      max_output_tokens: 40,
      background: true,
      stream: true,
    });
    const seen: ResponseStreamEvent[] = [];
    let id = '';
    for await (const event of started) {
      seen.push(event);
      if (event.type === 'response.created') id = event.response.id;
      if (event.type === 'response.output_text.delta') break;
    }
    const after = seen.at(-1)?.sequence_number;
    assert.ok(after !== undefined && id !== '');
    const rest = await readAll(
      await client.responses.retrieve(id, { stream: true, starting_after: after }),
      after + 1,
    );
    const whole = await readAll(await client.responses.retrieve(id, { stream: true }));
    assert.deepEqual([...seen, ...rest], whole);
    const final = await client.responses.retrieve(id);
    assert.equal(textOf(whole), final.output_text);
  });

  test('a cancelled background response ends as cancelled and gives its cache back', async () => {
    const started = await client.responses.create({
      model,
      input: QUESTION,
      max_output_tokens: 900,
      background: true,
      ...{ ignore_eos: true },
    });
    assert.match(started.status ?? '', /^(queued|in_progress)$/);
    await client.responses.cancel(started.id);
    await server.idle();
    const ended = await client.responses.retrieve(started.id);
    assert.equal(ended.status, 'cancelled');
    assert.ok((ended.usage?.output_tokens ?? 900) < 900);
  });

  test('a deleted response is gone, for retrieval and as the previous one', async () => {
    const { id } = await client.responses.create({ model, input: 'Hi', max_output_tokens: 2 });
    await client.responses.delete(id);
    const isMissing = (error: unknown) =>
      error instanceof OpenAI.NotFoundError && error.code === 'response_not_found';
    await assert.rejects(client.responses.retrieve(id), isMissing);
    await assert.rejects(
      client.responses.create({ model, input: 'And?', previous_response_id: id }),
      isMissing,
    );
  });

  test('closing the connection of a stream frees the engine', async () => {
    const stream = await client.responses.create({
      model,
      input: QUESTION,
      max_output_tokens: 900,
      stream: true,
      ...{ ignore_eos: true },
    });
    for await (const event of stream) if (event.type === 'response.output_text.delta') break;
    stream.controller.abort();
    await server.idle();
    const line = server.log.findLast(({ msg }) => msg === 'request finished');
    assert.equal(line?.reason, 'abort');
  });

  test('closing the connection while waiting for a whole answer frees the engine', async () => {
    const abort = new AbortController();
    const asked = client.responses.create(
      { model, input: QUESTION, max_output_tokens: 900, ...{ ignore_eos: true } },
      { signal: abort.signal },
    );
    const refused = assert.rejects(asked, OpenAI.APIUserAbortError);
    while (server.stats().running === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    abort.abort();
    await refused;
    await server.idle();
  });

  test('fields that the engine does not do are refused by name', async () => {
    const asked: Record<string, unknown>[] = [
      { tools: [{ type: 'function', name: 'f', parameters: {}, strict: true }] },
      { tool_choice: 'required' },
      { text: { format: { type: 'json_object' } } },
      { reasoning: { effort: 'high' } },
      { conversation: 'conv_1' },
      { prompt: { id: 'pmpt_1' } },
      { moderation: { model: 'x' } },
      { guided_json: {} },
      { structured_outputs: { regex: 'a' } },
    ];
    for (const field of asked) {
      const [name] = Object.keys(field) as [string];
      await assert.rejects(
        client.responses.create({ model, input: 'Hi', ...field } as never),
        (error: unknown) => {
          assert.ok(error instanceof OpenAI.BadRequestError, name);
          assert.equal(error.code, 'unsupported_parameter', name);
          assert.match(error.param ?? '', new RegExp(`^${name}`));
          return true;
        },
      );
    }
    await assert.rejects(
      client.responses.create({ model, input: 'Hi', temprature: 1 } as never),
      /temperature/,
    );
    assert.equal(server.stats().running, 0);
  });
});
