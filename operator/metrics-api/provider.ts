/** Who serves custom.metrics.k8s.io in this cluster: we register ourselves, unless somebody else is there, whom we never overwrite. */
import type { KubeClient } from '../kube/client.ts';
import { isConflict, isNotFound, KubeError } from '../kube/errors.ts';
import { type KubeObject, type OwnerReference, objectPath, RESOURCES } from '../kube/resource.ts';
import { CUSTOM_GROUP, EXTERNAL_GROUP } from './values.ts';

export type ProviderState =
  | { readonly status: 'served'; readonly message: string }
  | { readonly status: 'foreign'; readonly message: string }
  | { readonly status: 'unreachable'; readonly message: string };

interface ServiceName {
  readonly name: string;
  readonly namespace: string;
}

/** A metrics API by its APIServices. */
export interface MetricsApi {
  readonly group: string;
  /** The preferred one first. */
  readonly versions: readonly string[];
}

export const METRICS_APIS = {
  custom: { group: CUSTOM_GROUP, versions: ['v1beta2', 'v1beta1'] },
  external: { group: EXTERNAL_GROUP, versions: ['v1beta1'] },
} as const satisfies Readonly<Record<string, MetricsApi>>;

export interface ProviderOptions extends MetricsApi {
  readonly client: KubeClient;
  readonly service: ServiceName & { readonly port: number };
  readonly fieldManager: string;
  /** ClusterRole of the installation: the APIServices are deleted with it, or discovery of the whole cluster would stay broken. */
  readonly ownerRole: string;
}

interface ApiService extends KubeObject {
  readonly spec: {
    readonly caBundle?: string;
    readonly service?: { readonly name?: string; readonly namespace?: string };
  };
  readonly status?: {
    readonly conditions?: readonly {
      readonly type: string;
      readonly status: string;
      readonly message?: string;
    }[];
  };
}

/** Looks who serves each version, and writes nothing. Throws KubeError. */
export async function inspect(options: ProviderOptions): Promise<ProviderState> {
  return judge(options, await findAll(options));
}

/** Registers ours where nobody serves a version, and keeps the authorities of ours up to date. Throws KubeError. */
export async function register(
  options: ProviderOptions,
  authorityBundle: string,
  signal?: AbortSignal,
): Promise<ProviderState> {
  const { client, group, versions, service, fieldManager, ownerRole } = options;
  const caBundle = Buffer.from(authorityBundle).toString('base64');
  const found = await findAll(options);
  const state = judge(options, found);
  if (state.status === 'foreign') return state;
  const owner = await ownerOf(client, ownerRole);
  for (const [i, version] of versions.entries()) {
    const before = found[i];
    const isOwned = owner === undefined || hasOwner(before, owner);
    if (before?.spec.caBundle === caBundle && isOwned) continue;
    await client.apply(
      RESOURCES.apiService,
      {
        apiVersion: 'apiregistration.k8s.io/v1',
        kind: 'APIService',
        metadata: {
          name: `${version}.${group}`,
          ...(owner && { ownerReferences: [owner] }),
        },
        spec: {
          group,
          version,
          service: { name: service.name, namespace: service.namespace, port: service.port },
          caBundle,
          groupPriorityMinimum: 100,
          versionPriority: 200 - 100 * i,
        },
      },
      // What was not there a moment ago may be somebody else's by now: then a conflict, and not ours by force.
      { fieldManager, force: before !== undefined, ...(signal && { signal }) },
    );
  }
  return state;
}

/**
 * Takes away our APIServices of an API that is not served any more: one that leads nowhere breaks discovery, and with it the deletion of
 * every namespace. Those of others stay. Throws KubeError.
 */
export async function withdraw(
  options: MetricsApi & { readonly client: KubeClient; readonly service: ServiceName },
  signal?: AbortSignal,
): Promise<void> {
  for (const found of await findAll(options)) {
    if (found === undefined || !isOurs(found, options.service)) continue;
    try {
      await options.client.request({
        method: 'DELETE',
        path: objectPath(RESOURCES.apiService, found.metadata.name),
        body: { preconditions: { uid: found.metadata.uid } },
        ...(signal && { signal }),
      });
    } catch (error) {
      // Gone, or made anew by somebody else.
      if (!isNotFound(error) && !isConflict(error)) throw error;
    }
  }
}

function judge(
  { group, versions, service }: ProviderOptions,
  found: readonly (ApiService | undefined)[],
): ProviderState {
  const foreign = found.find((one) => one !== undefined && !isOurs(one, service));
  if (foreign !== undefined) {
    const { namespace, name } = foreign.spec.service ?? {};
    const owner = name === undefined ? 'the API server itself' : `Service ${namespace}/${name}`;
    return {
      status: 'foreign',
      message: `APIService ${foreign.metadata.name} belongs to ${owner}: queue depth is not served, the operator scales by itself. Remove that provider, or run the operator with --metrics-api external.`,
    };
  }
  const available = found[0]?.status?.conditions?.find(({ type }) => type === 'Available');
  if (available?.status === 'True') {
    return { status: 'served', message: `queue_depth is served at ${group}` };
  }
  return {
    status: 'unreachable',
    message: `APIService ${versions[0]}.${group} is not available yet: ${available?.message ?? 'the API server has not looked'}`,
  };
}

const findAll = ({ client, group, versions }: MetricsApi & { readonly client: KubeClient }) =>
  Promise.all(versions.map((version) => find(client, `${version}.${group}`)));

/** The authorities that the API server trusts for our Service at this moment, as PEM, of each version; empty where it is not ours. */
export async function registeredAuthorities(options: ProviderOptions): Promise<readonly string[]> {
  return (await findAll(options)).map((found) =>
    found === undefined || !isOurs(found, options.service)
      ? ''
      : Buffer.from(found.spec.caBundle ?? '', 'base64').toString('utf8'),
  );
}

/** Undefined where the role has another name or may not be read: an operator that was not installed by our charts. */
async function ownerOf(client: KubeClient, name: string): Promise<OwnerReference | undefined> {
  const type = {
    group: 'rbac.authorization.k8s.io',
    version: 'v1',
    kind: 'ClusterRole',
    plural: 'clusterroles',
    namespaced: false,
  };
  try {
    const path = objectPath(type, name);
    const { metadata } = (await client.request({ method: 'GET', path })) as KubeObject;
    const { uid = '' } = metadata;
    return { apiVersion: 'rbac.authorization.k8s.io/v1', kind: type.kind, name, uid };
  } catch (error) {
    if (isNotFound(error) || (error instanceof KubeError && error.status === 403)) return undefined;
    throw error;
  }
}

const hasOwner = (state: ApiService | undefined, { uid }: OwnerReference): boolean =>
  state?.metadata.ownerReferences?.some((owner) => owner.uid === uid) ?? false;

async function find(client: KubeClient, name: string): Promise<ApiService | undefined> {
  try {
    const path = objectPath(RESOURCES.apiService, name);
    return (await client.request({ method: 'GET', path })) as ApiService;
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

const isOurs = ({ spec }: ApiService, service: ServiceName): boolean =>
  spec.service?.name === service.name && spec.service?.namespace === service.namespace;
