/**
 * Remakes the pictures of the documents from the real engine: `node scripts/screenshots.ts URL [DIR]`, with an engine that runs at URL.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { launchBrowser, openPage } from '../test/support/browser.ts';

const [address, folder = 'docs/images'] = process.argv.slice(2);
if (address === undefined) {
  console.error('Usage: node scripts/screenshots.ts URL [DIR]; start an engine with npm run demo.');
  process.exit(2);
}
mkdirSync(folder, { recursive: true });

/** Requests in the background, so that the dashboard has something to show. */
async function load(seconds: number): Promise<void> {
  const end = Date.now() + seconds * 1000;
  const one = async (i: number): Promise<void> => {
    while (Date.now() < end) {
      const response = await fetch(`${address}/v1/completions`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ prompt: `Chapter ${i}. The`, max_tokens: 60 + 40 * (i % 3) }),
      });
      await response.text();
      await new Promise((resolve) => setTimeout(resolve, 700 * (i % 4)));
    }
  };
  await Promise.all(Array.from({ length: 10 }, (_, i) => one(i)));
}

const browser = await launchBrowser();
const shots = [
  { name: 'chat', width: 1180, height: 800, isDark: false },
  { name: 'chat-dark', width: 1180, height: 800, isDark: true },
];
for (const { name, ...view } of shots) {
  const { page, context } = await openPage(browser, address, view);
  await page.evaluate(
    `localStorage.setItem('nvlm.settings', JSON.stringify({ sampling: { temperature: 0, max_output_tokens: 220 } }))`,
  );
  await page.reload();
  const ask = async (text: string, index: number): Promise<void> => {
    await page.getByLabel('Message').fill(text);
    await page.keyboard.press('Enter');
    const answer = page.locator('.turn-assistant').nth(index);
    await answer.and(page.locator('[aria-busy=false]')).waitFor({ timeout: 60_000 });
  };
  await ask('Why is the sky blue? Answer in two sentences.', 0);
  await ask('Write a Python function that adds two numbers.', 1);
  await page.screenshot({ path: join(folder, `${name}.png`) });
  await context.close();
}
const { page } = await openPage(browser, address, { width: 1180, height: 800 });
await page.getByRole('tab', { name: 'Dashboard' }).click();
const loading = load(25);
await page.waitForTimeout(22_000);
await page.screenshot({ path: join(folder, 'dashboard.png') });
await loading;
await browser.close();
