/** Which of a bench's works a command line asks for. */

export interface Named {
  readonly name: string;
}

/** The works whose name contains one of the texts; all without any. Throws RangeError when a text names none. */
export function chooseWorks<T extends Named>(
  works: readonly T[],
  texts: readonly string[],
): readonly T[] {
  for (const text of texts)
    if (!works.some(({ name }) => name.includes(text)))
      throw new RangeError(
        `--work ${text}: expected part of one of: ${works.map(({ name }) => name).join('; ')}.`,
      );
  return works.filter(
    ({ name }) => texts.length === 0 || texts.some((text) => name.includes(text)),
  );
}
