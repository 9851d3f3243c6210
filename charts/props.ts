/** What charts are made from. */
import type { NVLMDeploymentSpec } from '#crds/nvlm-deployment.ts';

export type ImagePullPolicy = 'Always' | 'IfNotPresent' | 'Never';

export interface EngineProps {
  readonly name: string;
  readonly namespace: string;
  /** Of the NVLMDeployment: it owns what is made. */
  readonly uid: string;
  readonly spec: NVLMDeploymentSpec;
  readonly image: string;
  readonly imagePullPolicy: ImagePullPolicy;
  /** Of the model on disk; the time that a first start may take follows from it. Undefined: not known yet. */
  readonly weightsBytes?: number;
  /** Namespace whose pods may read metrics. */
  readonly operatorNamespace: string;
  /** Kinds that the cluster serves besides those of Kubernetes. */
  readonly available: { readonly podMonitor: boolean; readonly leaderWorkerSet: boolean };
}

export interface OperatorProps {
  readonly namespace: string;
  readonly image: string;
  readonly engineImage: string;
  readonly imagePullPolicy: ImagePullPolicy;
  readonly replicas: number;
  readonly metricsApi: 'custom' | 'external' | 'none';
}
