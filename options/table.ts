/** Reads flags and environment by a table of options, and prints the table. Pure: knows no option by name. */
import type { OptionType } from './types.ts';
import { onOff } from './types.ts';

export interface Option<T> {
  readonly type: OptionType<T>;
  /** As the user would write it; undefined: not set. */
  readonly default: string | undefined;
  readonly description: string;
  /** Environment variable, when it is not NVLM_ and the name in capitals. */
  readonly variable?: string;
}

export type OptionTable = Readonly<Record<string, Option<unknown>>>;

export const required = <T>(type: OptionType<T>, fallback: string, description: string) => ({
  type,
  default: fallback as string,
  description,
});
export const optional = <T>(type: OptionType<T>, description: string) => ({
  type,
  default: undefined,
  description,
});

type CamelCase<Name extends string> = Name extends `${infer Head}-${infer Tail}`
  ? `${Head}${Capitalize<CamelCase<Tail>>}`
  : Name;
type Value<O> = O extends { type: OptionType<infer T>; default: infer D }
  ? D extends string
    ? T
    : T | undefined
  : never;
export type OptionValues<Table> = {
  readonly [Name in keyof Table as CamelCase<Name & string>]: Value<Table[Name]>;
};

/** A flag or variable that cannot be read; `message` names it and says what was expected. */
export class OptionError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'OptionError';
  }
}

/** What the user wrote, before it was read. */
export interface GivenOption {
  /** The flag or variable it came from. */
  readonly from: string;
  readonly value: string;
}

export interface ReadOptions<Table> {
  /** Frozen. */
  readonly values: OptionValues<Table>;
  /** By name, those that did not come from their defaults. */
  readonly given: ReadonlyMap<string, GivenOption>;
}

type Environment = Readonly<Record<string, string | undefined>>;

export const environmentName = (name: string, option: Option<unknown>): string =>
  option.variable ?? `NVLM_${name.replaceAll('-', '_').toUpperCase()}`;
const camelCase = (name: string): string =>
  name.replace(/-(\w)/g, (_, letter: string) => letter.toUpperCase());

/**
 * Flags before environment before defaults. `--name value`, `--name=value`, and a bare `--name` for on/off options. Variables
 * that start with NVLM_ must be in the table, unless `isForeign` says that they are somebody else's. Returns 'help' for --help.
 * Throws OptionError.
 */
export function readOptions<Table extends OptionTable>(
  table: Table,
  argv: readonly string[],
  environment: Environment,
  isForeign: (variable: string) => boolean,
): ReadOptions<Table> | 'help' {
  const given = readEnvironment(table, environment, isForeign);
  for (let i = 0; i < argv.length; i++) {
    const argument = argv[i] as string;
    if (argument === '--help' || argument === '-h') return 'help';
    const [, name = '', inline] = /^--([^=]+)(?:=(.*))?$/s.exec(argument) ?? [];
    const option = Object.hasOwn(table, name) ? table[name] : undefined;
    if (option === undefined) {
      const flags = Object.keys(table).map((known) => `--${known}`);
      throw unknownOption(argument.replace(/=.*/s, ''), flags);
    }
    const from = `--${name}`;
    const next = argv[i + 1];
    if (inline !== undefined) given.set(name, { from, value: inline });
    else if (next !== undefined && !next.startsWith('--')) {
      given.set(name, { from, value: next });
      i++;
    } else if ((option.type as unknown) === onOff) given.set(name, { from, value: 'on' });
    else throw new OptionError(`${from} needs a value: ${option.type.placeholder}`);
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
  return { values: Object.freeze(Object.fromEntries(values)) as OptionValues<Table>, given };
}

function readEnvironment(
  table: OptionTable,
  environment: Environment,
  isForeign: (variable: string) => boolean,
): Map<string, GivenOption> {
  const names = new Map(
    Object.entries(table).map(([name, option]) => [environmentName(name, option), name]),
  );
  const given = new Map<string, GivenOption>();
  for (const [variable, value] of Object.entries(environment)) {
    const name = names.get(variable);
    if (name !== undefined && value !== undefined) given.set(name, { from: variable, value });
    else if (name === undefined && variable.startsWith('NVLM_') && !isForeign(variable)) {
      throw unknownOption(variable, [...names.keys()]);
    }
  }
  return given;
}

function unknownOption(name: string, known: readonly string[]): OptionError {
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

/** One option a line, for --help. */
export function optionLines(table: OptionTable): string {
  const width = 34;
  const lines = Object.entries(table).map(([name, option]) => {
    const flag = `--${name} ${option.type.placeholder}`;
    const text = `${option.description}${option.default ? ` (default ${option.default})` : ''}`;
    return flag.length < width - 2
      ? `  ${flag.padEnd(width)}${text}`
      : `  ${flag}\n  ${' '.repeat(width)}${text}`;
  });
  return lines.join('\n');
}

/** A Markdown table, one option a row. */
export function optionRows(table: OptionTable): string {
  const cell = (value: string) => value.replaceAll('|', '\\|');
  const rows = Object.entries(table).map(([name, option]) => {
    const flag = cell(`--${name} ${option.type.placeholder}`);
    const fallback = option.default ? `\`${cell(option.default)}\`` : '';
    return `| \`${flag}\` | \`${environmentName(name, option)}\` | ${fallback} | ${cell(option.description)} |`;
  });
  return `| flag | environment | default | what it does |\n|---|---|---|---|\n${rows.join('\n')}\n`;
}
