/** Label selectors, as the API server writes them in a query: equality and set-based requirements. */
export type Labels = Readonly<Record<string, string>>;

/** Throws RangeError on what is no selector. */
export function parseSelector(text: string): (labels: Labels) => boolean {
  const requirements = splitRequirements(text).map(parseRequirement);
  return (labels) => requirements.every((holds) => holds(labels));
}

/** At commas that are not inside parentheses. */
function splitRequirements(text: string): string[] {
  const parts = text.match(/(?:[^,(]|\([^)]*\))+/g) ?? [];
  return parts.map((part) => part.trim()).filter((part) => part !== '');
}

function parseRequirement(text: string): (labels: Labels) => boolean {
  const set = /^(\S+)\s+(in|notin)\s+\(([^)]*)\)$/.exec(text);
  if (set !== null) {
    const [, key = '', operator, list = ''] = set;
    const values = new Set(list.split(',').map((value) => value.trim()));
    return (labels) => {
      const value = labels[key];
      return operator === 'in'
        ? value !== undefined && values.has(value)
        : value === undefined || !values.has(value);
    };
  }
  const equality = /^([^!=\s]+)\s*(==|=|!=)\s*([^\s=!,()]*)$/.exec(text);
  if (equality !== null) {
    const [, key = '', operator, value] = equality;
    return (labels) => (operator === '!=' ? labels[key] !== value : labels[key] === value);
  }
  const existence = /^(!?)([^!=\s,()]+)$/.exec(text);
  if (existence !== null) {
    const [, not, key = ''] = existence;
    return (labels) => Object.hasOwn(labels, key) !== (not === '!');
  }
  throw new RangeError(`Expected a label selector, got ${text}`);
}
