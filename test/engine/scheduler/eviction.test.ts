import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fakeEngine, run, turnUntil } from './harness.ts';

/** Serves prompts one after the other from a cache of six blocks of four; how many tokens of each were found there. */
async function cachedTokens(prompts: readonly (readonly number[])[]): Promise<number[]> {
  const { engine, clock } = fakeEngine({ blockCount: 7, maxModelLength: 24 });
  const found: number[] = [];
  for (const promptIds of prompts) {
    const served = run(engine, { promptIds, maxTokens: 1 }).then((events) => {
      const last = events.at(-1)!;
      assert.ok(last.type === 'end');
      found.push(last.usage.cachedTokens);
    });
    const before = found.length;
    await turnUntil(clock, () => found.length > before);
    await served;
  }
  return found;
}

/** Two full blocks and a token. */
const [a, b, c] = [1, 2, 3].map((id) => new Array<number>(9).fill(id)) as [
  number[],
  number[],
  number[],
];

test('the content that was used least recently goes first, however early it came', async () => {
  assert.deepEqual(await cachedTokens([a, b, a, c, a]), [0, 0, 8, 0, 8]);
  assert.deepEqual(await cachedTokens([a, b, a, c, b]), [0, 0, 8, 0, 0]);
  assert.deepEqual(await cachedTokens([a, b, c, a]), [0, 0, 0, 0]);
});

test('the end of a prompt goes before its beginning, which others are likelier to share', async () => {
  assert.deepEqual(await cachedTokens([a, b, [9, 9, 9, 9, 9], a]), [0, 0, 0, 4]);
});
