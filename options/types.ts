/** How option values are written, and what they are read as. Every reader throws a plain Error that says what was expected. */

export interface OptionType<T> {
  /** Shown in help, e.g. `N`, `MS`, `SIZE`. */
  readonly placeholder: string;
  read(text: string): T;
}

const expected = (what: string, text: string): Error =>
  new Error(`expected ${what}, got '${text}'`);

export const text: OptionType<string> = { placeholder: 'TEXT', read: (value) => value };

export const integer = (min: number, max: number): OptionType<number> => ({
  placeholder: 'N',
  read: (value) => {
    const number = Number(value);
    if (/^-?\d+$/.test(value) && number >= min && number <= max) return number;
    throw expected(`a whole number from ${min} to ${max}`, value);
  },
});

export const number = (min: number, max: number): OptionType<number> => ({
  placeholder: 'X',
  read: (value) => {
    const parsed = Number(value);
    if (/^-?\d+(\.\d+)?$/.test(value) && parsed >= min && parsed <= max) return parsed;
    throw expected(`a number from ${min} to ${max}`, value);
  },
});

export const choice = <const T extends string>(...allowed: readonly T[]): OptionType<T> => ({
  placeholder: allowed.join('|'),
  read: (value) => {
    const found = allowed.find((name) => name.toLowerCase() === value.toLowerCase());
    if (found !== undefined) return found;
    throw expected(`one of ${allowed.join(', ')}`, value);
  },
});

export const onOff: OptionType<boolean> = {
  placeholder: 'on|off',
  read: (value) => {
    if (['on', 'true', '1', ''].includes(value)) return true;
    if (['off', 'false', '0'].includes(value)) return false;
    throw expected('on or off', value);
  },
};

const byteUnits: Readonly<Record<string, number>> = {
  '': 1,
  B: 1,
  K: 2 ** 10,
  KiB: 2 ** 10,
  M: 2 ** 20,
  MiB: 2 ** 20,
  G: 2 ** 30,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
};

function readBytes(value: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)\s*([A-Za-z]*)$/.exec(value);
  const unit = byteUnits[match?.[2] ?? '?'];
  if (match === null || unit === undefined) return undefined;
  const bytes = Math.round(Number(match[1]) * unit);
  return bytes > 0 ? bytes : undefined;
}

export const bytes: OptionType<number> = {
  placeholder: 'SIZE',
  read: (value) => {
    const size = readBytes(value);
    if (size !== undefined) return size;
    throw expected('a size such as 512MiB or 2GiB', value);
  },
};

export type MemoryAmount = { readonly bytes: number } | { readonly share: number };

export const memory: OptionType<MemoryAmount> = {
  placeholder: 'SIZE|N%',
  read: (value) => {
    const percent = Number(/^(\d+(?:\.\d+)?)%$/.exec(value)?.[1]);
    if (percent > 0 && percent <= 100) return { share: percent / 100 };
    const size = readBytes(value);
    if (size !== undefined) return { bytes: size };
    throw expected('a size such as 2GiB, or a share of the free memory such as 30%', value);
  },
};

const durationUnits: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** Milliseconds. */
export const duration: OptionType<number> = {
  placeholder: 'TIME',
  read: (value) => {
    const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(value);
    const unit = durationUnits[match?.[2] ?? ''];
    if (match !== null && unit !== undefined) return Number(match[1]) * unit;
    if (value === '0') return 0;
    throw expected('a duration such as 500ms, 30s or 5m', value);
  },
};

export const list: OptionType<readonly string[]> = {
  placeholder: 'A,B',
  read: (value) =>
    value
      .split(',')
      .map((item) => item.trim())
      .filter((item) => item !== ''),
};
