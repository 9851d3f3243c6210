/** Server-side apply as far as tests rely on it: maps are merged by field, each field has the manager that set it, lists are one field. */
import type { KubeObject } from '#operator/kube/resource.ts';

type Fields = Readonly<Record<string, unknown>>;
/** Path of a leaf -> who set it. */
export type FieldOwners = ReadonlyMap<string, string>;

/** Those that say which object it is, and those of the server. */
const unowned =
  /^(apiVersion|kind|metadata\.(name|namespace|uid|resourceVersion|managedFields|generation))(\.|$)/;
const isMap = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function leaves(value: unknown, path = ''): [string, unknown][] {
  if (!isMap(value)) return [[path, value]];
  return Object.entries(value).flatMap(([name, child]) =>
    leaves(child, path === '' ? name : `${path}.${name}`),
  );
}

function withLeaf(object: Fields, path: string, value: unknown): Fields {
  const dot = path.indexOf('.');
  if (dot < 0) {
    const { [path]: _old, ...rest } = object;
    return value === undefined ? rest : { ...rest, [path]: value };
  }
  const name = path.slice(0, dot);
  const child = isMap(object[name]) ? object[name] : {};
  return { ...object, [name]: withLeaf(child, path.slice(dot + 1), value) };
}

/** The object after an apply with its owners, or the paths that others own at other values. */
export function applyFields(
  before: KubeObject | undefined,
  owners: FieldOwners,
  body: KubeObject,
  manager: string,
  isForced: boolean,
):
  | { readonly object: KubeObject; readonly owners: FieldOwners }
  | { readonly conflicts: string[] } {
  const now = new Map(leaves(before ?? {}));
  const wanted = leaves(body).filter(([path]) => !unowned.test(path));
  const conflicts = wanted
    .filter(([path, value]) => {
      const owner = owners.get(path);
      const isOther = owner !== undefined && owner !== manager;
      return isOther && JSON.stringify(now.get(path)) !== JSON.stringify(value);
    })
    .map(([path]) => path);
  if (conflicts.length > 0 && !isForced) return { conflicts };
  const paths = new Set(wanted.map(([path]) => path));
  let object: Fields = before ?? body;
  const after = new Map(owners);
  for (const [path, owner] of owners) {
    // What the manager set before and leaves out now goes.
    if (owner !== manager || paths.has(path)) continue;
    object = withLeaf(object, path, undefined);
    after.delete(path);
  }
  for (const [path, value] of wanted) {
    object = withLeaf(object, path, value);
    after.set(path, manager);
  }
  return { object: object as KubeObject, owners: after };
}
