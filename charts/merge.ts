/**
 * Lays a partial pod over another by the merge rules of server-side apply: maps merge, a list of the table merges element by element
 * by its keys, every other list and value is replaced. The keys are those of the Kubernetes API's `x-kubernetes-list-map-keys`.
 */
type Json = unknown;
type JsonObject = Readonly<Record<string, Json>>;

const containerKeys: Readonly<Record<string, readonly string[]>> = {
  env: ['name'],
  ports: ['containerPort', 'protocol'],
  volumeMounts: ['mountPath'],
  volumeDevices: ['devicePath'],
};
/** Path of a list inside a PodSpec -> the fields that tell its elements apart. `*` stands for the element of a list. */
const listKeys = new Map<string, readonly string[]>([
  ['volumes', ['name']],
  ['hostAliases', ['ip']],
  ['imagePullSecrets', ['name']],
  ['topologySpreadConstraints', ['topologyKey', 'whenUnsatisfiable']],
  ['resourceClaims', ['name']],
  ['readinessGates', ['conditionType']],
]);
for (const list of ['containers', 'initContainers']) {
  listKeys.set(list, ['name']);
  for (const [name, keys] of Object.entries(containerKeys)) listKeys.set(`${list}.*.${name}`, keys);
}
/** Defaults of keys that people leave out. */
const keyDefaults: Readonly<Record<string, string>> = { protocol: 'TCP' };

const isObject = (value: Json): value is JsonObject =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** `overlay` wins; null removes a field. Both stay as they are. */
export function mergePodSpec<T extends JsonObject>(base: T, overlay: JsonObject): T {
  return mergeObject(base, overlay, '') as T;
}

function mergeObject(base: JsonObject, overlay: JsonObject, path: string): JsonObject {
  const merged: Record<string, Json> = { ...base };
  for (const [name, value] of Object.entries(overlay)) {
    if (value === null) delete merged[name];
    else merged[name] = mergeValue(merged[name], value, path === '' ? name : `${path}.${name}`);
  }
  return merged;
}

function mergeValue(base: Json, overlay: Json, path: string): Json {
  if (isObject(base) && isObject(overlay)) return mergeObject(base, overlay, path);
  const keys = listKeys.get(path);
  if (keys === undefined || !Array.isArray(base) || !Array.isArray(overlay)) return overlay;
  const idOf = (item: Json): string =>
    JSON.stringify(keys.map((key) => (item as JsonObject)[key] ?? keyDefaults[key]));
  const result: Json[] = [...base];
  for (const item of overlay) {
    const at = result.findIndex((candidate) => idOf(candidate) === idOf(item));
    if (at < 0) result.push(item);
    else result[at] = mergeValue(result[at], item, `${path}.*`);
  }
  return result;
}
