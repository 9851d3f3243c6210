/** Options of the terminal chat, and those it hands on to the engine it starts. */

import {
  environmentName,
  OptionError,
  type OptionTable,
  type OptionValues,
  optional,
  optionLines,
  readOptions,
} from '#options/table.ts';
import { integer, number, text } from '#options/types.ts';
import { SERVE_OPTIONS } from '../options.ts';

const own = <T extends object>(variable: string, option: T) => ({
  ...option,
  variable: `NVLM_CHAT_${variable}`,
});

export const CHAT_OPTIONS = {
  url: own(
    'URL',
    optional(text, 'Engine to talk to, e.g. http://127.0.0.1:8000; default: one is started'),
  ),
  'api-key': own('API_KEY', optional(text, 'Key for the engine at --url')),
  system: own('SYSTEM', optional(text, 'System prompt')),
  'max-tokens': own('MAX_TOKENS', optional(integer(1, 1 << 24), 'Longest answer, in tokens')),
  temperature: own(
    'TEMPERATURE',
    optional(number(0, 2), '0 is greedy; default: what the model recommends'),
  ),
  'top-p': own('TOP_P', optional(number(0, 1), 'Nucleus sampling')),
  seed: own('SEED', optional(integer(0, Number.MAX_SAFE_INTEGER), 'Makes answers repeatable')),
} as const satisfies OptionTable;

/** The chat's engine listens on a free port of this machine for this user alone: these are not for choosing. */
type Withheld = 'host' | 'port' | 'api-key' | 'api-keys-file' | 'cors-origin';
const withheld: readonly string[] = ['host', 'port', 'api-key', 'api-keys-file', 'cors-origin'];

/** Options of the engine that make sense when the chat starts it. */
export const ENGINE_OPTIONS = Object.fromEntries(
  Object.entries(SERVE_OPTIONS).filter(([name]) => !withheld.includes(name)),
) as Omit<typeof SERVE_OPTIONS, Withheld>;

const TABLE = { ...CHAT_OPTIONS, ...ENGINE_OPTIONS };

export interface ChatOptions {
  readonly values: OptionValues<typeof CHAT_OPTIONS>;
  /** Variables for the engine to be started; none of the chat's own. */
  readonly engineEnvironment: Readonly<Record<string, string>>;
}

const isForeign = (variable: string): boolean =>
  /^NVLM_(?:TEST_|SANITIZE$|API_KEY|HOST$|PORT$|CORS_ORIGIN$)/.test(variable);

/** Returns 'help' for --help. Throws OptionError, also for an engine option beside --url, which could have no effect. */
export function readChatOptions(
  argv: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): ChatOptions | 'help' {
  const read = readOptions(TABLE, argv, environment, isForeign);
  if (read === 'help') return 'help';
  const forEngine = [...read.given].filter(([name]) => Object.hasOwn(ENGINE_OPTIONS, name));
  if (read.values.url !== undefined) {
    const idle = forEngine.find(([, { from }]) => from.startsWith('--'));
    if (idle !== undefined) {
      throw new OptionError(
        `--${idle[0]} has no effect on the engine at --url; leave one of them out`,
      );
    }
  } else if (read.values.apiKey !== undefined) {
    throw new OptionError('--api-key needs --url: an engine started by the chat asks for no key');
  }
  const table: OptionTable = ENGINE_OPTIONS;
  const engineEnvironment = Object.fromEntries(
    forEngine.flatMap(([name, { value }]) => {
      const option = table[name];
      return option === undefined ? [] : [[environmentName(name, option), value]];
    }),
  );
  return { values: read.values, engineEnvironment };
}

export function chatHelp(): string {
  return `npm run chat -- [options]

Chat in the terminal. Each option can also be set by its environment variable (docs/options.md). Flags win.

${optionLines(CHAT_OPTIONS)}

Without --url an engine is started for the chat, with these options:

${optionLines(ENGINE_OPTIONS)}
`;
}
