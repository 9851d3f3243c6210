/** Typed reading of config.json: every number of a model comes from here, and a bad one is named with its file. */
import { ModelError } from './errors.ts';

export interface ConfigReader {
  /** Key as a positive whole number; `fallback` when absent or null, refused without one. */
  count(key: string, fallback?: number): number;
  /** Key as a positive finite number. */
  positive(key: string, fallback?: number): number;
  flag(key: string, fallback: boolean): boolean;
  text(key: string, fallback?: string): string;
  /** A nested object as a reader of its own, undefined when absent or null. */
  section(key: string): ConfigReader | undefined;
  /** The raw value, undefined for null. */
  raw(key: string): unknown;
  /** Throws MODEL_FEATURE_UNSUPPORTED: `key` has a value the model does not support. */
  unsupported(key: string, supported: string): never;
  /** Throws MODEL_CONFIG_INVALID. */
  invalid(key: string, expected: string): never;
}

/** Reads `values`; `where` names file and section in messages. */
export function createConfigReader(
  values: Readonly<Record<string, unknown>>,
  where: string,
): ConfigReader {
  const raw = (key: string): unknown =>
    Object.hasOwn(values, key) ? (values[key] ?? undefined) : undefined;
  const shown = (key: string): string => showValue(raw(key));
  const invalid = (key: string, expected: string): never => {
    throw new ModelError(
      'MODEL_CONFIG_INVALID',
      `${where}: '${key}' must be ${expected}, received ${shown(key)}`,
    );
  };
  const read = <T>(
    key: string,
    fallback: T | undefined,
    expected: string,
    is: (value: unknown) => value is T,
  ): T => {
    const value = raw(key) ?? fallback;
    return is(value) ? value : invalid(key, expected);
  };
  return {
    raw,
    invalid,
    count: (key, fallback) =>
      read(
        key,
        fallback,
        'a whole number of at least 1',
        (value): value is number => Number.isSafeInteger(value) && (value as number) >= 1,
      ),
    positive: (key, fallback) =>
      read(
        key,
        fallback,
        'a positive number',
        (value): value is number => typeof value === 'number' && value > 0 && value < Infinity,
      ),
    flag: (key, fallback) =>
      read(key, fallback, 'true or false', (value): value is boolean => typeof value === 'boolean'),
    text: (key, fallback) =>
      read(key, fallback, 'a string', (value): value is string => typeof value === 'string'),
    section(key) {
      const value = raw(key);
      if (value === undefined) return undefined;
      if (typeof value !== 'object' || Array.isArray(value)) return invalid(key, 'an object');
      return createConfigReader(value as Record<string, unknown>, `${where}, ${key}`);
    },
    unsupported(key, supported) {
      throw new ModelError(
        'MODEL_FEATURE_UNSUPPORTED',
        `${where}: '${key}' is ${shown(key)}, which is not supported; supported: ${supported}`,
      );
    },
  };
}

/** For a message: short, and nesting that would exhaust the stack is not printed. */
function showValue(value: unknown): string {
  try {
    return (JSON.stringify(value) ?? 'nothing').slice(0, 200);
  } catch {
    return 'a value nested too deep to show';
  }
}
