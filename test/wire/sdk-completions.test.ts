/** Text completions, models and the tokenizer's routes, by the official npm client on a real model. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import OpenAI from 'openai';
import type { Completion, CompletionCreateParams } from 'openai/resources/completions';
import { assertOfficialTypes } from '../support/event-types.ts';
import {
  type LiveServer,
  MODEL_NAME as model,
  noLiveServer,
  useLiveServer,
} from '../support/live-server.ts';

const PROMPT = 'The capital of France is';

describe('text completions', { skip: noLiveServer, timeout: 120_000 }, () => {
  let server: LiveServer;
  let client: OpenAI;
  useLiveServer((live) => {
    server = live;
    client = live.client;
  });

  const ask = (extras: Record<string, unknown> = {}): Promise<Completion> =>
    client.completions.create({
      model,
      prompt: PROMPT,
      max_tokens: 12,
      ...extras,
    } as CompletionCreateParams & { stream?: false });

  test('a prompt as text and as token ids is the same prompt, streamed or not', async () => {
    const completion = await ask();
    const { json } = await server.post<{ tokens: number[]; count: number }>('/tokenize', {
      prompt: PROMPT,
    });
    const [choice] = completion.choices;
    assert.equal((await ask({ prompt: json.tokens })).choices[0]?.text, choice?.text);
    assert.equal(completion.usage?.prompt_tokens, json.count);
    assert.equal(completion.usage?.completion_tokens, 12);
    const stream = await client.completions.create({
      model,
      prompt: PROMPT,
      max_tokens: 12,
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks: Completion[] = [];
    for await (const chunk of stream) chunks.push(chunk);
    const text = chunks.map(({ choices }) => choices[0]?.text ?? '').join('');
    assert.equal(text, choice?.text);
    assert.equal(chunks.at(-1)?.usage?.total_tokens, json.count + 12);
    assertOfficialTypes([{ type: 'OpenAI.Completion', value: completion }]);
  });

  test('echo with log-probabilities scores the prompt, and 0 new tokens score it alone', async () => {
    const { choices } = await ask({ echo: true, logprobs: 2 });
    const [choice] = choices;
    assert.ok(choice !== undefined);
    assert.ok(choice.text.startsWith(PROMPT));
    const { tokens, token_logprobs, top_logprobs, text_offset } = choice.logprobs ?? {};
    const { json } = await server.post<{ count: number }>('/tokenize', { prompt: PROMPT });
    assert.equal(tokens?.length, json.count + 12);
    assert.equal(tokens.join(''), choice.text);
    assert.equal(token_logprobs?.[0], null);
    assert.ok(token_logprobs.slice(1).every((logprob) => (logprob ?? 1) <= 0));
    assert.equal(top_logprobs?.length, tokens.length);
    text_offset?.forEach((offset, index) => {
      assert.ok(choice.text.startsWith(tokens[index] as string, offset));
    });
    const scored = await ask({ echo: true, logprobs: 2, max_tokens: 0 });
    assert.equal(scored.choices[0]?.text, PROMPT);
    assert.equal(scored.usage?.completion_tokens, 0);
    assert.deepEqual(
      scored.choices[0]?.logprobs?.token_logprobs,
      token_logprobs.slice(0, json.count),
    );
  });

  test('echo streamed with log-probabilities carries those of the prompt as well', async () => {
    const stream = await client.completions.create({
      model,
      prompt: PROMPT,
      max_tokens: 4,
      echo: true,
      logprobs: 1,
      stream: true,
    });
    const tokens: string[] = [];
    const logprobs: (number | null)[] = [];
    let text = '';
    for await (const { choices } of stream) {
      text += choices[0]?.text ?? '';
      tokens.push(...(choices[0]?.logprobs?.tokens ?? []));
      logprobs.push(...(choices[0]?.logprobs?.token_logprobs ?? []));
    }
    const whole = (await ask({ max_tokens: 4, echo: true, logprobs: 1 })).choices[0];
    assert.equal(text, whole?.text);
    assert.deepEqual(tokens, whole?.logprobs?.tokens);
    assert.deepEqual(logprobs, whole?.logprobs?.token_logprobs);
  });

  test('several prompts times n keep their order and bill each prompt once', async () => {
    const prompts = [PROMPT, 'One, two, three,', 'def main():'];
    const many = await ask({ prompt: prompts, n: 2, temperature: 1, seed: 11 });
    assert.deepEqual(
      many.choices.map(({ index }) => index),
      [0, 1, 2, 3, 4, 5],
    );
    let promptTokens = 0;
    for (const [at, prompt] of prompts.entries()) {
      const alone = await ask({ prompt, n: 2, temperature: 1, seed: 11 });
      promptTokens += alone.usage?.prompt_tokens ?? 0;
      assert.deepEqual(
        many.choices.slice(2 * at, 2 * at + 2).map(({ text }) => text),
        alone.choices.map(({ text }) => text),
      );
    }
    assert.equal(many.usage?.prompt_tokens, promptTokens);
  });

  test('the same prompt and seed give the same text by completions, chat and batches', async () => {
    const messages = [{ role: 'user' as const, content: 'Tell me a fact.' }];
    const { json } = await server.post<{ tokens: number[] }>('/tokenize', { messages });
    const draw = { temperature: 1.2, seed: 31, max_tokens: 30 };
    const chat = await client.chat.completions.create({ model, messages, ...draw });
    const completion = await ask({ prompt: json.tokens, ...draw });
    const batch = await ask({ prompt: ['Noise.', 'More noise of another length.'], ...draw });
    const together = await Promise.all([
      ask({ prompt: json.tokens, ...draw }),
      ask({ prompt: 'Noise beside it', max_tokens: 40 }),
    ]);
    assert.equal(batch.choices.length, 2);
    const expected = chat.choices[0]?.message.content;
    assert.equal(completion.choices[0]?.text, expected);
    assert.equal(together[0].choices[0]?.text, expected);
  });

  test('what is not done or wrong is refused by the name of its field', async () => {
    const refused: Record<string, unknown> = {
      best_of: 4,
      suffix: 'end',
      max_tokens: 0,
      prompt: [],
      logprobs: 21,
      n: 129,
    };
    for (const [name, value] of Object.entries(refused)) {
      await assert.rejects(ask({ [name]: value }), (error: unknown) => {
        assert.ok(error instanceof OpenAI.BadRequestError, name);
        assert.equal(error.param, name);
        return true;
      });
    }
    await assert.rejects(ask({ stream: true, prompt_logprobs: 1 }), /prompt_logprobs/);
    await assert.rejects(ask({ prompt: 'word '.repeat(5000) }), /context/);
    await assert.rejects(ask({ max_tokens: 5000 }), /context/);
  });

  test('models are listed and retrieved; another one is not found', async () => {
    const { data } = await client.models.list();
    assert.deepEqual(
      data.map(({ id }) => id),
      [model],
    );
    assert.equal((await client.models.retrieve(model)).id, model);
    await assert.rejects(client.models.retrieve('gpt-5'), OpenAI.NotFoundError);
    await assert.rejects(ask({ model: 'gpt-5' }), OpenAI.NotFoundError);
  });

  test('tokenize and detokenize are inverse and tell the limit', async () => {
    const prompt = 'naïve 🦊 漢字\n\tcode()';
    const { json } = await server.post<{ tokens: number[]; count: number; max_model_len: number }>(
      '/tokenize',
      { prompt },
    );
    assert.equal(json.count, json.tokens.length);
    assert.equal(json.max_model_len, 1024);
    const back = await server.post<{ prompt: string }>('/detokenize', { tokens: json.tokens });
    assert.equal(back.json.prompt, prompt);
  });
});
