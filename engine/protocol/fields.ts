/** Checks request bodies against a table of fields: unknown names, wrong types and ranges end in a NvlmError naming the field. */
import { NvlmError } from './errors.ts';

/** Turns one value into T or throws NvlmError; never called with null or undefined. */
export type Field<T> = (value: unknown, path: string) => T;

export type Fields = Readonly<Record<string, Field<unknown>>>;

/** A field that was absent or null is undefined. */
export type Parsed<Table extends Fields> = {
  readonly [Name in keyof Table]: Table[Name] extends Field<infer T> ? T | undefined : never;
};

const describe = (value: unknown): string => {
  if (value === null) return 'null';
  if (Array.isArray(value)) return `a list of ${value.length}`;
  if (typeof value === 'object') return 'an object';
  if (typeof value === 'string') {
    return `the string ${JSON.stringify(value.length > 40 ? `${value.slice(0, 40)}...` : value)}`;
  }
  return String(value);
};

/** The error of a value that does not fit: says what was expected and what came. */
export function invalid(path: string, expected: string, value: unknown): NvlmError {
  return new NvlmError('invalid_request', `${path}: expected ${expected}, got ${describe(value)}`, {
    param: path,
  });
}

export function unsupportedError(path: string, detail: string): NvlmError {
  return new NvlmError(
    'unsupported_parameter',
    `${path} is not supported: ${detail}. Leave it out.`,
    { param: path },
  );
}

export interface NumberRange {
  readonly min?: number;
  readonly max?: number;
  readonly integer?: boolean;
}

/** Finite numbers only: JSON's 1e999 is Infinity and refused, as is any string. */
export function number(range: NumberRange = {}): Field<number> {
  const { min = -Number.MAX_VALUE, max = Number.MAX_VALUE, integer = false } = range;
  const bounds =
    range.min !== undefined && range.max !== undefined
      ? ` from ${range.min} to ${range.max}`
      : range.min !== undefined
        ? ` of at least ${range.min}`
        : '';
  const expected = `${integer ? 'a whole number' : 'a number'}${bounds}`;
  return (value, path) => {
    const fits =
      typeof value === 'number' &&
      Number.isFinite(value) &&
      value >= min &&
      value <= max &&
      (!integer || Number.isSafeInteger(value));
    if (!fits) throw invalid(path, expected, value);
    return value;
  };
}

export const integer = (min: number, max: number = Number.MAX_SAFE_INTEGER): Field<number> =>
  number({ min, max, integer: true });

export const boolean: Field<boolean> = (value, path) => {
  if (typeof value !== 'boolean') throw invalid(path, 'true or false', value);
  return value;
};

export function string(maximumLength = 1 << 20): Field<string> {
  return (value, path) => {
    if (typeof value !== 'string') throw invalid(path, 'a string', value);
    if (value.length > maximumLength) {
      throw invalid(path, `a string of at most ${maximumLength} characters`, value);
    }
    return value;
  };
}

export function oneOf<const T extends string>(...allowed: readonly T[]): Field<T> {
  return (value, path) => {
    if (!allowed.includes(value as T)) throw invalid(path, `one of ${allowed.join(', ')}`, value);
    return value as T;
  };
}

export function listOf<T>(item: Field<T>, maximum: number): Field<readonly T[]> {
  return (value, path) => {
    if (!Array.isArray(value)) throw invalid(path, 'a list', value);
    if (value.length > maximum) throw invalid(path, `at most ${maximum} items`, value);
    return value.map((element, index) => item(element, `${path}[${index}]`));
  };
}

/** An object of exactly the table's fields. */
export function object<Table extends Fields>(table: Table): Field<Parsed<Table>> {
  return (value, path) => parseFields(table, value, path);
}

/** Accepted for the sake of official clients, without effect on the output. */
export const harmless: Field<undefined> = () => undefined;

/** Refused by name unless the value asks for nothing: false, 0, an empty list, or one of `neutral`. */
export function unsupported(detail: string, ...neutral: readonly unknown[]): Field<undefined> {
  return (value, path) => {
    const asksForNothing =
      value === false ||
      (Array.isArray(value) && value.length === 0) ||
      neutral.some((allowed) => JSON.stringify(allowed) === JSON.stringify(value));
    if (!asksForNothing) throw unsupportedError(path, detail);
    return undefined;
  };
}

/** True for a JSON object, not a list and not null. */
export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/**
 * Checks every field of `value`. Throws NvlmError 'invalid_request' | 'unsupported_parameter' | 'unknown_parameter'; the last
 * names the nearest known field.
 */
export function parseFields<Table extends Fields>(
  table: Table,
  value: unknown,
  path = '',
): Parsed<Table> {
  if (!isObject(value)) throw invalid(path === '' ? 'body' : path, 'an object', value);
  const parsed: Record<string, unknown> = {};
  for (const [name, fieldValue] of Object.entries(value)) {
    const fieldPath = path === '' ? name : `${path}.${name}`;
    const field = Object.hasOwn(table, name) ? table[name] : undefined;
    if (field === undefined) throw unknownField(fieldPath, name, Object.keys(table));
    if (fieldValue !== null) parsed[name] = field(fieldValue, fieldPath);
  }
  return parsed as Parsed<Table>;
}

function unknownField(path: string, name: string, known: readonly string[]): NvlmError {
  const shown = name.length > 60 ? `${name.slice(0, 60)}...` : name;
  const nearest = nearestName(shown, known);
  const hint = nearest === undefined ? '' : ` Did you mean \`${nearest}\`?`;
  return new NvlmError('unknown_parameter', `unknown field \`${shown}\`.${hint}`, {
    param: path.slice(0, 200),
  });
}

/** The name with the least edit distance, undefined when none is within half its length. */
export function nearestName(name: string, known: readonly string[]): string | undefined {
  let best: string | undefined;
  let bestDistance = Number.POSITIVE_INFINITY;
  for (const candidate of known) {
    const distance = editDistance(name, candidate);
    if (distance < bestDistance) [best, bestDistance] = [candidate, distance];
  }
  return best !== undefined && bestDistance <= Math.max(1, best.length / 2) ? best : undefined;
}

/** Levenshtein distance, one row at a time. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const current = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      current.push(Math.min(substitution, previous[j]! + 1, current[j - 1]! + 1));
    }
    previous = current;
  }
  return previous[b.length]!;
}
