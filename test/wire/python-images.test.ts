/** Pictures from the official Python client; the checks themselves are in python-images.py. */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe } from 'node:test';
import type { RunningServer } from '#engine/server/app.ts';
import type { LoadedModel } from '#engine/start.ts';
import { FIXTURES } from '../support/golden.ts';
import { type GoldenImageCase, goldenImages, readGoldenVision } from '../support/golden-images.ts';
import { findPythonClient, type Outcome, runChecks, testChecks } from '../support/python-client.ts';
import { loadTiny, serveTiny } from '../support/vision-server.ts';

const found = findPythonClient();

describe('pictures from the official Python client', {
  skip: 'skip' in found ? found.skip : false,
  timeout: 120_000,
}, () => {
  let model: LoadedModel;
  let server: RunningServer;
  let outcomes: readonly Outcome[] = [];

  before(async () => {
    assert.ok('python' in found);
    model = await loadTiny('b');
    const running = await serveTiny(model);
    server = running.server;
    const { imageCases } = readGoldenVision('b');
    const [many, one] = ['image-i640x480', 'image-i1x1'].map(
      (id) => imageCases.find((each) => each.id === id)!,
    ) as [GoldenImageCase, GoldenImageCase];
    // The same question of seven tiles and of one.
    assert.deepEqual(many.messages, one.messages);
    assert.ok(many.safeSteps >= 8);
    const picture = goldenImages().i640x480!.file;
    outcomes = await runChecks(found.python, 'python-images.py', [
      running.url,
      'tiny',
      join(FIXTURES, 'nvlm-tiny', picture),
      JSON.stringify({
        question: many.messages[0]!.content.replace('<image>\n', ''),
        tokens: many.promptIds.length,
        low_tokens: one.promptIds.length,
        text: model.tokenizer.decode(many.greedyIds.slice(0, 8), { skipSpecialTokens: true }),
      }),
    ]);
  });
  after(async () => {
    await server?.close(1000);
    await model?.close();
  });

  const checks: Record<string, string> = {
    responses_over_the_socket:
      'come over responses.connect() with their tokens, and are found again by the next turn',
    refused_on_the_socket: 'are refused by number when they are broken, and the socket goes on',
    asynchronous_socket: 'come over the asynchronous socket',
    responses_over_http: 'come over Responses, streamed and not, and are listed as input items',
    chat_completions: 'come over Chat Completions, streamed and not',
  };
  testChecks(checks, () => outcomes);
});
