/** Who owns which field of an object, from `metadata.managedFields` (the FieldsV1 format of server-side apply). */
import type { KubeObject, ManagedFields } from './resource.ts';

/** Steps into an object: a name, or the element of a list by its keys or its value. */
export type FieldPath = readonly string[];

export interface ForeignField {
  readonly manager: string;
  readonly path: FieldPath;
}

/** Leaves of a FieldsV1 tree; `f:` names a field, `k:` and `v:` an element of a list. */
export function fieldPaths(fields: Readonly<Record<string, unknown>> | undefined): FieldPath[] {
  if (fields === undefined) return [];
  const leaves: FieldPath[] = [];
  const walk = (node: Readonly<Record<string, unknown>>, path: FieldPath): void => {
    const children = Object.entries(node).filter(([name]) => name !== '.');
    if (children.length === 0) leaves.push(path);
    for (const [name, child] of children) {
      walk(child as Readonly<Record<string, unknown>>, [...path, name.replace(/^f:/, '')]);
    }
  };
  walk(fields, []);
  return leaves.filter((path) => path.length > 0);
}

/** `spec.template.containers[name=engine].image`, as people write it. */
export function showPath(path: FieldPath): string {
  return path
    .map((step) => {
      if (step.startsWith('k:')) {
        const keys = JSON.parse(step.slice(2)) as Record<string, unknown>;
        return `[${Object.entries(keys)
          .map(([name, value]) => `${name}=${value}`)
          .join(',')}]`;
      }
      if (step.startsWith('v:')) return `[${step.slice(2)}]`;
      return `.${step}`;
    })
    .join('')
    .replace(/^\./, '');
}

const entryOf = (object: KubeObject, manager: string): ManagedFields | undefined =>
  object.metadata.managedFields?.find(
    (entry) => entry.manager === manager && entry.operation === 'Apply' && !entry.subresource,
  );

/**
 * Fields of `wanted` that another manager took from `manager` since its last apply: managed by somebody else, not by us, and at
 * another value than ours. Status and system fields are not looked at.
 */
export function findForeignFields(
  live: KubeObject,
  wanted: KubeObject,
  manager: string,
): ForeignField[] {
  const own = new Set(fieldPaths(entryOf(live, manager)?.fieldsV1).map(String));
  const found: ForeignField[] = [];
  for (const entry of live.metadata.managedFields ?? []) {
    if (entry.manager === manager || entry.subresource === 'status') continue;
    for (const path of fieldPaths(entry.fieldsV1)) {
      const ours = valueAt(wanted, path);
      if (ours === undefined || own.has(String(path))) continue;
      if (JSON.stringify(ours) === JSON.stringify(valueAt(live, path))) continue;
      found.push({ manager: entry.manager ?? 'unknown', path });
    }
  }
  return found;
}

/** The value at a path; elements of lists are found by their keys or value. Undefined when there is none. */
export function valueAt(object: unknown, path: FieldPath): unknown {
  let value: unknown = object;
  for (const step of path) {
    if (Array.isArray(value)) {
      const list: readonly unknown[] = value;
      if (step.startsWith('k:')) {
        const keys = Object.entries(JSON.parse(step.slice(2)) as Record<string, unknown>);
        value = list.find((item) =>
          keys.every(([name, wanted]) => (item as Record<string, unknown>)?.[name] === wanted),
        );
      } else if (step.startsWith('v:')) {
        value = list.find((item) => JSON.stringify(item) === step.slice(2));
      } else return undefined;
    } else if (typeof value === 'object' && value !== null) {
      value = (value as Record<string, unknown>)[step];
    } else return undefined;
  }
  return value;
}
