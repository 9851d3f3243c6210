/** Chat completions by the official npm client on a real model: shapes, usage, and that each sampling field acts. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import OpenAI from 'openai';
import type { ChatCompletionChunk, ChatCompletionCreateParams } from 'openai/resources/chat';
import { assertOfficialTypes } from '../support/event-types.ts';
import {
  type LiveServer,
  MODEL_NAME as model,
  noLiveServer,
  useLiveServer,
} from '../support/live-server.ts';

const QUESTION = 'Name three colours of the rainbow.';
const messages = [{ role: 'user' as const, content: QUESTION }];

type Extras = Record<string, unknown>;
interface WithIds {
  readonly token_ids: number[];
  readonly stop_reason: string | number | null;
}

describe('chat completions', { skip: noLiveServer, timeout: 120_000 }, () => {
  let server: LiveServer;
  let client: OpenAI;
  useLiveServer((live) => {
    server = live;
    client = live.client;
  });

  async function ask(extras: Extras = {}) {
    const completion = await client.chat.completions.create({
      model,
      messages,
      max_completion_tokens: 24,
      ...{ return_token_ids: true },
      ...extras,
    } as ChatCompletionCreateParams & { stream?: false });
    const [choice] = completion.choices;
    assert.ok(choice !== undefined);
    const { token_ids: ids, stop_reason: stopReason } = choice as unknown as WithIds;
    return { completion, choice, ids, stopReason, text: choice.message.content ?? '' };
  }

  async function streamed(extras: Extras = {}): Promise<ChatCompletionChunk[]> {
    const stream = await client.chat.completions.create({
      model,
      messages,
      max_completion_tokens: 24,
      ...extras,
      stream: true,
    });
    const chunks: ChatCompletionChunk[] = [];
    for await (const chunk of stream) chunks.push(chunk);
    return chunks;
  }

  const textOf = (chunks: readonly ChatCompletionChunk[], index = 0): string =>
    chunks
      .flatMap(({ choices }) => choices)
      .map((choice) => (choice.index === index ? (choice.delta.content ?? '') : ''))
      .join('');

  test('an answer has the official type and exact usage, and its stream says the same', async () => {
    const { completion, choice, ids, text } = await ask({ logprobs: true, top_logprobs: 3 });
    const { json } = await server.post<{ count: number }>('/tokenize', { messages });
    assert.equal(completion.usage?.prompt_tokens, json.count);
    assert.equal(completion.usage?.completion_tokens, 24);
    assert.equal(completion.usage?.total_tokens, json.count + 24);
    assert.equal(choice.finish_reason, 'length');
    assert.equal(server.model.tokenizer.decode(ids), text);
    const chunks = await streamed({
      logprobs: true,
      top_logprobs: 3,
      stream_options: { include_usage: true },
    });
    assert.equal(textOf(chunks), text);
    const last = chunks.at(-1);
    assert.deepEqual(last?.choices, []);
    assert.deepEqual(
      { ...last?.usage, prompt_tokens_details: null },
      { ...completion.usage, prompt_tokens_details: null },
    );
    assert.equal(chunks.filter(({ usage }) => usage !== null).length, 1);
    assert.equal(new Set(chunks.map(({ id }) => id)).size, 1);
    const items = chunks.flatMap(({ choices }) => choices[0]?.logprobs?.content ?? []);
    assert.deepEqual(items, choice.logprobs?.content);
    assertOfficialTypes([
      { type: 'OpenAI.Chat.ChatCompletion', value: completion },
      { type: 'OpenAI.Chat.ChatCompletionChunk[]', value: chunks },
      { type: 'OpenAI.Model[]', value: (await client.models.list()).data },
    ]);
  });

  test('log-probabilities name each drawn token, its bytes, and the best ones in order', async () => {
    const { choice, ids } = await ask({ logprobs: true, top_logprobs: 5 });
    const items = choice.logprobs?.content ?? [];
    assert.equal(items.length, ids.length);
    for (const [index, item] of items.entries()) {
      assert.deepEqual(item.bytes, [...server.model.tokenizer.tokenBytes(ids[index] ?? -1)]);
      assert.equal(item.top_logprobs.length, 5);
      const best = item.top_logprobs.map(({ logprob }) => logprob);
      assert.deepEqual(
        best,
        best.toSorted((a, b) => b - a),
      );
      assert.ok(item.logprob <= 0 && best.every((logprob) => logprob <= 0));
      // Greedy: the drawn token is the best one.
      assert.equal(item.token, item.top_logprobs[0]?.token);
      assert.equal(item.logprob, best[0]);
      const mass = best.reduce((sum, logprob) => sum + Math.exp(logprob), 0);
      assert.ok(mass <= 1 + 1e-6, `mass ${mass}`);
    }
  });

  test('n answers are drawn apart, reproduced by the seed, streamed side by side, and bill the prompt once', async () => {
    const request = { n: 3, temperature: 1.3, seed: 7 };
    const { completion } = await ask(request);
    const texts = completion.choices.map(({ message }) => message.content);
    assert.equal(new Set(texts).size, 3);
    const { json } = await server.post<{ count: number }>('/tokenize', { messages });
    assert.equal(completion.usage?.prompt_tokens, json.count);
    assert.equal(
      completion.usage?.completion_tokens,
      completion.choices.reduce(
        (sum, choice) => sum + (choice as unknown as WithIds).token_ids.length,
        0,
      ),
    );
    const chunks = await streamed(request);
    assert.deepEqual(
      [0, 1, 2].map((index) => textOf(chunks, index)),
      texts,
    );
    const [alone] = (await ask({ ...request, n: 1 })).completion.choices;
    assert.equal(alone?.message.content, texts[0]);
    assert.equal(new Set([...texts, (await ask({ ...request, n: 1, seed: 99 })).text]).size, 4);
  });

  test('a stop string ends the text before it, whatever it is made of, and no part of it leaks into the stream', async () => {
    const { text: whole } = await ask({ max_completion_tokens: 40 });
    // Every substring of the answer: begins and ends within tokens, crosses them, or is one.
    const cases: string[] = [];
    for (let size = 1; size <= 15; size += 2) {
      for (let at = 3; at + size < whole.length; at += 19) cases.push(whole.slice(at, at + size));
    }
    for (const stop of cases) {
      const expected = whole.slice(0, whole.indexOf(stop));
      const chunks = await streamed({
        max_completion_tokens: 40,
        stop,
        stream_options: { include_usage: true },
      });
      assert.equal(textOf(chunks), expected, JSON.stringify(stop));
      const end = chunks.flatMap(({ choices }) => choices).at(-1);
      assert.equal(end?.finish_reason, 'stop');
      assert.equal((end as unknown as WithIds).stop_reason, stop);
    }
    const included = await ask({
      max_completion_tokens: 40,
      stop: [cases[5]],
      include_stop_str_in_output: true,
    });
    const at = whole.indexOf(cases[5] as string);
    assert.equal(included.text, whole.slice(0, at + (cases[5] as string).length));
    // The tokens up to the one that completed the stop string were made, and no other is billed.
    assert.equal(included.completion.usage?.completion_tokens, included.ids.length);
    await server.idle();
  });

  test('of several stop strings the first to be complete wins; one that almost comes is given out in full', async () => {
    const { text: whole } = await ask({ max_completion_tokens: 40 });
    const early = whole.slice(20, 24);
    const late = whole.slice(30, 42);
    const { text, stopReason } = await ask({ max_completion_tokens: 40, stop: [late, early] });
    assert.equal(text, whole.slice(0, whole.indexOf(early)));
    assert.equal(stopReason, early);
    const almost = `${whole.slice(10, 30)}\u0000`;
    assert.equal((await ask({ max_completion_tokens: 40, stop: almost })).text, whole);
    const beyond = `${whole.slice(-6)}\u0000`;
    assert.equal(textOf(await streamed({ max_completion_tokens: 40, stop: beyond })), whole);
  });

  test('stop_token_ids, ignore_eos and min_tokens decide where an answer ends', async () => {
    const { ids } = await ask();
    const id = ids[5] as number;
    const stopped = await ask({ stop_token_ids: [id] });
    assert.equal(stopped.choice.finish_reason, 'stop');
    assert.equal(stopped.stopReason, id);
    assert.deepEqual(stopped.ids, ids.slice(0, ids.indexOf(id) + 1));

    const short = { messages: [{ role: 'user', content: 'Say hi.' }], max_completion_tokens: 80 };
    const natural = await ask(short);
    assert.equal(natural.choice.finish_reason, 'stop');
    assert.equal(natural.stopReason, null);
    const length = natural.ids.length;
    assert.ok(length < 80);
    const ignoring = await ask({ ...short, ignore_eos: true });
    assert.equal(ignoring.ids.length, 80);
    assert.equal(ignoring.choice.finish_reason, 'length');
    const forced = await ask({ ...short, min_tokens: length + 3 });
    assert.ok(forced.ids.length >= length + 3, `${forced.ids.length} of ${length + 3}`);
    assert.deepEqual(forced.ids.slice(0, length - 1), natural.ids.slice(0, length - 1));
  });

  test('logit_bias, allowed_token_ids and bad_words ban and force tokens', async () => {
    const { ids, text } = await ask();
    const [first] = ids as [number];
    const banned = await ask({ logit_bias: { [first]: -100 } });
    assert.ok(!banned.ids.includes(first));
    const forced = await ask({ logit_bias: { 1234: 100 }, ignore_eos: true });
    assert.deepEqual(new Set(forced.ids), new Set([1234]));
    const allowed = new Set([1000, 1001, 1002]);
    const only = await ask({ allowed_token_ids: [...allowed], temperature: 2 });
    assert.ok(only.ids.every((id) => allowed.has(id)));
    const [, word] = text.split(' ') as [string, string];
    const without = await ask({ bad_words: [word] });
    assert.ok(!without.text.split(' ').includes(word), without.text);
  });

  test('temperature, top_k, top_p, min_p and seed shape the draw', async () => {
    const greedy = await ask({ temperature: 0 });
    const hot = { temperature: 1.9, seed: 5 };
    assert.notEqual((await ask(hot)).text, greedy.text);
    for (const narrow of [{ top_k: 1 }, { top_p: 1e-6 }, { min_p: 1 }]) {
      assert.equal((await ask({ ...hot, ...narrow })).text, greedy.text, JSON.stringify(narrow));
    }
    assert.notEqual((await ask({ ...hot, top_k: 50 })).text, (await ask(hot)).text);
    assert.equal((await ask(hot)).text, (await ask(hot)).text);
    assert.notEqual((await ask({ temperature: 1.9 })).text, (await ask({ temperature: 1.9 })).text);
  });

  test('each penalty lessens repetition', async () => {
    // A prompt of one repeated word leads to margins that a penalty need not close.
    const loop = {
      messages: [{ role: 'user', content: 'Count from one to one hundred in words.' }],
      max_completion_tokens: 80,
      temperature: 0,
      ignore_eos: true,
    };
    const distinct = (ids: readonly number[]): number => new Set(ids).size;
    const plain = distinct((await ask(loop)).ids);
    for (const penalty of [
      { presence_penalty: 2 },
      { frequency_penalty: 2 },
      { repetition_penalty: 1.8 },
    ]) {
      const penalised = distinct((await ask({ ...loop, ...penalty })).ids);
      assert.ok(penalised > plain, `${JSON.stringify(penalty)}: ${penalised} after ${plain}`);
    }
  });

  test('prompt fields act: continuing an assistant message, echo, cutting from the left, prompt log-probabilities', async () => {
    const opened = [...messages, { role: 'assistant', content: 'The three colours are red,' }];
    const continued = await ask({
      messages: opened,
      add_generation_prompt: false,
      continue_final_message: true,
      echo: true,
      prompt_logprobs: 0,
    });
    assert.ok(continued.text.startsWith('The three colours are red,'));
    const { json } = await server.post<{ count: number; tokens: number[] }>('/tokenize', {
      messages: opened,
      add_generation_prompt: false,
      continue_final_message: true,
    });
    assert.equal(continued.completion.usage?.prompt_tokens, json.count);
    const { prompt_logprobs: prompt } = continued.completion as unknown as {
      prompt_logprobs: (Record<string, { logprob: number }> | null)[];
    };
    assert.equal(prompt.length, json.count);
    assert.equal(prompt[0], null);
    json.tokens.slice(1).forEach((id, index) => {
      assert.ok((prompt[index + 1]?.[id]?.logprob ?? 1) <= 0);
    });
    const cut = await ask({ truncate_prompt_tokens: 10 });
    assert.equal(cut.completion.usage?.prompt_tokens, 10);
  });

  test('special tokens are hidden unless asked for, and cache_salt parts the caches of tenants', async () => {
    const short = {
      messages: [{ role: 'user', content: 'Say hi.' }],
      max_completion_tokens: 80,
      include_stop_str_in_output: true,
    };
    const shown = await ask({ ...short, skip_special_tokens: false });
    const hidden = await ask({ ...short, skip_special_tokens: true });
    assert.equal(shown.text, `${hidden.text}<|im_end|>`);

    const long = { messages: [{ role: 'user', content: 'the cat sat '.repeat(60) }] };
    const cached = async (extras: Extras) =>
      (await ask({ ...long, ...extras })).completion.usage?.prompt_tokens_details?.cached_tokens;
    assert.equal(await cached({ cache_salt: 'a' }), 0);
    assert.ok(((await cached({ cache_salt: 'a' })) ?? 0) > 0);
    assert.equal(await cached({ cache_salt: 'b' }), 0);
  });

  test('running usage comes with every chunk when asked for', async () => {
    const chunks = await streamed({
      stream_options: { include_usage: true, continuous_usage_stats: true },
    });
    const counts = chunks.map(({ usage }) => usage?.completion_tokens);
    assert.deepEqual(
      counts,
      counts.toSorted((a, b) => (a ?? 0) - (b ?? 0)),
    );
    assert.equal(counts[0], 0);
    assert.equal(counts.at(-1), 24);
    // How much was cached is known at the end: until then nothing is said, rather than 0.
    const cached = chunks.map(({ usage }) => usage?.prompt_tokens_details?.cached_tokens);
    assert.equal(typeof cached.at(-1), 'number');
    assert.deepEqual(new Set(cached.slice(0, -1)), new Set([undefined]));
  });

  test('closing a stream frees all of its n generations', async () => {
    const stream = await client.chat.completions.create({
      model,
      messages,
      n: 3,
      max_completion_tokens: 900,
      stream: true,
      ...{ ignore_eos: true },
    });
    for await (const chunk of stream) if (chunk.choices[0]?.delta.content) break;
    stream.controller.abort();
    await server.idle();
  });

  test('the log-probabilities of a prompt do not fit a stream and are refused there', async () => {
    await assert.rejects(streamed({ prompt_logprobs: 1 }), (error: unknown) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.equal(error.param, 'prompt_logprobs');
      return true;
    });
  });

  test('of those that wait, the lower priority number runs first', async () => {
    const asked = (priority: number) =>
      ask({ priority, ignore_eos: true, max_completion_tokens: 150 });
    const before = server.log.length;
    // Four fill the batch; of the two that wait the later one is more urgent.
    const all = [0, 0, 0, 0, 5, -5].map(asked);
    const done = await Promise.all(all);
    const order = server.log
      .slice(before)
      .map(({ generationId }) => String(generationId).replace(/-\d+$/, ''));
    const at = (index: number): number => order.indexOf(done[index]?.completion.id ?? '');
    assert.ok(at(5) >= 0 && at(5) < at(4), JSON.stringify(order));
  });

  test('what the engine does not do is refused by the name of its field, and what is wrong too', async () => {
    const unsupported: Record<string, unknown> = {
      tools: [{ type: 'function', function: { name: 'f', parameters: {} } }],
      tool_choice: 'required',
      functions: [{ name: 'f' }],
      response_format: { type: 'json_schema', json_schema: { name: 'x', schema: {} } },
      audio: { voice: 'alloy', format: 'mp3' },
      modalities: ['text', 'audio'],
      prediction: { type: 'content', content: 'x' },
      reasoning_effort: 'high',
      web_search_options: {},
      guided_regex: 'a+',
      use_beam_search: true,
      chat_template: '{{ x }}',
    };
    for (const [name, value] of Object.entries(unsupported)) {
      await assert.rejects(ask({ [name]: value }), (error: unknown) => {
        assert.ok(error instanceof OpenAI.BadRequestError, name);
        assert.equal(error.code, 'unsupported_parameter', name);
        assert.equal(error.param, name);
        return true;
      });
    }
    const wrong: Record<string, unknown> = {
      temperature: -1,
      top_p: 0,
      top_k: 1.5,
      min_p: 2,
      n: 0,
      presence_penalty: 3,
      repetition_penalty: 0,
      seed: 'x',
      stop: [''],
      logit_bias: { a: 1 },
      max_completion_tokens: 0,
      min_tokens: 99,
      top_logprobs: 21,
      stop_token_ids: [10_000_000],
      allowed_token_ids: [],
      truncate_prompt_tokens: 0,
      messages: [],
    };
    for (const [name, value] of Object.entries(wrong)) {
      await assert.rejects(ask({ [name]: value }), (error: unknown) => {
        assert.ok(error instanceof OpenAI.BadRequestError, name);
        assert.match(error.param ?? '', new RegExp(`^${name}`));
        return true;
      });
    }
    await server.idle();
  });
});
