import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import fc from 'fast-check';
import { createTokenizer } from '#engine/tokenizer/create-tokenizer.ts';
import { incompleteSuffixLength } from '#engine/tokenizer/incremental-decoder.ts';

const open = (name: string) => {
  const url = new URL(`../../fixtures/tokenizer/${name}.json`, import.meta.url);
  return createTokenizer({
    tokenizerJson: JSON.parse(readFileSync(url, 'utf8')),
    tokenizerConfig: {},
  });
};

/** The standard decoder, in one go over all bytes: the oracle for text that came in pieces. */
const decodeAtOnce = (bytes: Uint8Array) =>
  new TextDecoder('utf-8', { ignoreBOM: true }).decode(bytes);

for (const name of ['qwen2', 'smollm', 'llama2']) {
  const tokenizer = open(name);
  const ids = fc.array(fc.nat(tokenizer.vocabularySize - 1), { maxLength: 40 });

  test(`${name}: pieces of any ids join to what the standard decoder reads from their bytes`, () => {
    fc.assert(
      fc.property(ids, fc.boolean(), (tokenIds, skipSpecialTokens) => {
        const decoder = tokenizer.createDecoder({ skipSpecialTokens });
        const pieces = tokenIds.map((id) => decoder.push(id));
        pieces.push(decoder.flush());
        const spoken = tokenIds.filter((id) => !skipSpecialTokens || !tokenizer.isSpecial(id));
        const whole = decodeAtOnce(Buffer.concat(spoken.map((id) => tokenizer.tokenBytes(id))));
        const expected = name === 'llama2' && whole.startsWith(' ') ? whole.slice(1) : whole;
        assert.equal(pieces.join(''), expected);
        assert.equal(tokenizer.decode(tokenIds, { skipSpecialTokens }), expected);
      }),
      { numRuns: 2000 },
    );
  });

  test(`${name}: while a text streams, what is out is always a beginning of it, and at most one character behind`, () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme', maxLength: 30 }), (text) => {
        const tokenIds = tokenizer.encode(text);
        const whole = tokenizer.decode(tokenIds);
        const decoder = tokenizer.createDecoder();
        let shown = '';
        let bytes = 0;
        for (const id of tokenIds) {
          shown += decoder.push(id);
          bytes += tokenizer.tokenBytes(id).length;
          assert.ok(
            whole.startsWith(shown),
            `${JSON.stringify(shown)} of ${JSON.stringify(whole)}`,
          );
          assert.ok(shown.isWellFormed());
          // 3 bytes of an unfinished character, and llama2's leading space.
          assert.ok(bytes - Buffer.byteLength(shown) <= 4);
        }
        assert.equal(shown, whole);
        assert.equal(decoder.flush(), '');
      }),
      { numRuns: 500 },
    );
  });
}

test('only beginnings of characters are held back, at every cut of every kind of sequence', () => {
  const isBeginning = (bytes: Uint8Array) => {
    // A streaming decoder that says nothing and then completes to something else than U+FFFD alone was waiting.
    const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
    return decoder.decode(bytes, { stream: true }) === '';
  };
  for (let lead = 0x80; lead < 0x100; lead++) {
    assert.equal(
      incompleteSuffixLength(Uint8Array.of(lead)),
      isBeginning(Uint8Array.of(lead)) ? 1 : 0,
    );
    for (let second = 0; second < 0x100; second++) {
      const two = Uint8Array.of(lead, second);
      const alone = isBeginning(Uint8Array.of(second)) ? 1 : 0;
      assert.equal(incompleteSuffixLength(two), isBeginning(two) ? 2 : alone, `${lead} ${second}`);
      for (const third of [0x7f, 0x80, 0xbf, 0xc2]) {
        const three = Uint8Array.of(lead, second, third);
        const rest = incompleteSuffixLength(Uint8Array.of(second, third));
        assert.equal(incompleteSuffixLength(three), isBeginning(three) ? 3 : rest);
      }
    }
  }
});

test('an unfinished character at the end comes out as U+FFFD when the stream ends', () => {
  const tokenizer = open('smollm');
  const ids = tokenizer.encode('\u{1f9d1}');
  assert.ok(ids.length > 1, 'the tokenizer must cut this character');
  const decoder = tokenizer.createDecoder();
  assert.equal(
    ids
      .slice(0, -1)
      .map((id) => decoder.push(id))
      .join(''),
    '',
  );
  assert.equal(decoder.flush(), '\ufffd');
});
