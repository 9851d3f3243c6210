/** The page's files as the engine serves them, built into a folder of the test's own. */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const PAGE_HEADERS = {
  'content-security-policy':
    "default-src 'self'; connect-src 'self'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'",
  'cache-control': 'no-store',
};

const VENDOR: Readonly<Record<string, string>> = {
  'marked.js': 'node_modules/marked/lib/marked.esm.js',
  'dompurify.js': 'node_modules/dompurify/dist/purify.es.mjs',
};
const TYPES: Readonly<Record<string, string>> = {
  html: 'text/html; charset=utf-8',
  js: 'text/javascript; charset=utf-8',
  css: 'text/css; charset=utf-8',
};

export interface PageFile {
  readonly type: string;
  readonly body: Buffer;
}

export interface PageFiles {
  /** The file behind a path of the page, or null. */
  find(path: string): PageFile | null;
  remove(): void;
}

/** Compiles web/ and finds its files by the table of web/README.md. */
export function buildPage(): PageFiles {
  const folder = mkdtempSync(join(tmpdir(), 'nvlm-page-'));
  execFileSync(process.execPath, [
    'node_modules/typescript/bin/tsc',
    '-p',
    'web',
    '--outDir',
    folder,
  ]);
  const fileOf = (path: string): string | null => {
    if (path === '/') return 'web/index.html';
    const [, vendor] = /^\/assets\/vendor\/([\w.-]+)$/.exec(path) ?? [];
    if (vendor !== undefined) return VENDOR[vendor] ?? null;
    const [, name, extension] = /^\/assets\/([\w-]+)\.(js|css)$/.exec(path) ?? [];
    if (name === undefined) return null;
    return extension === 'js' ? join(folder, `${name}.js`) : `web/${name}.css`;
  };
  return {
    find(path) {
      const file = fileOf(path);
      if (file === null || !existsSync(file)) return null;
      const extension = file.slice(file.lastIndexOf('.') + 1);
      return { type: TYPES[extension] ?? TYPES.js!, body: readFileSync(file) };
    },
    remove: () => rmSync(folder, { recursive: true, force: true }),
  };
}
