/** What would change in an object: paths of values, before and after. Pure. */
import type { KubeObject } from '../kube/resource.ts';

export interface Change {
  readonly path: string;
  readonly before: unknown;
  readonly after: unknown;
}

const bookkeeping = new Set([
  'managedFields',
  'resourceVersion',
  'generation',
  'uid',
  'creationTimestamp',
]);

/** Of everything but the status and what the API server writes itself. */
export function changesBetween(before: KubeObject | undefined, after: KubeObject): Change[] {
  if (before === undefined) return [];
  const { status: _before, ...old } = before;
  const { status: _after, ...young } = after;
  return [...compare(old, young, '')];
}

function* compare(before: unknown, after: unknown, path: string): Generator<Change> {
  if (isPlain(before) && isPlain(after)) {
    for (const key of new Set([...Object.keys(before), ...Object.keys(after)])) {
      if (path === 'metadata' && bookkeeping.has(key)) continue;
      yield* compare(before[key], after[key], path === '' ? key : `${path}.${key}`);
    }
  } else if (Array.isArray(before) && Array.isArray(after) && before.length === after.length) {
    for (const [index, value] of after.entries())
      yield* compare(before[index], value, `${path}[${index}]`);
  } else if (JSON.stringify(before) !== JSON.stringify(after)) yield { path, before, after };
}

const isPlain = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const show = (value: unknown): string => (value === undefined ? 'nothing' : JSON.stringify(value));

export const changeText = ({ path, before, after }: Change): string =>
  `${path}: ${show(before)} -> ${show(after)}`;
