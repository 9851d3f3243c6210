import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, afterEach, before, describe, test } from 'node:test';
import type { Browser, Page } from 'playwright-core';
import { launchBrowser, noBrowser, type OpenPage, openPage } from '../support/browser.ts';
import { FakeResponsesServer } from '../support/fake-responses-server.ts';

const LONG = Array.from({ length: 60 }, (_, i) => `word${i}`).join(' ');

describe('the chat page in a browser', { skip: noBrowser, timeout: 300_000 }, () => {
  const server = new FakeResponsesServer();
  let address = '';
  let browser: Browser;
  let open: OpenPage[] = [];

  before(async () => {
    address = await server.start();
    browser = await launchBrowser();
  });
  after(async () => {
    await browser?.close();
    await server.stop();
  });
  afterEach(async () => {
    for (const { context } of open) await context.close();
    open = [];
    server.script = () => ({ text: 'Hello.' });
    server.apiKey = '';
    server.acceptsSockets = true;
    server.frames.length = 0;
  });

  const openChat = async (
    options: { width?: number; isDark?: boolean } = {},
  ): Promise<OpenPage> => {
    const opened = await openPage(browser, address, options);
    open.push(opened);
    return opened;
  };
  const ask = async (page: Page, text: string): Promise<void> => {
    await page.getByLabel('Message').fill(text);
    await page.keyboard.press('Enter');
  };
  const turns = (page: Page) => page.getByRole('region', { name: 'Conversation' });
  const answers = (page: Page) => page.getByRole('article', { name: 'Assistant' });
  const finished = (page: Page, index = 0) =>
    page.locator('.turn-assistant').nth(index).and(page.locator('[aria-busy=false]')).waitFor();
  const plain = async (page: Page, index = 0): Promise<string> =>
    ((await page.locator('.turn-assistant .markdown').nth(index).textContent()) ?? '')
      .replace(/\s+/g, ' ')
      .trim();

  test('an example question is one click, its answer streams, and nothing violates the security policy', async () => {
    server.script = () => ({ text: `Once **upon** a time. ${LONG}`, pauseMs: 1 });
    const { page, problems } = await openChat();
    await page.getByRole('button', { name: /Why is the sky blue/ }).click();
    await finished(page);
    assert.equal(await plain(page), `Once upon a time. ${LONG}`);
    assert.equal(await page.locator('.turn-assistant strong').textContent(), 'upon');
    await page
      .locator('.figures')
      .filter({ hasText: /64 tokens · .* tokens\/s · first after/ })
      .waitFor();
    assert.deepEqual(problems, []);
  });

  test('a socket that drops mid-answer loses no token and doubles none', async () => {
    server.script = () => ({ text: LONG, pauseMs: 8, dropAfter: 20 });
    const { page } = await openChat();
    await ask(page, 'go');
    await finished(page);
    assert.equal(await plain(page), LONG);
    assert.ok(server.sent('response.resume').length >= 1);
    assert.equal(server.sent('response.create').length, 1);
  });

  test('an answer goes on after the page is reloaded in the middle of it', async () => {
    server.script = () => ({ text: LONG, holdBefore: 30 });
    const { page } = await openChat();
    await ask(page, 'go');
    await turns(page).getByText('word29').waitFor();
    await page.reload();
    await turns(page).getByText('word29').waitFor();
    server.release();
    await finished(page);
    assert.equal(await plain(page), LONG);
    assert.equal(server.sent('response.create').length, 1);
  });

  test('a lost server is told, and the answer goes on when it is back', async () => {
    server.script = () => ({ text: LONG, holdBefore: 10 });
    const { page } = await openChat();
    await ask(page, 'go');
    await turns(page).getByText('word9').waitFor();
    server.acceptsSockets = false;
    server.dropSockets();
    const alert = page.getByRole('alert').filter({ hasText: 'The connection is lost' });
    await alert.waitFor();
    await alert.getByRole('button', { name: 'Try now' }).waitFor();
    server.acceptsSockets = true;
    server.release();
    await finished(page);
    assert.equal(await plain(page), LONG);
    await alert.waitFor({ state: 'detached' });
  });

  test('Escape stops, what came is kept, and the box is ready for the next question', async () => {
    server.script = () => ({ text: LONG, holdBefore: 5 });
    const { page } = await openChat();
    await ask(page, 'go');
    await turns(page).getByText('word4').waitFor();
    await page.keyboard.press('Escape');
    await finished(page);
    assert.equal(await plain(page), 'word0 word1 word2 word3 word4');
    await page
      .locator('.figures')
      .filter({ hasText: /stopped/ })
      .waitFor();
    await page.locator('#message:focus').waitFor();
    assert.equal(server.sent('response.cancel').length, 1);
  });

  test('a question is edited with the keyboard alone, and both branches stay', async () => {
    server.script = ({ input }) => ({ text: `You said ${input.at(-1)?.content}` });
    const { page } = await openChat();
    await ask(page, 'one');
    await finished(page);
    await page.getByRole('button', { name: 'Edit question' }).focus();
    await page.keyboard.press('Enter');
    await page.getByRole('textbox', { name: 'Edit question' }).fill('two');
    await page.keyboard.press('Enter');
    await turns(page).getByText('You said two').waitFor();
    assert.equal(await answers(page).count(), 1);
    await page.getByRole('button', { name: 'Previous version' }).click();
    await turns(page).getByText('You said one').waitFor();
  });

  test('an answer is regenerated beside the old one', async () => {
    let count = 0;
    server.script = () => ({ text: `Attempt ${++count}` });
    const { page } = await openChat();
    await ask(page, 'go');
    await turns(page).getByText('Attempt 1').waitFor();
    await page.getByRole('button', { name: 'Regenerate' }).click();
    await turns(page).getByText('Attempt 2').waitFor();
    await turns(page).getByText('2 / 2').waitFor();
  });

  test('Shift+Enter starts a new line, and an empty question is not sent', async () => {
    const { page } = await openChat();
    await page.keyboard.press('Enter');
    await page.keyboard.type('a');
    await page.keyboard.press('Shift+Enter');
    await page.keyboard.type('b');
    await page.keyboard.press('Enter');
    await finished(page);
    assert.deepEqual(
      server.sent('response.create').map(({ input }) => input),
      [[{ role: 'user', content: 'a\nb' }]],
    );
  });

  test('hostile Markdown is shown, not run, and reaches no other host', async () => {
    server.script = () => ({ text: readFileSync('test/web/hostile.md', 'utf8') });
    const { page, problems } = await openChat();
    const foreign: string[] = [];
    page.on('request', (request) => {
      if (!request.url().startsWith(address) && !request.url().startsWith('data:'))
        foreign.push(request.url());
    });
    await ask(page, '<img src=x onerror="window.attacked = true">');
    await finished(page);
    const found = await page.evaluate(`(() => {
      const turns = document.getElementById('turns');
      const elements = [...turns.querySelectorAll('*')];
      return {
        attacked: window.attacked,
        forbidden: elements.filter((e) => /^(script|img|iframe|object|embed|form|style|base|meta|link|video|input|math)$/i.test(e.tagName)).map((e) => e.outerHTML),
        handlers: elements.flatMap((e) => [...e.attributes]).filter(({ name }) => name.startsWith('on') || name === 'style' || name === 'id').map(({ name, value }) => name + '=' + value),
        links: [...turns.querySelectorAll('a[href]')].map((a) => [a.getAttribute('href'), a.rel, a.target]),
      };
    })()`);
    const safe = ['noopener noreferrer nofollow', '_blank'];
    assert.deepEqual(found, {
      attacked: undefined,
      forbidden: [],
      handlers: [],
      links: [
        ['https://example.org/', ...safe],
        ['https://tracker.example/pixel.png', ...safe],
      ],
    });
    assert.deepEqual(foreign, []);
    assert.deepEqual(problems, []);
    await turns(page).getByText('<script>window.attacked = true</script>').first().waitFor();
  });

  test('queue position and progress are shown until the first token', async () => {
    server.script = () => ({
      progress: [{ phase: 'queued', position: 3, percent: null, eta_seconds: 4.2 }],
      pauseMs: 300,
      text: 'Done',
    });
    const { page } = await openChat();
    await ask(page, 'go');
    await turns(page).getByText('In the queue · 3 ahead · about 4 s').waitFor();
    await finished(page);
    assert.equal(await page.locator('.progress-line').isVisible(), false);
  });

  test('a refused request says what to do, and trying again works', async () => {
    server.script = () => ({ error: { code: 'queue_full', message: '64 requests wait already' } });
    const { page } = await openChat();
    await ask(page, 'go');
    const card = page.getByRole('alert').filter({ hasText: 'The server is busy' });
    await card.getByText('64 requests wait already').waitFor();
    server.script = () => ({ text: 'Better now' });
    await card.getByRole('button', { name: 'Try again' }).click();
    await turns(page).getByText('Better now').waitFor();
  });

  test('a server that wants a key leads to the settings, and the key is used from then on', async () => {
    server.apiKey = 'sk-test_1';
    const { page } = await openChat();
    const alert = page.getByRole('alert').filter({ hasText: 'wants an API key' });
    await alert.getByRole('button', { name: 'Open settings' }).click();
    await page.getByLabel('API key').fill('sk-test_1');
    await page.keyboard.press('Tab');
    await alert.waitFor({ state: 'detached' });
    await page.getByRole('button', { name: 'Close settings' }).click();
    await ask(page, 'go');
    await turns(page).getByText('Hello.').waitFor();
  });

  test('sampling settings go with the request, survive a reload, and refuse nonsense beside the field', async () => {
    const { page } = await openChat();
    await page.getByRole('button', { name: 'Settings', exact: true }).click();
    await page.getByRole('spinbutton', { name: 'Temperature' }).fill('0.3');
    await page.getByRole('spinbutton', { name: 'Top k' }).fill('9999');
    await page.getByText('Enter a number from 1 to 200.').waitFor();
    await page.getByLabel('System prompt').fill('Answer in French.');
    await page.reload();
    await ask(page, 'go');
    await finished(page);
    const request = server.sent('response.create')[0];
    assert.equal(request?.temperature, 0.3);
    assert.equal(request?.instructions, 'Answer in French.');
    assert.equal(request?.top_k, undefined);
  });

  test('copy puts the answer as written on the clipboard, and export saves it', async () => {
    server.script = () => ({ text: 'Some **bold** text' });
    const { page } = await openChat();
    await ask(page, 'go');
    await finished(page);
    await page.getByRole('button', { name: 'Copy answer' }).click();
    assert.equal(await page.evaluate('navigator.clipboard.readText()'), 'Some **bold** text');
    await page.getByRole('button', { name: 'Export the conversation' }).click();
    const [download] = await Promise.all([
      page.waitForEvent('download'),
      page.getByRole('button', { name: 'Export as Markdown' }).click(),
    ]);
    assert.match(
      readFileSync(await download.path(), 'utf8'),
      /## Assistant\n\nSome \*\*bold\*\* text\n$/,
    );
  });

  test('answers are spoken in sentences, not in tokens', async () => {
    const sentence =
      'The sea in winter is grey and loud and it does not care for visitors at all. ';
    server.script = () => ({ text: sentence.repeat(4), pauseMs: 1 });
    const { page } = await openChat();
    await ask(page, 'go');
    await page
      .locator('#announcer')
      .getByText('The answer has ended')
      .waitFor({ state: 'attached' });
    const lines = await page.locator('#announcer p').allTextContents();
    const spoken = lines.slice(1, -1);
    assert.equal(spoken.join(' '), sentence.repeat(4).trim());
    assert.ok(spoken.length <= 4);
  });

  test('every control has a name, and the first stop of Tab leads to the message box', async () => {
    server.script = () => ({ text: 'Text\n\n```js\n1\n```' });
    const { page } = await openChat();
    await ask(page, 'go');
    await finished(page);
    await page.getByRole('button', { name: 'Settings', exact: true }).click();
    const nameless =
      await page.evaluate(`[...document.querySelectorAll('button, input, select, textarea')]
      .filter((control) => !(control.getAttribute('aria-label') || control.labels?.length || control.textContent.trim()))
      .map((control) => control.outerHTML)`);
    assert.deepEqual(nameless, []);
    await page.reload();
    const first = await page.evaluate(`document.querySelector('a[href], button').className`);
    assert.equal(first, 'skip-link');
    await page.locator('.skip-link').focus();
    await page.keyboard.press('Enter');
    await page.locator('#message:focus').waitFor();
  });

  test('nothing is wider than a phone of 360 pixels', async () => {
    server.script = () => ({
      text: `${'x'.repeat(200)}\n\n| a | b |\n|--|--|\n| ${'wide '.repeat(30)} | ${'y'.repeat(90)} |\n\n\`\`\`\n${'code '.repeat(60)}\n\`\`\``,
    });
    const { page } = await openChat({ width: 360 });
    const width = () => page.evaluate('document.documentElement.scrollWidth');
    assert.equal(await width(), 360);
    await ask(page, 'z'.repeat(300));
    await finished(page);
    assert.equal(await width(), 360);
    await page.getByRole('button', { name: 'Settings', exact: true }).click();
    assert.equal(await width(), 360);
    await page.keyboard.press('Escape');
    await page.getByRole('tab', { name: 'Dashboard' }).click();
    assert.equal(await width(), 360);
  });

  test('the theme follows the system until one is chosen, and the choice stays', async () => {
    const { page } = await openChat({ isDark: true });
    const background = () => page.evaluate('getComputedStyle(document.body).backgroundColor');
    assert.equal(await background(), 'rgb(21, 23, 26)');
    await page.getByRole('button', { name: 'Switch to light theme' }).click();
    assert.equal(await background(), 'rgb(251, 251, 250)');
    await page.reload();
    assert.equal(await background(), 'rgb(251, 251, 250)');
  });

  test('the dashboard draws what /metrics counts and says when the server is gone', async () => {
    let tokens = 0;
    server.metrics = () => {
      tokens += 50;
      return `vllm:num_requests_running 3\nvllm:num_requests_waiting 0\nvllm:kv_cache_usage_perc 0.42\nvllm:generation_tokens_total ${tokens}\n`;
    };
    const { page, context } = await openChat();
    await page.getByRole('tab', { name: 'Chat' }).focus();
    await page.keyboard.press('ArrowRight');
    await page.getByRole('heading', { name: 'Serving 3 requests, none waiting' }).waitFor();
    await page
      .getByRole('img', { name: /^Requests, last \d min. Now: running 3, waiting 0/ })
      .waitFor();
    await page.getByRole('img', { name: /^Key\/value cache in use.* 42 %/ }).waitFor();
    await page.getByRole('img', { name: /^Tokens per second.*Now: generated \d/ }).waitFor();
    await context.setOffline(true);
    await page.getByRole('heading', { name: 'No answer from the server' }).waitFor();
    await context.setOffline(false);
    await page.getByRole('heading', { name: 'Serving 3 requests, none waiting' }).waitFor();
  });

  test('a new chat starts empty and a forgotten answer does not stop the next question', async () => {
    server.script = ({ input }) => ({ text: `Turns: ${input.length}` });
    const { page } = await openChat();
    await ask(page, 'one');
    await finished(page);
    server.forget();
    await ask(page, 'two');
    await turns(page).getByText('Turns: 3').waitFor();
    await page.getByRole('button', { name: 'New chat' }).click();
    await page.getByRole('heading', { name: 'What is on your mind?' }).waitFor();
    assert.equal(await answers(page).count(), 0);
  });
});
