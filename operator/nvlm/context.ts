/** What the controller of NVLMDeployments works with; made in main.ts. */
import type { ImagePullPolicy } from '#charts/props.ts';
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import type { KubeClient } from '../kube/client.ts';
import type { Expectations } from '../kube/expectations.ts';
import type { KubeObject, ResourceType } from '../kube/resource.ts';
import type { Store } from '../kube/store.ts';
import type { DepthBook } from '../scaling/depth.ts';
import type { PodObject } from './pod.ts';
import type { EndpointSlice } from './route.ts';

export const NVLM_RESOURCE: ResourceType = {
  group: 'serving.nvlm.dev',
  version: 'v1alpha1',
  kind: 'NVLMDeployment',
  plural: 'nvlmdeployments',
  namespaced: true,
};

/** Answer of the metrics API's own check; undefined before the first. */
export interface MetricsState {
  readonly status: 'served' | 'foreign' | 'unreachable' | 'off';
  readonly message: string;
}

/** Whether no HPA can read the queue depth, and the operator scales in its place. */
export const scalesItself = ({ status }: MetricsState): boolean =>
  status === 'foreign' || status === 'off';

export interface ControllerContext {
  readonly client: KubeClient;
  readonly deployments: Store<NVLMDeployment & KubeObject>;
  /** Engine pods of all deployments, indexed by 'owner'. */
  readonly pods: Store<PodObject>;
  /** Child objects besides pods by kind, indexed by 'owner'. */
  readonly describePods: Store<PodObject>;
  /** Of the deployments' Services, indexed by 'service'. */
  readonly endpointSlices: Store<EndpointSlice>;
  /** How long a new deployment waits for the description of its model before it starts pods without. */
  readonly describeTimeoutMs: number;
  readonly children: ReadonlyMap<string, Store<KubeObject>>;
  readonly expectations: Expectations;
  readonly depths: DepthBook;
  readonly metricsState: () => MetricsState;
  readonly engineImage: string;
  readonly imagePullPolicy: ImagePullPolicy;
  /** Where HPAs are told to read the queue depth. */
  readonly queueMetricsApi: 'custom' | 'external';
  readonly operatorNamespace: string;
  readonly available: { readonly podMonitor: boolean; readonly leaderWorkerSet: boolean };
  readonly identity: string;
  readonly now: () => Date;
  readonly random: () => number;
  readonly log: (level: 'info' | 'warn' | 'error', message: string, fields: object) => void;
}
