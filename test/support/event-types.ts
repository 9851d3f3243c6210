/** Recorded wire objects against the declared types of the official package, by its own compiler declarations. */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

/** Fields of ours that the package's types do not have, dropped before the check: excess properties are errors there. */
const EXTENSIONS = new Set([
  'token_ids',
  'prompt_token_ids',
  'stop_reason',
  'prompt_logprobs',
  // Newer than the package's own declaration of a model card.
  'root',
  'parent',
  'max_model_len',
]);

const withoutExtensions = (value: unknown): string =>
  JSON.stringify(value, (key, field) => (EXTENSIONS.has(key) ? undefined : field), 1);

/**
 * Compiles `value satisfies TYPE` for each pair; TYPE is written with `OpenAI` in scope. Fails with the compiler's words. What
 * is missing, mistyped or not declared is an error.
 */
export function assertOfficialTypes(values: readonly { type: string; value: unknown }[]): void {
  // Inside the checkout, so that the package is found.
  const folder = mkdtempSync(resolve('test/wire/.types-'));
  try {
    const checks = values.map(({ type, value }) => `(${withoutExtensions(value)}) satisfies ${type};`);
    writeFileSync(
      join(folder, 'recorded.ts'),
      `import type OpenAI from 'openai';\n${checks.join('\n')}\n`,
    );
    const { status, stdout } = spawnSync(
      resolve('node_modules/.bin/tsc'),
      [
        '--noEmit',
        '--strict',
        '--skipLibCheck',
        '--module',
        'nodenext',
        '--target',
        'esnext',
        '--ignoreConfig',
        join(folder, 'recorded.ts'),
      ],
      { encoding: 'utf8' },
    );
    assert.equal(status, 0, stdout.slice(0, 4000));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
