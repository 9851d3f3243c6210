/** `npm run plugin -- [DIR]`: `kubectl nvlm` as one file without a checkout, to be put into a folder of PATH. Runs on Node 22.15 or later. */
import { chmodSync, mkdirSync, renameSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { build } from 'esbuild';
import { root } from './build.mjs';

const part = 'KUBECTL_NVLM_PART';
const folder = resolve(process.argv[2] ?? join(root, 'dist'));
const file = join(folder, 'kubectl-nvlm');
mkdirSync(folder, { recursive: true });
await build({
  stdin: {
    contents: `if (process.env.${part} === 'chat') await import('./engine/chat/main.ts');
else await import('./operator/plugin/main.ts');`,
    resolveDir: root,
  },
  plugins: [
    {
      name: 'the chat is in the same file',
      setup: ({ onLoad }) =>
        onLoad({ filter: /operator[\\/]plugin[\\/]chat-program\.ts$/ }, () => ({
          contents: `export const chatProgram = { file: import.meta.filename, environment: { ${part}: 'chat' } };`,
        })),
    },
  ],
  bundle: true,
  platform: 'node',
  format: 'esm',
  target: 'node22',
  legalComments: 'inline',
  logLevel: 'warning',
  logOverride: { 'empty-import-meta': 'silent' },
  banner: {
    // Packages in CommonJS call require of Node's own modules.
    js: `#!/usr/bin/env node
import { createRequire as createRequireOfFile } from 'node:module';
const require = createRequireOfFile(import.meta.url);`,
  },
  outfile: `${file}.new`,
});
chmodSync(`${file}.new`, 0o755);
renameSync(`${file}.new`, file);
console.log(`${file}: put it into a folder of PATH, then: kubectl nvlm --help`);
