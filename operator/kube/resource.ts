/** Kubernetes objects and where the API server keeps them. */

export interface KubeObject {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: KubeMeta;
  readonly [field: string]: unknown;
}

export interface OwnerReference {
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
  readonly controller?: boolean;
  readonly blockOwnerDeletion?: boolean;
}

export interface ManagedFields {
  readonly manager?: string;
  readonly operation?: 'Apply' | 'Update';
  readonly subresource?: string;
  readonly time?: string;
  readonly fieldsV1?: Readonly<Record<string, unknown>>;
}

export interface KubeMeta {
  readonly name: string;
  readonly namespace?: string;
  readonly uid?: string;
  readonly resourceVersion?: string;
  readonly generation?: number;
  readonly creationTimestamp?: string;
  readonly deletionTimestamp?: string;
  readonly deletionGracePeriodSeconds?: number;
  readonly finalizers?: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly ownerReferences?: readonly OwnerReference[];
  readonly managedFields?: readonly ManagedFields[];
}

/** Of a status, as the kinds of Kubernetes write them. */
export interface ObjectCondition {
  readonly type: string;
  readonly status: string;
  readonly reason?: string;
  readonly message?: string;
  /** RFC 3339. */
  readonly lastTransitionTime?: string;
}

export interface KubeList<T extends KubeObject = KubeObject> {
  readonly metadata: {
    readonly resourceVersion?: string;
    readonly continue?: string;
    readonly remainingItemCount?: number;
  };
  readonly items: readonly T[];
}

export interface ResourceType {
  /** Empty for the core group. */
  readonly group: string;
  readonly version: string;
  readonly kind: string;
  readonly plural: string;
  readonly namespaced: boolean;
}

export const apiVersionOf = ({ group, version }: ResourceType): string =>
  group === '' ? version : `${group}/${version}`;

/** All namespaces when `namespace` is absent and the type is namespaced. */
export function collectionPath(type: ResourceType, namespace?: string): string {
  const base = type.group === '' ? `/api/${type.version}` : `/apis/${type.group}/${type.version}`;
  const scope = type.namespaced && namespace !== undefined ? `/namespaces/${namespace}` : '';
  return `${base}${scope}/${type.plural}`;
}

export const objectPath = (type: ResourceType, name: string, namespace?: string): string =>
  `${collectionPath(type, namespace)}/${encodeURIComponent(name)}`;

/** `namespace/name`, or the name of a cluster-scoped object. */
export const keyOf = ({ metadata: { namespace, name } }: Pick<KubeObject, 'metadata'>): string =>
  namespace === undefined ? name : `${namespace}/${name}`;

export function splitKey(key: string): { readonly namespace: string; readonly name: string } {
  const slash = key.indexOf('/');
  return { namespace: key.slice(0, slash), name: key.slice(slash + 1) };
}

const type = (
  group: string,
  version: string,
  kind: string,
  plural: string,
  namespaced = true,
): ResourceType => ({ group, version, kind, plural, namespaced });

/** The types of Kubernetes itself that are read or written here. */
export const RESOURCES = {
  apiService: type('apiregistration.k8s.io', 'v1', 'APIService', 'apiservices', false),
  configMap: type('', 'v1', 'ConfigMap', 'configmaps'),
  customResourceDefinition: type(
    'apiextensions.k8s.io',
    'v1',
    'CustomResourceDefinition',
    'customresourcedefinitions',
    false,
  ),
  endpointSlice: type('discovery.k8s.io', 'v1', 'EndpointSlice', 'endpointslices'),
  event: type('events.k8s.io', 'v1', 'Event', 'events'),
  horizontalPodAutoscaler: type(
    'autoscaling',
    'v2',
    'HorizontalPodAutoscaler',
    'horizontalpodautoscalers',
  ),
  job: type('batch', 'v1', 'Job', 'jobs'),
  lease: type('coordination.k8s.io', 'v1', 'Lease', 'leases'),
  leaderWorkerSet: type('leaderworkerset.x-k8s.io', 'v1', 'LeaderWorkerSet', 'leaderworkersets'),
  namespace: type('', 'v1', 'Namespace', 'namespaces', false),
  networkPolicy: type('networking.k8s.io', 'v1', 'NetworkPolicy', 'networkpolicies'),
  node: type('', 'v1', 'Node', 'nodes', false),
  pod: type('', 'v1', 'Pod', 'pods'),
  podDisruptionBudget: type('policy', 'v1', 'PodDisruptionBudget', 'poddisruptionbudgets'),
  podMonitor: type('monitoring.coreos.com', 'v1', 'PodMonitor', 'podmonitors'),
  secret: type('', 'v1', 'Secret', 'secrets'),
  service: type('', 'v1', 'Service', 'services'),
  subjectAccessReview: type(
    'authorization.k8s.io',
    'v1',
    'SubjectAccessReview',
    'subjectaccessreviews',
    false,
  ),
} as const;

/** The type of an object that a chart made. Throws when it is none of RESOURCES. */
export function resourceOf({
  apiVersion,
  kind,
}: Pick<KubeObject, 'apiVersion' | 'kind'>): ResourceType {
  const found = Object.values(RESOURCES).find(
    (candidate) => candidate.kind === kind && apiVersionOf(candidate) === apiVersion,
  );
  if (found === undefined) throw new Error(`No resource type is known for ${apiVersion} ${kind}`);
  return found;
}
