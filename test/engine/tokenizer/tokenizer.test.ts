import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { createTokenizer } from '#engine/tokenizer/create-tokenizer.ts';
import type { Tokenizer } from '#engine/tokenizer/tokenizer.ts';

interface Golden {
  readonly ids: readonly (readonly number[])[];
  readonly withSpecialTokens: readonly number[];
  readonly decoded: readonly string[];
  readonly decodedWithoutSpecial: readonly string[];
  readonly brokenIds: readonly (readonly number[])[];
  readonly brokenDecoded: readonly string[];
}

const fixtures = new URL('../../fixtures/', import.meta.url);
const readJson = (path: string) => JSON.parse(readFileSync(new URL(path, fixtures), 'utf8'));
const open = (path: string): Tokenizer =>
  createTokenizer({ tokenizerJson: readJson(path), tokenizerConfig: {} });

const golden: { texts: string[]; tokenizers: Record<string, Golden> } =
  readJson('tokenizer/golden.json');

for (const [name, expected] of Object.entries(golden.tokenizers)) {
  const tokenizer = open(`tokenizer/${name}.json`);

  test(`${name}: hostile texts give Hugging Face's ids`, () => {
    for (const [index, text] of golden.texts.entries()) {
      assert.deepEqual(tokenizer.encode(text), expected.ids[index], JSON.stringify(text));
    }
    const withSpecial = tokenizer.encode('Hello', { addSpecialTokens: true });
    assert.deepEqual(withSpecial, expected.withSpecialTokens);
  });

  test(`${name}: ids give Hugging Face's text, special tokens kept or skipped`, () => {
    for (const [index, ids] of expected.ids.entries()) {
      assert.equal(tokenizer.decode(ids), expected.decoded[index]);
      const plain = tokenizer.decode(ids, { skipSpecialTokens: true });
      assert.equal(plain, expected.decodedWithoutSpecial[index]);
    }
    for (const [index, ids] of expected.brokenIds.entries()) {
      assert.equal(tokenizer.decode(ids), expected.brokenDecoded[index], ids.join());
    }
  });
}

for (const name of ['a', 'b', 'c']) {
  test(`nvlm-tiny ${name}: strings and cut UTF-8 sequences agree with the golden file`, () => {
    const tokenizer = open(`nvlm-tiny/${name}/tokenizer.json`);
    const { strings, partial } = readJson(`nvlm-tiny/${name}/golden/tokenizer.json`);
    assert.ok(strings.length > 0 && partial.length > 0);
    for (const { text, ids, decoded, decoded_skip_special: plain } of strings) {
      assert.deepEqual(tokenizer.encode(text), ids, JSON.stringify(text));
      assert.equal(tokenizer.decode(ids), decoded);
      assert.equal(tokenizer.decode(ids, { skipSpecialTokens: true }), plain);
    }
    for (const { ids, decoded } of partial) assert.equal(tokenizer.decode(ids), decoded);
  });
}

test('a lone surrogate is read as U+FFFD', () => {
  const tokenizer = open('tokenizer/qwen2.json');
  for (const text of ['\ud83d', 'a\udc00b', '\ude00\ud83d x', 'ok \ud800']) {
    const replaced = text.replace(/\p{Surrogate}/gu, '\ufffd');
    assert.deepEqual(tokenizer.encode(text), tokenizer.encode(replaced));
    assert.equal(tokenizer.decode(tokenizer.encode(text)), replaced);
  }
});

test('text that needs no normalisation round-trips through byte-level tokenizers', () => {
  const tokenizer = open('tokenizer/smollm.json');
  for (const text of golden.texts) {
    // Added tokens that swallow white space cannot give it back.
    if (/<left>|<right>/.test(text)) continue;
    assert.equal(tokenizer.decode(tokenizer.encode(text)), text);
  }
});

test('the work for one endless word grows with its length, not its square', {
  timeout: 120_000,
}, () => {
  const tokenizer = open('tokenizer/llama3.json');
  for (const character of ['a', ' ', '\n', '.', '0', '\u6f22', '\u{1f600}', '\u0301', "'"]) {
    const text = character.repeat(100_000);
    // Quadratic merging would need some 10^10 steps for each of these: minutes, far past this test's time limit.
    assert.equal(tokenizer.decode(tokenizer.encode(text)), text);
  }
});

test('a megabyte of mixed text round-trips', () => {
  const tokenizer = open('tokenizer/smollm.json');
  const texts = golden.texts.filter((text) => !/<left>|<right>/.test(text));
  const text = texts.join(' ').repeat(Math.ceil(1e6 / texts.join(' ').length));
  assert.equal(tokenizer.decode(tokenizer.encode(text)), text);
});

test('an id outside the vocabulary says nothing', () => {
  const tokenizer = open('tokenizer/qwen2.json');
  const [a] = tokenizer.encode('a') as [number];
  assert.equal(tokenizer.decode([a, tokenizer.vocabularySize, -1, 1e9, a]), 'aa');
  assert.equal(tokenizer.tokenBytes(tokenizer.vocabularySize).length, 0);
});

test('token bytes are the bytes of a text, cut characters and special tokens included', () => {
  const tokenizer = open('tokenizer/llama2.json');
  const bytes = (ids: number[]) => Buffer.concat(ids.map((id) => tokenizer.tokenBytes(id)));
  assert.equal(bytes(tokenizer.encode('na\u00efve \u{1f9d1}')).toString(), ' na\u00efve \u{1f9d1}');
  const end = tokenizer.tokenToId('</s>') as number;
  assert.equal(bytes([end]).toString(), '</s>');
  assert.equal(tokenizer.isSpecial(end), true);
  assert.equal(tokenizer.isSpecial(tokenizer.tokenToId('a') as number), false);
  assert.equal(tokenizer.tokenToId('no such token'), undefined);
});

const qwen2 = () => readJson('tokenizer/qwen2.json');
const refusals: readonly [string, string, (json: ReturnType<typeof qwen2>) => unknown, RegExp][] = [
  ['no object', 'TOKENIZER_INVALID', () => 'text', /expected an object/],
  ['no model', 'TOKENIZER_INVALID', (json) => ({ ...json, model: undefined }), /'model'/],
  [
    'a WordPiece model',
    'TOKENIZER_UNSUPPORTED',
    (json) => ({ ...json, model: { ...json.model, type: 'WordPiece' } }),
    /model type "WordPiece" is not supported; expected BPE/,
  ],
  [
    'a merge without its token',
    'TOKENIZER_INVALID',
    (json) => ({ ...json, model: { ...json.model, merges: [['a', 'zzz']] } }),
    /merge of "a" and "zzz"/,
  ],
  [
    'an id that is no number',
    'TOKENIZER_INVALID',
    (json) => ({ ...json, model: { ...json.model, vocab: { a: 'b' } } }),
    /token "a" has id "b"/,
  ],
  [
    'an unknown pre-tokenizer',
    'TOKENIZER_UNSUPPORTED',
    (json) => ({
      ...json,
      pre_tokenizer: {
        type: 'Sequence',
        pretokenizers: [{ type: 'UnicodeScripts' }, { type: 'ByteLevel' }],
      },
    }),
    /UnicodeScripts/,
  ],
  [
    'an unknown decoder',
    'TOKENIZER_UNSUPPORTED',
    (json) => ({ ...json, decoder: { type: 'WordPiece' } }),
    /decoder .*WordPiece/,
  ],
  [
    'a broken pattern',
    'TOKENIZER_UNSUPPORTED',
    (json) => ({
      ...json,
      pre_tokenizer: {
        type: 'Sequence',
        pretokenizers: [
          { type: 'Split', pattern: { Regex: '(' }, behavior: 'Isolated', invert: false },
          { type: 'ByteLevel', use_regex: false },
        ],
      },
    }),
    /pattern/,
  ],
];
for (const [what, code, change, message] of refusals) {
  test(`${what} is refused by name`, () => {
    const files = { tokenizerJson: change(qwen2()), tokenizerConfig: {} };
    assert.throws(() => createTokenizer(files), { code, message });
  });
}
