import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { createChatTemplate } from '#engine/tokenizer/chat-template.ts';
import { createTokenizer } from '#engine/tokenizer/create-tokenizer.ts';
import { NAMED_CHAT_TEMPLATES } from '#engine/tokenizer/named-chat-templates.ts';
import type { ChatMessage } from '#engine/tokenizer/tokenizer.ts';
import { PRESETS, readGolden } from '../../support/golden.ts';

interface Prompt {
  readonly id: string;
  readonly template: string;
  readonly messages: readonly ChatMessage[];
  readonly images: readonly string[];
}

const fixtures = new URL('../../fixtures/', import.meta.url);
const readJson = (path: string) => JSON.parse(readFileSync(new URL(path, fixtures), 'utf8'));
const withTemplate = (chatTemplate: string) =>
  createChatTemplate({ chatTemplate, bosToken: '<s>', eosToken: '</s>' });
const user = (content: string) => ({ role: 'user', content });
const generate = { addGenerationPrompt: true };

/** The template of SmolLM2-135M-Instruct. */
const smollm2 = withTemplate(
  "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
);

test("SmolLM2's messages become the prompts of Hugging Face", () => {
  const { prompts } = readJson('smollm2/greedy.json');
  assert.ok(prompts.length > 0);
  for (const { messages, prompt } of prompts)
    assert.equal(smollm2.render(messages, generate), prompt);
});

for (const preset of PRESETS) {
  test(`nvlm-tiny ${preset}: text messages become the prompts and ids of Hugging Face, by the tokenizer's template and by chat()`, () => {
    const { chat_template: chatTemplate } = readJson(`nvlm-tiny/${preset}/tokenizer_config.json`);
    const template = withTemplate(chatTemplate);
    const tokenizer = createTokenizer({
      tokenizerJson: readJson(`nvlm-tiny/${preset}/tokenizer.json`),
      tokenizerConfig: {},
    });
    const { cases } = readJson(`nvlm-tiny/${preset}/golden/cases.json`);
    const goldenIds = new Map(
      readGolden(preset).textCases.map((each) => [each.id, each.promptIds]),
    );
    const prompts: Prompt[] = readJson('nvlm-tiny/prompts.json').cases;
    const texts = prompts.filter((each) => each.images.length === 0);
    for (const [golden, templates] of [
      ['qwen2', [template, withTemplate(NAMED_CHAT_TEMPLATES.qwen2)]],
      ['chatml_hf', [withTemplate(NAMED_CHAT_TEMPLATES.chatml)]],
    ] as const) {
      const chosen = texts.filter((each) => each.template === golden);
      assert.ok(chosen.length >= 6);
      for (const { id, messages } of chosen) {
        const { prompt_sha256: digest } = cases.find((each: { id: string }) => each.id === id);
        for (const each of templates) {
          const prompt = each.render(messages, generate);
          assert.equal(createHash('sha256').update(prompt).digest('hex'), digest);
          assert.deepEqual(tokenizer.encode(prompt), goldenIds.get(id));
        }
      }
    }
  });
}

test("qwen2p0 has Megatron's turns: those of qwen2, and no system turn that the client did not send", () => {
  const template = withTemplate(NAMED_CHAT_TEMPLATES.qwen2p0);
  const system = { role: 'system', content: 'Answer the questions.' };
  const asked = '<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\n';
  assert.equal(template.render([user('Why?')], generate), asked);
  assert.equal(
    template.render([system, user('Why?')], generate),
    `<|im_start|>system\nAnswer the questions.<|im_end|>\n${asked}`,
  );
  assert.equal(
    template.render([user('Why?'), { role: 'assistant', content: 'So.' }], {
      addGenerationPrompt: false,
    }),
    '<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nSo.<|im_end|>\n',
  );
});

test('a template sees the special tokens, tojson, strftime_now and whether to prompt the assistant', () => {
  const template = withTemplate(
    "{{ bos_token }}{{ messages | tojson }}{{ eos_token }}{{ strftime_now('%Y') | length }}{{ add_generation_prompt }}",
  );
  const json = '[{"role": "user", "content": "hi \\"you\\""}]';
  assert.equal(template.render([user('hi "you"')], generate), `<s>${json}</s>4true`);
});

test('what a template raises is quoted', () => {
  const template = withTemplate(
    "{% if messages[0].role != 'user' %}{{ raise_exception('the first role must be user') }}{% endif %}ok",
  );
  assert.equal(template.render([user('x')], generate), 'ok');
  assert.throws(() => template.render([{ role: 'tool', content: 'x' }], generate), {
    code: 'template_error',
    status: 400,
    param: 'messages',
    message: /the first role must be user/,
  });
});

test('a mistake inside a template is a template_error too', () => {
  const template = withTemplate('{{ messages[0].content.no_such_method() }}');
  assert.throws(() => template.render([user('x')], generate), { code: 'template_error' });
});

test('a template that cannot be parsed is refused when it is read', () => {
  assert.throws(() => withTemplate('{% for %}'), {
    code: 'template_error',
    message: /cannot be read: .+/,
  });
});

test('without a template messages are refused, saying why and what to do', () => {
  const source = { chatTemplate: undefined, bosToken: undefined, eosToken: undefined };
  assert.throws(() => createChatTemplate(source).render([user('x')], generate), {
    code: 'template_error',
    message: /has no chat template.*\/v1\/completions/,
  });
});

const continued = { addGenerationPrompt: false, continueFinalMessage: true };

test('a final message is left open when it is to be continued', () => {
  const messages = [user('Count.'), { role: 'assistant', content: 'One, two, ' }];
  const whole = smollm2.render(messages, { addGenerationPrompt: false });
  const open = smollm2.render(messages, continued);
  assert.equal(whole, `${open}<|im_end|>\n`);
});

test('a final message that the template trims is left open at its trimmed end', () => {
  const template = withTemplate('{% for m in messages %}[{{ m.content | trim }}]{% endfor %}');
  const messages = [user('a'), { role: 'assistant', content: ' b ' }];
  assert.equal(template.render(messages, continued), '[a][b');
});

test('a final message that the template rewrites cannot be continued', () => {
  const template = withTemplate('{% for m in messages %}{{ m.content | upper }}{% endfor %}');
  assert.throws(() => template.render([user('abc')], continued), {
    code: 'template_error',
    message: /cannot be continued/,
  });
});
