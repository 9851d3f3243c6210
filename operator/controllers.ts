/** The stores, watches and the queue of the operator, tied together: what changes adds the key of its NVLMDeployment. */
import {
  DESCRIBE_NAME,
  ENGINE_NAME,
  LABELS,
  OPERATOR_NAME,
  PORTS,
  WORKER_NAME,
} from '#charts/labels.ts';
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import type { KubeClient } from './kube/client.ts';
import type { OptionalKind } from './kube/discovery.ts';
import type { WorkQueue } from './kube/queue.ts';
import { Reflector, type ReflectorHooks } from './kube/reflector.ts';
import { remembered } from './kube/remembered.ts';
import { type KubeObject, keyOf, RESOURCES, type ResourceType } from './kube/resource.ts';
import { ownerIndex, Store, type StoreChange } from './kube/store.ts';
import type { OperatorMetrics } from './metrics.ts';
import { NVLM_RESOURCE } from './nvlm/context.ts';
import { groupIndex } from './nvlm/observe.ts';
import { isPodReady, type PodObject } from './nvlm/pod.ts';
import { type EndpointSlice, hasReadyEndpoint, serviceIndex } from './nvlm/route.ts';
import type { ScrapeTarget } from './scaling/scraper.ts';

export interface Watched {
  readonly deployments: Store<NVLMDeployment & KubeObject>;
  readonly pods: Store<PodObject>;
  /** Of the Jobs that describe models, indexed by 'describes'. */
  readonly describePods: Store<PodObject>;
  /** Of Services of ours, indexed by 'service'. */
  readonly endpointSlices: Store<EndpointSlice>;
  /** Also of optional kinds: those stores are empty while the cluster does not serve them. */
  readonly children: ReadonlyMap<string, Store<KubeObject>>;
  /** Kinds of children that the cluster may not serve. */
  readonly optionalKinds: readonly OptionalKind[];
  readonly reflectors: readonly {
    readonly resource: string;
    readonly reflector: Reflector<never>;
  }[];
}

export interface WatchOptions {
  readonly client: KubeClient;
  readonly namespace: string | undefined;
  readonly metrics: OperatorMetrics;
  readonly onListenerError: (error: unknown) => void;
}

const childTypes = [
  RESOURCES.service,
  RESOURCES.podDisruptionBudget,
  RESOURCES.networkPolicy,
  RESOURCES.horizontalPodAutoscaler,
  RESOURCES.job,
];

const optionalTypes = [RESOURCES.podMonitor, RESOURCES.leaderWorkerSet];

const childKinds: ReadonlySet<string> = new Set(
  [...childTypes, ...optionalTypes].map(({ kind }) => kind),
);

/** Key of the NVLMDeployment whose model a pod describes. */
function describesIndex({ metadata: { namespace, labels } }: KubeObject): string[] {
  const name = labels?.[LABELS.describes];
  return name === undefined ? [] : [`${namespace}/${name}`];
}

/** Stores and the reflectors that fill them; nothing runs yet. */
export function createWatched({
  client,
  namespace,
  metrics,
  onListenerError,
}: WatchOptions): Watched {
  const reflectors: { resource: string; reflector: Reflector<never> }[] = [];
  const createStore = <T extends KubeObject>(): Store<T> =>
    new Store<T>(
      {
        owner: ownerIndex,
        describes: describesIndex,
        group: groupIndex,
        service: serviceIndex,
      },
      onListenerError,
    );
  const createReflector = <T extends KubeObject>(
    type: ResourceType,
    store: Store<T>,
    labelSelector?: string,
    hooks: ReflectorHooks = metrics.reflectorHooks(type.plural),
  ): Reflector<T> =>
    new Reflector({
      client,
      type,
      store,
      hooks,
      // What others changed of them is found there.
      keepsManagedFields: childKinds.has(type.kind),
      ...(namespace !== undefined && { namespace }),
      ...(labelSelector !== undefined && { labelSelector }),
    });
  const watch = <T extends KubeObject>(type: ResourceType, labelSelector?: string): Store<T> => {
    const store = createStore<T>();
    const reflector = createReflector(type, store, labelSelector);
    reflectors.push({ resource: type.plural, reflector: reflector as unknown as Reflector<never> });
    return store;
  };
  const ours = `${LABELS.managedBy}=${OPERATOR_NAME}`;
  const optionalKinds = optionalTypes.map((type): OptionalKind => {
    const store = createStore<KubeObject>();
    const counted = metrics.reflectorHooks(type.plural);
    return {
      type,
      store,
      createReflector: ({ onRestart }) =>
        createReflector(type, store, ours, {
          ...counted,
          onRestart: (reason, error) => {
            counted.onRestart?.(reason, error);
            onRestart(reason, error);
          },
        }),
    };
  });
  const children = new Map(childTypes.map((type) => [type.kind as string, watch(type, ours)]));
  for (const { type, store } of optionalKinds) children.set(type.kind, store);
  return {
    deployments: watch<NVLMDeployment & KubeObject>(NVLM_RESOURCE),
    pods: watch<PodObject>(RESOURCES.pod, `${LABELS.name} in (${ENGINE_NAME},${WORKER_NAME})`),
    describePods: watch<PodObject>(RESOURCES.pod, `${LABELS.name}=${DESCRIBE_NAME}`),
    // They bear the labels of their Service.
    endpointSlices: watch<EndpointSlice>(RESOURCES.endpointSlice, ours),
    children,
    optionalKinds,
    reflectors,
  };
}

/** Pods change in bursts, several of a deployment and each several times: one turn looks at all that came within so long. */
const podBatchMs = 50;

/** Keys of the NVLMDeployments that own an object. */
const ownersOf = ({ metadata: { namespace, ownerReferences = [] } }: KubeObject): string[] =>
  ownerReferences
    .filter(({ kind }) => kind === NVLM_RESOURCE.kind)
    .map(({ name }) => `${namespace}/${name}`);

/** Adds the key of the NVLMDeployment that a change is about. */
export function connectQueue(
  { deployments, pods, describePods, endpointSlices, children }: Watched,
  queue: WorkQueue,
): void {
  deployments.onChange(({ key, previous, current }) => {
    const isNew = previous === undefined && current !== undefined;
    // A first list, or a re-list, must not hold up an edit.
    queue.add(key, isNew ? 'background' : 'urgent');
  });
  const addOwner = ({ previous, current }: StoreChange<KubeObject>): void => {
    const object = current ?? previous;
    for (const key of object === undefined ? [] : ownersOf(object)) queue.add(key);
  };
  pods.onChange((change) => {
    const object = change.current ?? change.previous;
    for (const key of object === undefined ? [] : [...ownersOf(object), ...groupIndex(object)]) {
      queue.addAfter(key, podBatchMs);
    }
  });
  describePods.onChange(({ previous, current }) => {
    const [key] = describesIndex((current ?? previous) as PodObject);
    if (key !== undefined) queue.add(key);
  });
  endpointSlices.onChange(({ previous, current }) => {
    // Each pod that comes or goes changes its slice; only whether there is a way to any is told.
    if (hasReadyEndpoint(previous) === hasReadyEndpoint(current)) return;
    for (const key of serviceIndex((current ?? previous) as EndpointSlice)) queue.add(key);
  });
  for (const store of children.values()) store.onChange(addOwner);
}

/**
 * Engines that have an address and run. Those press that load their model or finish their streams, and those of a deployment that is
 * scaled by what waits.
 */
export function scrapeTargets({ pods, deployments }: Watched): ScrapeTarget[] {
  return pods.list().flatMap((pod) => {
    const engine = engineOf(pod);
    const deployment = engine && deployments.get(engine.deployment);
    if (engine === undefined || deployment === undefined) return [];
    const isPressing = engine.isPressing || deployment.spec.autoscaling !== undefined;
    return isPressing === engine.isPressing ? [engine] : [{ ...engine, isPressing }];
  });
}

/** Without regard to its deployment. Remembered: thousands of pods are looked at every two seconds, and few change. */
const engineOf = remembered((pod: PodObject): Required<ScrapeTarget> | undefined => {
  const { podIP, phase } = pod.status ?? {};
  const labels = pod.metadata.labels ?? {};
  if (labels[LABELS.name] !== ENGINE_NAME || podIP === undefined || phase !== 'Running')
    return undefined;
  const host = podIP.includes(':') ? `[${podIP}]` : podIP;
  return {
    deployment: `${pod.metadata.namespace}/${labels[LABELS.deployment]}`,
    pod: keyOf(pod),
    url: `http://${host}:${PORTS.engine}/metrics`,
    isPressing: labels[LABELS.traffic] === 'draining' || !isPodReady(pod),
  };
});
