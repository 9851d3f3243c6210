import assert from 'node:assert/strict';
import { on, once } from 'node:events';
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import OpenAI from 'openai';
import { WebSocket } from 'ws';
import { createEngine } from '#engine/scheduler/engine.ts';
import type { BatchMode } from '#engine/scheduler/modes/table.ts';
import type { RunningServer } from '#engine/server/app.ts';
import type { LoadedModel } from '#engine/start.ts';
import { createChatTemplate } from '#engine/tokenizer/chat-template.ts';
import { NAMED_CHAT_TEMPLATES } from '#engine/tokenizer/named-chat-templates.ts';
import { FIXTURES, PRESETS, type Preset } from '../support/golden.ts';
import { type GoldenImageCase, readGoldenVision } from '../support/golden-images.ts';
import { dataUrl, fileOf, loadTiny, serveTiny } from '../support/vision-server.ts';

/** The case as a client sends it. */
function messagesOf({ messages, images }: GoldenImageCase) {
  let next = 0;
  return messages.map(({ role, content }) => {
    const pieces = content.split(/(<image>)/).filter((piece) => piece !== '');
    const parts = pieces.map((piece) =>
      piece === '<image>'
        ? { type: 'image_url', image_url: { url: dataUrl(fileOf(images[next++]!)) } }
        : { type: 'text', text: piece },
    );
    return { role, content: parts.length === 1 && pieces[0] !== '<image>' ? content : parts };
  });
}

const start = (model: LoadedModel, mode: BatchMode) =>
  serveTiny(model, model.startEngine({ mode, maxSequences: 8, workers: 2 }));

interface SocketEvent {
  readonly type: string;
  readonly delta?: string;
  readonly code?: string;
  readonly error?: { readonly code: string };
}

interface Answer {
  readonly choices: readonly [{ readonly token_ids: readonly number[] }];
  readonly prompt_token_ids: readonly number[];
  readonly usage: {
    readonly prompt_tokens: number;
    readonly prompt_tokens_details?: { readonly cached_tokens: number };
  };
}

async function ask(url: string, golden: GoldenImageCase, more: object = {}): Promise<Answer> {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      messages: messagesOf(golden),
      temperature: 0,
      max_tokens: Math.max(1, golden.safeSteps),
      ignore_eos: true,
      return_token_ids: true,
      ...more,
    }),
  });
  const body = await response.json();
  assert.equal(response.status, 200, JSON.stringify(body));
  return body as Answer;
}

function assertGolden(golden: GoldenImageCase, answer: Answer): void {
  assert.deepEqual(answer.prompt_token_ids, golden.promptIds, `${golden.id}: prompt`);
  const { token_ids } = answer.choices[0];
  assert.deepEqual(
    token_ids.slice(0, golden.safeSteps),
    golden.greedyIds.slice(0, golden.safeSteps),
    golden.id,
  );
}

/** A picture that is a part of its own stands on a line of its own. */
const hasOwnLines = ({ messages }: GoldenImageCase): boolean =>
  messages.every(({ content }) => !/[^\n]<image>|<image>[^\n]/.test(content));

const casesOf = (
  preset: Preset,
  template: GoldenImageCase['template'] = 'qwen2',
): GoldenImageCase[] =>
  readGoldenVision(preset).imageCases.filter(
    (one) => one.template === template && hasOwnLines(one),
  );

for (const preset of PRESETS) {
  describe(`pictures through the wire, preset ${preset}`, { timeout: 300_000 }, () => {
    let model: LoadedModel;
    before(async () => {
      model = await loadTiny(preset);
    });
    after(() => model?.close());

    for (const mode of ['Continuous', 'Static', 'Threads', 'Sequential'] as const) {
      test(`${mode}: prompt ids and greedy tokens of every case are golden, all asked at once`, async () => {
        const { server, url } = await start(model, mode);
        try {
          const cases = casesOf(preset);
          assert.ok(cases.length >= 15);
          const answers = await Promise.all(cases.map((one) => ask(url, one)));
          for (const [i, one] of cases.entries()) assertGolden(one, answers[i]!);
        } finally {
          await server.close(1000);
        }
      });
    }

    test('under the template chatml, prompt ids and greedy tokens are those of chat()', async () => {
      const { server, url } = await serveTiny({
        ...model,
        chatTemplate: createChatTemplate({
          ...model.checkpoint,
          chatTemplate: NAMED_CHAT_TEMPLATES.chatml,
        }),
      });
      try {
        const cases = casesOf(preset, 'chatml_hf');
        assert.ok(cases.length >= 4);
        const answers = await Promise.all(cases.map((one) => ask(url, one)));
        for (const [i, one] of cases.entries()) assertGolden(one, answers[i]!);
      } finally {
        await server.close(1000);
      }
    });
  });
}

test('a checkpoint whose tokenizer has no chat template is asked by the one that its config names', async (context) => {
  const folder = mkdtempSync(join(tmpdir(), 'nvlm-no-template-'));
  context.after(() => rmSync(folder, { recursive: true }));
  const original = join(FIXTURES, 'nvlm-tiny/a');
  for (const name of readdirSync(original)) symlinkSync(join(original, name), join(folder, name));
  const file = 'tokenizer_config.json';
  rmSync(join(folder, file));
  const { chat_template: _, ...rest } = JSON.parse(readFileSync(join(original, file), 'utf8'));
  writeFileSync(join(folder, file), JSON.stringify(rest));
  const model = await loadTiny(folder);
  context.after(() => model.close());
  assert.equal(
    model.chatTemplate.render([{ role: 'user', content: 'Hi' }], { addGenerationPrompt: true }),
    '<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\nHi<|im_end|><|im_start|>assistant\n',
  );
});

describe('pictures and the engine around them', { timeout: 300_000 }, () => {
  let model: LoadedModel;
  let server: RunningServer;
  let url: string;
  const cases = new Map(casesOf('b').map((one) => [one.id, one]));
  before(async () => {
    // Steps of 100 tokens cut every picture of 256 and more.
    model = await loadTiny('b', { maxBatchedTokens: 100 });
    ({ server, url } = await start(model, 'Continuous'));
  });
  after(async () => {
    await server?.close(1000);
    await model?.close();
  });

  const chat = (content: readonly object[]): Promise<Response> =>
    fetch(`${url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ messages: [{ role: 'user', content }] }),
    });

  test('chunks that end inside a picture change nothing', async () => {
    for (const id of ['image-i633', 'image-i1920x1080', 'image-two-large']) {
      assertGolden(cases.get(id)!, await ask(url, cases.get(id)!));
    }
  });

  test('the same picture again is found in the prefix cache, another under the same question is not', async () => {
    const first = cases.get('image-i634')!;
    await ask(url, first);
    const again = await ask(url, first);
    assertGolden(first, again);
    const cached = again.usage.prompt_tokens_details?.cached_tokens ?? 0;
    assert.ok(cached > 256, `${cached} cached tokens`);
    const message = first.messages[0]!;
    const other: GoldenImageCase = { ...first, images: ['i300x900'], messages: [message] };
    const sameSize: GoldenImageCase = { ...first, images: ['i448'], messages: [message] };
    for (const one of [other, sameSize]) {
      const answer = await ask(url, one, { max_tokens: 4 });
      const hits = answer.usage.prompt_tokens_details?.cached_tokens ?? 0;
      assert.ok(hits < 64, `${one.images[0]}: ${hits} cached tokens`);
    }
  });

  test('a request that is preempted in the middle of its picture gives the same tokens', async () => {
    const small = ['image-i633', 'image-i448', 'image-i1x1'].map((id) => cases.get(id)!);
    const large = cases.get('image-i640x480')!;
    const blockSize = 32;
    const blocksOf = (tokens: number): number => Math.ceil(tokens / blockSize);
    const needed = [...small, large].reduce((sum, one) => sum + blocksOf(one.promptIds.length), 0);
    const runner = model.loaded.createRunner({ threads: 2 });
    const engine = createEngine({
      forwards: [runner],
      mode: 'Continuous',
      maxSequences: 8,
      // Few tokens a step: the small ones grow by two blocks each while the large one is still being read.
      maxBatchedTokens: 24,
      maxModelLength: 2048,
      blockSize,
      // One for padding, and one for each of the small ones.
      blockCount: needed + 1 + small.length,
      vocabularyRows: 1280,
      maxQueuedRequests: 16,
      queueTimeoutMs: 0,
      prefixCaching: false,
      staticWindowMs: 0,
      slowReaderTimeoutMs: 30_000,
      maxUnreadTokens: 4096,
    });
    const { server: other, url: otherUrl } = await serveTiny(model, engine);
    try {
      // Their embeddings are kept then, so that all come in one burst.
      for (const one of [...small, large]) await ask(otherUrl, one, { max_tokens: 1 });
      const answers = await Promise.all([
        ...small.map((one) => ask(otherUrl, one, { max_tokens: 90 })),
        ask(otherUrl, large),
      ]);
      assert.ok(engine.stats().preemptions > 0, 'nothing was preempted');
      assertGolden(large, answers.at(-1)!);
      for (const [i, one] of small.entries()) assertGolden(one, answers[i]!);
    } finally {
      await other.close(1000);
      await runner.close();
      // Both engines use one cache, and what the first remembers of it is gone.
      await fetch(`${url}/reset_prefix_cache`, { method: 'POST' });
    }
  });

  test('usage counts the tokens of the picture, low detail is one tile', async () => {
    const golden = cases.get('image-i640x480')!;
    const high = await ask(url, golden, { max_tokens: 1 });
    assert.equal(high.usage.prompt_tokens, golden.promptIds.length);
    const messages = [
      {
        role: 'user',
        content: [
          { type: 'image_url', image_url: { url: dataUrl(fileOf('i640x480')), detail: 'low' } },
          { type: 'text', text: 'What is shown in this image?' },
        ],
      },
    ];
    const low = await ask(url, golden, { max_tokens: 1, messages });
    assert.ok(low.usage.prompt_tokens < 300, String(low.usage.prompt_tokens));
  });

  test('the official SDK sends pictures over Chat Completions and Responses, and continues with previous_response_id', async () => {
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'none' });
    const image = dataUrl(fileOf('i633'));
    const chat = await client.chat.completions.create({
      model: 'tiny',
      max_tokens: 8,
      messages: [
        {
          role: 'user',
          content: [
            { type: 'image_url', image_url: { url: image } },
            { type: 'text', text: 'What is shown in this image?' },
          ],
        },
      ],
    });
    const first = await client.responses.create({
      model: 'tiny',
      max_output_tokens: 8,
      input: [
        {
          role: 'user',
          content: [
            { type: 'input_image', image_url: image, detail: 'auto' },
            { type: 'input_text', text: 'What is shown in this image?' },
          ],
        },
      ],
    });
    assert.equal(first.output_text, chat.choices[0]!.message.content);
    assert.equal(first.usage?.input_tokens, chat.usage?.prompt_tokens);
    const second = await client.responses.create({
      model: 'tiny',
      max_output_tokens: 8,
      previous_response_id: first.id,
      input: 'And what else?',
    });
    assert.ok((second.usage?.input_tokens ?? 0) > (first.usage?.input_tokens ?? 0));
    assert.ok((second.usage?.input_tokens_details.cached_tokens ?? 0) >= 256);
    const items = await client.responses.inputItems.list(first.id);
    assert.ok(JSON.stringify(items.data).includes('input_image'));
  });

  /** Sends frames over a socket; the events until `count` terminal or error ones. */
  async function overSocket(
    frames: readonly (object | Buffer)[],
    count = 1,
  ): Promise<SocketEvent[]> {
    const socket = new WebSocket(`${url.replace('http', 'ws')}/v1/responses`);
    const events: SocketEvent[] = [];
    await once(socket, 'open');
    for (const frame of frames) socket.send(Buffer.isBuffer(frame) ? frame : JSON.stringify(frame));
    for await (const [data] of on(socket, 'message')) {
      events.push(JSON.parse(String(data)));
      const ends = events.filter(({ type }) =>
        /^error$|^response\.(completed|incomplete|failed)$/.test(type),
      );
      if (ends.length === count) break;
    }
    socket.close();
    return events;
  }

  const question = (picture: string, more: object = {}) => ({
    type: 'response.create',
    max_output_tokens: 8,
    input: [
      {
        role: 'user',
        content: [
          { type: 'input_image', image_url: picture },
          { type: 'input_text', text: 'What is shown in this image?' },
        ],
      },
    ],
    ...more,
  });

  test('a picture in a binary frame is read as the same one in a data URL', async () => {
    const textOf = (events: SocketEvent[]) =>
      events
        .filter(({ type }) => type === 'response.output_text.delta')
        .map(({ delta }) => delta)
        .join('');
    const inText = textOf(await overSocket([question(dataUrl(fileOf('i633')))]));
    const inBinary = textOf(
      await overSocket([question('frame:0', { binary_frames: 1 }), fileOf('i633')]),
    );
    assert.ok(inText.length > 0);
    assert.equal(inBinary, inText);
  });

  test('binary frames that nobody announced, that do not come, and names of none are refused, and the socket stays', async () => {
    const whole = question(dataUrl(fileOf('i633')));
    const codes = (events: SocketEvent[]) =>
      events.filter(({ type }) => type === 'error').map((event) => event.code ?? event.error?.code);
    assert.deepEqual(codes(await overSocket([fileOf('i633'), whole], 2)), ['invalid_frame']);
    const interrupted = [question('frame:0', { binary_frames: 2 }), fileOf('i633'), whole];
    assert.deepEqual(codes(await overSocket(interrupted, 2)), ['invalid_frame']);
    const nameless = [question('frame:1', { binary_frames: 1 }), fileOf('i633'), whole];
    assert.deepEqual(codes(await overSocket(nameless, 2)), ['invalid_request']);
    const tooMany = [question('frame:0', { binary_frames: 99 }), whole];
    assert.deepEqual(codes(await overSocket(tooMany, 2)), ['invalid_request']);
  });

  const png = fileOf('i633');
  for (const [what, picture, told] of [
    ['no base64', 'data:image/png;base64,@@@@', /not base64/],
    ['an empty file', 'data:image/png;base64,', /empty/],
    ['half a file', dataUrl(png.subarray(0, png.length / 2)), /decoded/],
    ['a text file', dataUrl(Buffer.from('hello, world')), /decoded|format/],
    [
      'an SVG',
      dataUrl(Buffer.from('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')),
      /format/,
    ],
    ['a web address', 'https://example.com/a.png', /fetches nothing/],
    ['the address of a file', 'file:///etc/passwd', /expected data:/],
  ] as const) {
    test(`${what} is a 400 that names the picture and the reason`, async () => {
      const response = await chat([
        { type: 'image_url', image_url: { url: dataUrl(png) } },
        { type: 'image_url', image_url: { url: picture } },
      ]);
      const { error } = (await response.json()) as { error: { message: string; param: string } };
      assert.equal(response.status, 400);
      assert.match(error.message, /picture 2 of 2/);
      assert.match(error.message, told);
      assert.equal(error.param, 'messages[0].content[1].image_url');
    });
  }

  test('a mislabelled file is read as what it is', async () => {
    const golden = cases.get('image-i633')!;
    const messages = [
      {
        role: 'user',
        content: [
          {
            type: 'image_url',
            image_url: { url: `data:image/jpeg;base64,${png.toString('base64')}` },
          },
          { type: 'text', text: golden.messages[0]!.content.replace('<image>\n', '') },
        ],
      },
    ];
    assertGolden(golden, await ask(url, golden, { messages }));
  });

  test('text that holds the context token beside a picture is refused', async () => {
    const response = await chat([
      { type: 'image_url', image_url: { url: dataUrl(png) } },
      { type: 'text', text: 'and <|vision_pad|> this' },
    ]);
    assert.equal(response.status, 400);
    assert.match(JSON.stringify(await response.json()), /vision_pad/);
  });
});
