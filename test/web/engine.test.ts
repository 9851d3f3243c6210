import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import type { Browser } from 'playwright-core';
import { launchBrowser, noBrowser, openPage } from '../support/browser.ts';
import { findDefaultModel } from '../support/default-model.ts';

const model = await findDefaultModel();
const skip =
  noBrowser ||
  ('skip' in model ? model.skip : false) ||
  (existsSync('web/dist/main.js') ? false : 'web/dist is not built: npm run build') ||
  (existsSync('kernels/build/nvlm.node') ? false : 'the addon is not built: npm run build');

/** Starts the engine on a free port; resolves to its address once it listens. */
async function startEngine(path: string): Promise<{ process: ChildProcess; address: string }> {
  const engine = spawn(
    process.execPath,
    [
      'engine/main.ts',
      '--model',
      path,
      '--port',
      '0',
      '--max-sequences',
      '4',
      '--log-level',
      'warn',
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  let printed = '';
  for await (const chunk of engine.stdout) {
    printed += String(chunk);
    const [, address] = /listening on (\S+)/.exec(printed) ?? [];
    if (address !== undefined) return { process: engine, address };
  }
  throw new Error(`the engine ended before it listened: ${printed}`);
}

describe('the page on the engine itself', { skip, timeout: 360_000 }, () => {
  let engine: ChildProcess;
  let address = '';
  let browser: Browser;

  before(async () => {
    assert.ok('path' in model);
    ({ process: engine, address } = await startEngine(model.path));
    browser = await launchBrowser();
  });
  after(async () => {
    await browser?.close();
    if (engine === undefined) return;
    const exited = new Promise((resolve) => engine.once('exit', resolve));
    engine.kill('SIGTERM');
    await exited;
  });

  test('an answer survives a lost network to the character, and the next question finds its prompt cached', async () => {
    const { page, context } = await openPage(browser, address);
    const sent: string[] = [];
    page.on('websocket', (socket) =>
      socket.on('framesent', ({ payload }) => sent.push(JSON.parse(String(payload)).type)),
    );
    await page.evaluate(
      `localStorage.setItem('nvlm.settings', JSON.stringify({ sampling: { temperature: 0, max_output_tokens: 500 } }))`,
    );
    await page.reload();
    const answer = page.locator('.turn-assistant');
    const ask = async (text: string, index: number): Promise<void> => {
      await page.getByLabel('Message').fill(text);
      await page.keyboard.press('Enter');
      await answer.nth(index).locator('.markdown p').first().waitFor();
    };
    // Beside other work on two cores an answer may take minutes.
    const finished = (index: number) =>
      answer.nth(index).and(page.locator('[aria-busy=false]')).waitFor({ timeout: 300_000 });

    await ask('Tell me a long story about a fox and a whale.', 0);
    await context.setOffline(true);
    await page.getByText('The connection is lost').waitFor();
    await context.setOffline(false);
    await finished(0);
    assert.deepEqual(sent, ['response.create', 'response.resume']);
    await page.getByRole('button', { name: 'Copy answer' }).click();
    const shown = await page.evaluate('navigator.clipboard.readText()');
    // Saved a moment after the last event.
    await page.waitForTimeout(1000);
    const id = await page.evaluate(
      `Object.values(JSON.parse(localStorage.getItem('nvlm.conversation')).turns)[1].responseId`,
    );
    const kept = (await (await fetch(`${address}/v1/responses/${id}`)).json()) as {
      output: { content: { text: string }[] }[];
    };
    assert.equal(shown, kept.output[0]?.content[0]?.text);

    await ask('And then?', 1);
    // At once: the chart tells of the last 30 seconds, and the answer may take longer.
    await page.getByRole('tab', { name: 'Dashboard' }).click();
    await page
      .getByRole('img', { name: /^Prefix cache hits, .*Now: of prompt tokens \d/ })
      .waitFor({ timeout: 60_000 });
    await page.getByRole('tab', { name: 'Chat' }).click();
    await finished(1);
    await page.getByText(/\d+ of \d+ prompt tokens from cache/).waitFor({ timeout: 60_000 });
    await context.close();
  });
});
