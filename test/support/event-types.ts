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
  // Sent by OpenAI itself, and not declared.
  'store',
  // vLLM's fields of a model card.
  'root',
  'parent',
  'max_model_len',
]);

/** Bytes of tokens are declared in the items of a whole text, not in those of its events. */
const TEXT_EVENTS = /^response\.output_text\.(delta|done)$/;

const dropBytes = (key: string, field: unknown): unknown => (key === 'bytes' ? undefined : field);

const isResponse = (value: unknown): value is { object: 'response' } =>
  (value as { object?: unknown } | null)?.object === 'response';

function withoutExtensions(value: unknown): string {
  return JSON.stringify(
    value,
    function (this: { type?: unknown }, key, field) {
      if (EXTENSIONS.has(key)) return undefined;
      // OpenAI itself sends null until the response ends; the package declares the field absent.
      if (key === 'usage' && field === null) return undefined;
      if (key === 'logprobs' && TEXT_EVENTS.test(String(this.type))) {
        return JSON.parse(JSON.stringify(field, dropBytes));
      }
      // The client computes this field itself.
      return isResponse(field) ? { output_text: '', ...field } : field;
    },
    1,
  );
}

/**
 * Compiles `value satisfies TYPE` for each pair; TYPE is written with `OpenAI` in scope. Fails with the compiler's words. What
 * is missing, mistyped or not declared is an error.
 */
export function assertOfficialTypes(values: readonly { type: string; value: unknown }[]): void {
  // Inside the checkout, so that the package is found.
  const folder = mkdtempSync(resolve('test/wire/.types-'));
  try {
    const checks = values.map(
      ({ type, value }) => `(${withoutExtensions(value)}) satisfies ${type};`,
    );
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
