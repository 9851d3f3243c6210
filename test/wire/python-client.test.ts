/** The official Python client on a real model; the checks themselves are in python-client.py. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import {
  closeModel,
  type LiveServer,
  MODEL_NAME,
  noLiveServer,
  startLiveServer,
} from '../support/live-server.ts';
import { findPythonClient, type Outcome, runChecks, testChecks } from '../support/python-client.ts';

const found = noLiveServer === false ? findPythonClient() : { skip: noLiveServer };

describe('the official Python client', {
  skip: 'skip' in found ? found.skip : false,
  timeout: 120_000,
}, () => {
  let server: LiveServer;
  let outcomes: readonly Outcome[] = [];

  before(async () => {
    assert.ok('python' in found);
    server = await startLiveServer();
    outcomes = await runChecks(found.python, 'python-client.py', [server.url, MODEL_NAME]);
  });
  after(async () => {
    await server?.close();
    await closeModel();
  });

  const checks: Record<string, string> = {
    responses_over_the_socket:
      'streams typed, numbered events from responses.connect() and continues a conversation',
    warm_up_and_errors_on_the_socket: 'warms a prompt up, and survives a refused request',
    lanes_of_the_async_socket: 'runs two lanes side by side on one asynchronous socket',
    responses_over_http: 'creates, retrieves, streams, resumes and deletes responses',
    background_response_is_cancelled: 'cancels a background response',
    chat_completions: 'chats, streamed and not, and is refused tools by name',
    text_completions_and_models: 'completes text with echo and log-probabilities, lists models',
  };
  testChecks(checks, () => outcomes);
  test('leaves nothing behind in the engine', async () => {
    assert.equal(outcomes.length, Object.keys(checks).length);
    await server.idle();
  });
});
