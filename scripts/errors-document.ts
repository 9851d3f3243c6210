/** docs/errors.md, from the tables that the code throws by. */
import { CACHE_MEMORY_ERRORS } from '#engine/cache/plan-blocks.ts';
import { MODEL_ERRORS } from '#engine/model/errors.ts';
import { ERRORS } from '#engine/protocol/errors.ts';
import { TOKENIZER_ERRORS } from '#engine/tokenizer/errors.ts';
import { CHECKPOINT_ERRORS } from '#engine/weights/errors.ts';
import { KERNEL_ERRORS } from '#kernels/backend.ts';
import { KUBE_ERRORS } from '#operator/kube/errors.ts';

type ErrorTable = Readonly<Record<string, { readonly meaning: string; readonly remedy: string }>>;

/** Codes that end a start or a load, by what they are about. */
const startTables: readonly (readonly [string, ErrorTable])[] = [
  ['Model files, references and downloads', CHECKPOINT_ERRORS],
  ['Models', MODEL_ERRORS],
  ['Tokenizers', TOKENIZER_ERRORS],
  ['Memory of the KV cache', CACHE_MEMORY_ERRORS],
  ['Kernels', KERNEL_ERRORS],
  [
    'Options',
    {
      PARALLELISM_UNSUPPORTED: {
        meaning: 'more accelerators are asked for than the backend of this build uses',
        remedy: 'leave --tensor and --pipeline at 1',
      },
      API_KEYS_MISSING: {
        meaning: 'the file of --api-keys-file cannot be read, or has no key in it',
        remedy:
          'write one key per line into it (on Kubernetes: into the key of the Secret of auth.apiKeysSecretRef), or leave the option out to let everybody in',
      },
      CHAT_TEMPLATE_UNREADABLE: {
        meaning: 'the file of --chat-template cannot be read',
        remedy: 'pass the path of a Jinja file, or chatml, qwen2 or qwen2p0',
      },
    },
  ],
];

export const allCodes = (): string[] => [
  ...Object.keys(ERRORS),
  ...Object.keys(KUBE_ERRORS),
  ...startTables.flatMap(([, table]) => Object.keys(table)),
];

const plainTable = (table: ErrorTable): string =>
  `| code | what happened | what to do |\n|---|---|---|\n${Object.entries(table)
    .map(([code, { meaning, remedy }]) => `| \`${code}\` | ${meaning} | ${remedy} |`)
    .join('\n')}\n`;

export function errorsMarkdown(): string {
  const wire = Object.entries(ERRORS)
    .map(
      ([code, { status, type, meaning, remedy }]) =>
        `| \`${code}\` | ${status} | \`${type}\` | ${meaning} | ${remedy} |`,
    )
    .join('\n');
  const start = startTables.map(([title, table]) => `### ${title}\n\n${plainTable(table)}`);
  return `# Errors

Generated from the tables in the code by \`node scripts/documents.ts\`. A code is stable: once given it is never used for anything else. Every message says what
was expected, what came and what to do.

## On the wire

Over HTTP the body is \`{"error": {"code", "message", "param", "type"}}\` with the status below; in a stream it is the \`error\` of a \`response.failed\` event, or an
\`error\` event where there is no response; a WebSocket that cannot go on is closed after its \`error\` event.

| code | status | type | what happened | what to do |
|---|---|---|---|---|
${wire}

## At the start of an engine

The process prints \`CODE: message\` and ends with exit code 1. Options that cannot be read end it with exit code 2.

${start.join('\n')}
## Between the operator and the API server

These appear in the operator's log; a reconcile that meets one is tried again.

${plainTable(KUBE_ERRORS)}`;
}
