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
  /** Where the HPA reads the queue depth; custom.metrics.k8s.io when absent. */
  readonly queueMetricsApi?: 'custom' | 'external';
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
  readonly logLevel?: string;
  /** More options of the operator, as `--name=value`. */
  readonly extraArgs?: readonly string[];
  readonly imagePullSecrets?: readonly { readonly name: string }[];
  readonly resources?: object;
  readonly priorityClassName?: string;
  readonly nodeSelector?: Readonly<Record<string, string>>;
  readonly tolerations?: readonly object[];
  readonly affinity?: object;
  readonly podAnnotations?: Readonly<Record<string, string>>;
  readonly serviceAccountAnnotations?: Readonly<Record<string, string>>;
  /** Lets a Prometheus operator read the operator's metrics. */
  readonly podMonitor?: {
    readonly interval: string;
    readonly labels: Readonly<Record<string, string>>;
  };
  /** A Grafana dashboard, with the labels that Grafana's sidecar selects by. */
  readonly dashboard?: { readonly labels: Readonly<Record<string, string>> };
}
