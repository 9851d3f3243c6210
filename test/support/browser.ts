/** A headless Chromium for tests of the page, where the machine has one. */
import { existsSync } from 'node:fs';
import { type Browser, type BrowserContext, chromium, type Page } from 'playwright-core';

const executablePath = process.env.CHROMIUM_PATH ?? '/usr/bin/chromium';

/** Why tests that need a browser are skipped, or false. Under CI they are not: a gate without a browser fails. */
export const noBrowser: string | false =
  existsSync(executablePath) || process.env.CI !== undefined
    ? false
    : `no Chromium at ${executablePath}; install chromium or set CHROMIUM_PATH`;

export function launchBrowser(): Promise<Browser> {
  return chromium.launch({
    executablePath,
    args: [
      '--no-sandbox',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--no-first-run',
    ],
  });
}

export interface OpenPage {
  readonly page: Page;
  readonly context: BrowserContext;
  /** Uncaught errors and console errors so far, such as violations of the content security policy. */
  readonly problems: string[];
}

/** The page in a context of its own: no storage, cookies or permissions of other tests. */
export async function openPage(
  browser: Browser,
  address: string,
  options: { width?: number; height?: number; isDark?: boolean } = {},
): Promise<OpenPage> {
  const context = await browser.newContext({
    viewport: { width: options.width ?? 1180, height: options.height ?? 800 },
    colorScheme: options.isDark === true ? 'dark' : 'light',
    permissions: ['clipboard-read', 'clipboard-write'],
    acceptDownloads: true,
  });
  const page = await context.newPage();
  page.setDefaultTimeout(10_000);
  const problems: string[] = [];
  page.on('pageerror', (error) => problems.push(error.message));
  page.on('console', (message) => {
    if (message.type() === 'error') problems.push(message.text());
  });
  await page.goto(address);
  return { page, context, problems };
}
