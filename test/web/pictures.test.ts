import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Browser, FileChooser, Page } from 'playwright-core';
import type { RunningServer } from '#engine/server/app.ts';
import type { LoadedModel } from '#engine/start.ts';
import { launchBrowser, noBrowser, openPage } from '../support/browser.ts';
import { FIXTURES } from '../support/golden.ts';
import { loadTiny, serveTiny } from '../support/vision-server.ts';

const root = join(import.meta.dirname, '../..');
/** As a reader does: the button, then the files of the dialog. */
async function choose(page: Page, files: Parameters<FileChooser['setFiles']>[0]): Promise<void> {
  const [dialog] = await Promise.all([page.waitForEvent('filechooser'), page.click('#attach')]);
  await dialog.setFiles(files);
}

const picture = join(FIXTURES, 'nvlm-tiny/images/i640x480.png');

describe('pictures on the chat page, with a model that sees', {
  skip: noBrowser,
  timeout: 120_000,
}, () => {
  let model: LoadedModel;
  let server: RunningServer;
  let browser: Browser;
  let url: string;

  before(async () => {
    // A random model goes on to the end of its context.
    const limits = { maxSequences: 4, maxBatchedTokens: 4096, maxModelLength: 1900 };
    model = await loadTiny('b', { dtype: 'auto', ...limits });
    const engine = model.startEngine({ mode: 'Continuous', maxSequences: 4, workers: 1 });
    const vendor = join(root, 'node_modules');
    ({ server, url } = await serveTiny(model, engine, model.checkpoint.eosTokenIds, {
      web: {
        directories: [join(root, 'web'), join(root, 'web/dist')],
        vendor: {
          '/assets/vendor/marked.js': join(vendor, 'marked/lib/marked.esm.js'),
          '/assets/vendor/dompurify.js': join(vendor, 'dompurify/dist/purify.es.mjs'),
        },
      },
    }));
    browser = await launchBrowser();
  });
  after(async () => {
    await browser?.close();
    await server?.close(1000);
    await model?.close();
  });

  test('a chosen picture shows its tiles and cost, is answered, and is there after a reload', async () => {
    const { page, context, problems } = await openPage(browser, url);
    await page.locator('#attach').waitFor({ state: 'visible' });
    await choose(page, picture);
    const card = page.locator('.picture-card');
    await card.waitFor();
    assert.match((await card.textContent()) ?? '', /640 × 480 · 7 tiles · 1792 tokens/);
    assert.equal(await card.locator('line').count(), 3);
    await page.fill('#message', 'What is shown?');
    await page.click('#send');
    const figures = page.locator('.turn-assistant .figures');
    await page.locator('.figures', { hasText: 'tokens' }).waitFor();
    await page.locator('#send').waitFor({ state: 'visible' });
    assert.match((await figures.textContent()) ?? '', /tokens/);
    assert.match(
      (await page.locator('#context-use').textContent()) ?? '',
      /^(1[89]|[2-9]\d)\d\d of/,
    );
    await page.waitForTimeout(700);
    await page.reload();
    const shown = page.locator('.turn-user img');
    await shown.waitFor();
    assert.equal(await page.evaluate(`document.querySelector('.turn-user img').naturalWidth`), 640);
    assert.deepEqual(problems, []);
    await context.close();
  });

  test('a picture can be dropped and pasted, and taken back', async () => {
    const { page, context, problems } = await openPage(browser, url);
    await page.locator('#attach').waitFor({ state: 'visible' });
    const data = readFileSync(picture).toString('base64');
    for (const type of ['drop', 'paste']) {
      await page.evaluate(`{
        const bytes = Uint8Array.from(atob('${data}'), (c) => c.charCodeAt(0));
        const transfer = new DataTransfer();
        transfer.items.add(new File([bytes], '${type}.png', { type: 'image/png' }));
        const options = { bubbles: true, cancelable: true };
        document.querySelector('#message').dispatchEvent(
          ${type === 'drop'}
            ? new DragEvent('drop', { dataTransfer: transfer, ...options })
            : new ClipboardEvent('paste', { clipboardData: transfer, ...options }),
        );
      }`);
      await page.getByText(`${type}.png`).waitFor();
    }
    assert.equal(await page.locator('.picture-card').count(), 2);
    await page.getByRole('button', { name: 'Remove drop.png' }).click();
    assert.equal(await page.locator('.picture-card').count(), 1);
    assert.equal(await page.locator('#send').isEnabled(), true);
    await page.getByRole('button', { name: 'Remove paste.png' }).click();
    assert.equal(await page.locator('#send').isEnabled(), false);
    assert.deepEqual(problems, []);
    await context.close();
  });

  test('a file that is no picture is told and nothing is added', async () => {
    const { page, context } = await openPage(browser, url);
    await page.locator('#attach').waitFor({ state: 'visible' });
    await choose(page, {
      name: 'notes.png',
      mimeType: 'image/png',
      buffer: Buffer.from('hello'),
    });
    await page.getByText('notes.png is no picture that this browser can show.').waitFor();
    assert.equal(await page.locator('.picture-card').count(), 0);
    await context.close();
  });
});
