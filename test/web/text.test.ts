import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { ERRORS } from '#engine/protocol/errors.ts';
import { addTurn, emptyConversation, newAnswer } from '#web/conversation.ts';
import { ADVICE, adviceFor } from '#web/error-advice.ts';
import { toJson, toMarkdown } from '#web/export.ts';
import { duration, percent } from '#web/format.ts';
import { readField, restoreSettings, SAMPLING_FIELDS } from '#web/settings.ts';
import { SpeechPieces } from '#web/speech.ts';
import { type KeyValueStore, loadConversation, saveConversation } from '#web/storage.ts';

function example() {
  const conversation = emptyConversation();
  addTurn(conversation, { kind: 'user', id: 't0', parentId: null, createdAt: 0, text: 'Why?' });
  const answer = newAnswer('t1', 't0', 1000);
  Object.assign(answer, {
    text: 'Because `x < y`.',
    status: 'completed',
    model: 'smol',
    responseId: 'resp_1',
    usage: { input_tokens: 3, output_tokens: 5, total_tokens: 8 },
    firstTokenAt: 1200,
    lastTokenAt: 1600,
  });
  addTurn(conversation, answer);
  return conversation;
}

test('the Markdown export reads as a conversation', () => {
  assert.equal(
    toMarkdown(example(), 'Be brief.', 0),
    '# Conversation\n\nExported 1970-01-01T00:00:00.000Z, model smol\n\n## System\n\nBe brief.\n\n## You\n\nWhy?\n\n' +
      '## Assistant\n\nBecause `x < y`.\n',
  );
});

test('the JSON export carries messages, usage and speed', () => {
  const { messages } = JSON.parse(toJson(example(), '', 0));
  assert.deepEqual(
    messages.map(({ role, content }: { role: string; content: string }) => [role, content]),
    [
      ['user', 'Why?'],
      ['assistant', 'Because `x < y`.'],
    ],
  );
  assert.equal(messages[1].tokens_per_second, 10);
  assert.equal(messages[1].time_to_first_token_ms, 200);
  assert.equal(messages[1].usage.total_tokens, 8);
});

test('spoken pieces put together are the answer, and none but the last ends inside a sentence', () => {
  fc.assert(
    fc.property(
      fc.lorem({ maxCount: 30, mode: 'sentences' }),
      fc.integer({ min: 1, max: 20 }),
      (text, step) => {
        const pieces = new SpeechPieces();
        const spoken: string[] = [];
        for (let end = step; end < text.length; end += step)
          spoken.push(pieces.next(text.slice(0, end)));
        assert.ok(
          spoken.every((piece) => piece === '' || /[.,]$/.test(piece) || piece.length > 300),
        );
        spoken.push(pieces.last(text));
        assert.equal(spoken.filter((piece) => piece !== '').join(' '), text.trim());
      },
    ),
  );
});

test('settings out of range are refused in words and those from storage fall back to defaults', () => {
  const temperature = SAMPLING_FIELDS.find(({ name }) => name === 'temperature');
  const topK = SAMPLING_FIELDS.find(({ name }) => name === 'top_k');
  assert.ok(temperature && topK);
  assert.deepEqual(readField(temperature, ' 0.7 '), { value: 0.7 });
  assert.deepEqual(readField(temperature, ''), { value: null });
  for (const text of ['3', '-1', 'NaN', 'warm', 'Infinity', '1e999'])
    assert.ok('problem' in readField(temperature, text), text);
  assert.ok('problem' in readField(topK, '1.5'));
  const restored = restoreSettings({ sampling: { temperature: 9, top_k: 5, evil: 1 }, apiKey: 3 });
  assert.deepEqual(restored.sampling, { top_k: 5 });
  assert.equal(restored.apiKey, '');
  for (const broken of [null, 'text', [], { sampling: 'x' }])
    assert.deepEqual(restoreSettings(broken).sampling, {});
});

test('broken, foreign or refused storage starts an empty conversation and is told', () => {
  const holding = (text: string | null): KeyValueStore => ({
    getItem: () => text,
    setItem: () => {
      throw new Error('QuotaExceededError');
    },
  });
  for (const text of [null, '', '{', '[]', '{"version":2}', '{"version":1}', '"x"'])
    assert.deepEqual(loadConversation(holding(text)), emptyConversation());
  const stored = loadConversation(holding(JSON.stringify(example())));
  assert.deepEqual(stored, example());
  assert.equal(saveConversation(holding(null), stored), false);
});

test('every error the page explains is in the catalogue, and an unknown one still says what to do', () => {
  const own = new Set(['connection_failed']);
  const known = new Set<string>(Object.keys(ERRORS));
  assert.deepEqual(
    Object.keys(ADVICE).filter((code) => !known.has(code) && !own.has(code)),
    [],
  );
  assert.match(adviceFor({ code: 'never_heard_of', message: '' }).todo, /Try again/);
});

test('numbers are shown in units that fit', () => {
  assert.deepEqual([0.0042, 0.25, 1.5, 12.34, 125].map(duration), [
    '4.2 ms',
    '250 ms',
    '1.5 s',
    '12.3 s',
    '2 min 05 s',
  ]);
  assert.deepEqual([0, 0.005, 0.42, 1].map(percent), ['0 %', '0.5 %', '42 %', '100 %']);
});

/** WCAG 2 relative luminance of #rrggbb. */
function luminance(colour: string): number {
  const channels = [1, 3, 5].map((at) => Number.parseInt(colour.slice(at, at + 2), 16) / 255);
  const [r = 0, g = 0, b = 0] = channels.map((c) =>
    c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4,
  );
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(one: string, other: string): number {
  const [low = 0, high = 0] = [luminance(one), luminance(other)].sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}

test('text stands out from what it lies on in both themes', () => {
  const colours = new Map(
    [
      ...readFileSync('web/style.css', 'utf8').matchAll(
        /--([\w-]+): light-dark\((#\w+), (#\w+)\)/g,
      ),
    ].map(([, name = '', light = '', dark = '']) => [name, { light, dark }]),
  );
  const pairs = [
    ...['ground', 'surface', 'sunken', 'accent-soft', 'danger-soft'].map((ground) => [
      'ink',
      ground,
    ]),
    ...['ground', 'surface', 'sunken', 'danger-soft'].map((ground) => ['ink-soft', ground]),
    ...['ground', 'surface'].map((ground) => ['accent', ground]),
    ['accent-ink', 'accent'],
    ['danger', 'surface'],
  ];
  for (const [text = '', ground = ''] of pairs) {
    for (const theme of ['light', 'dark'] as const) {
      const ratio = contrast(colours.get(text)?.[theme] ?? '', colours.get(ground)?.[theme] ?? '');
      assert.ok(ratio >= 4.5, `${text} on ${ground}, ${theme}: ${ratio.toFixed(2)}`);
    }
  }
});
