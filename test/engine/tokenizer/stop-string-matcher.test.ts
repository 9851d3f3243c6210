import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { StopStringMatcher } from '#engine/tokenizer/stop-string-matcher.ts';

/** The first place where a stop string is complete; the longest of those complete there. */
function findStop(text: string, stops: readonly string[]) {
  for (let end = 1; end <= text.length; end++) {
    const complete = stops.filter((stop) => stop !== '' && text.slice(0, end).endsWith(stop));
    const [matched] = complete.sort((a, b) => b.length - a.length);
    if (matched !== undefined) return { matched, start: end - matched.length, end };
  }
  return undefined;
}

/** The longest end of `text` that a stop string begins with: all that may be held back. */
function beginningOfStop(text: string, stops: readonly string[]): number {
  for (let length = text.length; length > 0; length--) {
    if (stops.some((stop) => stop.startsWith(text.slice(text.length - length)))) return length;
  }
  return 0;
}

// Few letters, so that stop strings overlap the text, each other and themselves.
const word = (maxLength: number) =>
  fc.string({ unit: fc.constantFrom('a', 'b', 'c', '\u{1f600}'), maxLength });
const stops = fc.array(word(6), { maxLength: 6 });

test('text, match and held-back end agree with a search of the whole text, however it is cut', () => {
  fc.assert(
    fc.property(
      fc.array(word(5), { maxLength: 12 }),
      stops,
      fc.boolean(),
      (pieces, list, include) => {
        const matcher = new StopStringMatcher(list, { includeStopString: include });
        let fed = '';
        let shown = '';
        for (const piece of pieces) {
          fed += piece;
          const { text, matched } = matcher.push(piece);
          shown += text;
          const expected = findStop(fed, list);
          assert.equal(matched, expected?.matched);
          if (expected !== undefined) {
            assert.equal(shown, fed.slice(0, include ? expected.end : expected.start));
            assert.deepEqual(matcher.push('more'), { text: '', matched: undefined });
            assert.equal(matcher.flush(), '');
            return;
          }
          assert.equal(shown, fed.slice(0, fed.length - beginningOfStop(fed, list)));
        }
        assert.equal(shown + matcher.flush(), fed);
      },
    ),
    { numRuns: 5000 },
  );
});

test('without stop strings everything passes at once', () => {
  const matcher = new StopStringMatcher(['', '\ud83d']);
  assert.deepEqual(matcher.push('any \u{1f600}'), { text: 'any \u{1f600}', matched: undefined });
  assert.equal(matcher.flush(), '');
});

test('64 long stop strings that share their beginning read each character of a long text once', {
  timeout: 120_000,
}, () => {
  const matcher = new StopStringMatcher(
    Array.from({ length: 64 }, (_, n) => `${'a'.repeat(1000)}${n}!`),
  );
  // Searching afresh for each piece would compare 200,000 times 64 strings of 1,000 characters.
  let length = 0;
  for (let n = 0; n < 200_000; n++) length += matcher.push('a').text.length;
  assert.equal(length, 200_000 - 1000);
  assert.deepEqual(matcher.push('63!tail'), { text: '', matched: `${'a'.repeat(1000)}63!` });
});
