/** The pod of one engine replica. */
import { createHash } from 'node:crypto';
import { API_VERSION, KIND } from '#crds/nvlm-deployment.ts';
import { engineContainer, graceSeconds, type PodRole, shmGibibytes } from './engine-container.ts';
import type { OwnerReference, Pod, PodTemplate } from './kube.ts';
import { API_KEYS_VOLUME, CACHE_VOLUME, engineLabels, LABELS, WORKER_NAME } from './labels.ts';
import { mergePodSpec } from './merge.ts';
import type { EngineProps } from './props.ts';
import { VOLUME_SECURITY } from './security.ts';

/** All products of the A100; the label's value says memory and form. */
export const A100_PRODUCTS = [
  'NVIDIA-A100-SXM4-40GB',
  'NVIDIA-A100-SXM4-80GB',
  'NVIDIA-A100-PCIE-40GB',
  'NVIDIA-A100-80GB-PCIe',
  'NVIDIA-A100-SXM-64GB',
] as const;

export const ownerReference = ({ name, uid }: EngineProps): OwnerReference => ({
  apiVersion: API_VERSION,
  kind: KIND,
  name,
  uid,
  controller: true,
  blockOwnerDeletion: true,
});

export function cacheVolume({ pvc, hostPath, ephemeral }: EngineProps['spec']['model']['cache']) {
  if (pvc !== undefined) return { persistentVolumeClaim: pvc };
  if (hostPath !== undefined)
    return { hostPath: { path: hostPath.path, type: 'DirectoryOrCreate' } };
  return { emptyDir: ephemeral?.size === undefined ? {} : { sizeLimit: ephemeral.size } };
}

/**
 * Optional, because of a Secret that is missing a pod tells nothing: only events of the kubelet do. The engine refuses to start without a
 * key instead, its pod tells why, and a Secret that comes later is found by the next try.
 */
const apiKeysSecret = ({
  name,
  key,
}: NonNullable<EngineProps['spec']['auth']>['apiKeysSecretRef']) => ({
  secretName: name,
  items: [{ key, path: key }],
  optional: true,
});

export const GPU_TAINT = { key: 'nvidia.com/gpu', operator: 'Exists', effect: 'NoSchedule' };

function nodeChoice({ accelerator }: EngineProps['spec']) {
  if (accelerator.nodeSelector !== undefined) return { nodeSelector: accelerator.nodeSelector };
  const values = accelerator.product ?? A100_PRODUCTS;
  const term = {
    matchExpressions: [{ key: 'nvidia.com/gpu.product', operator: 'In', values: [...values] }],
  };
  const required = { nodeSelectorTerms: [term] };
  return {
    affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: required } },
  };
}

/** The pod as it is rolled out, `spec.template` laid over it. */
export function enginePodTemplate(props: EngineProps, role: PodRole = 'serving'): PodTemplate {
  const { name, spec } = props;
  const { accelerator, parallelism, template = {}, auth } = spec;
  const base: PodTemplate['spec'] = {
    containers: [engineContainer(props, role)],
    terminationGracePeriodSeconds: graceSeconds(spec),
    automountServiceAccountToken: false,
    // Variables of Services named nvlm-... would be taken for options of the engine.
    enableServiceLinks: false,
    securityContext: { ...VOLUME_SECURITY, fsGroupChangePolicy: 'OnRootMismatch' },
    ...nodeChoice(spec),
    tolerations: [GPU_TAINT, ...(accelerator.tolerations ?? [])],
    ...(accelerator.runtimeClassName && { runtimeClassName: accelerator.runtimeClassName }),
    volumes: [
      { name: CACHE_VOLUME, ...cacheVolume(spec.model.cache) },
      {
        name: 'shm',
        emptyDir: { medium: 'Memory', sizeLimit: `${shmGibibytes(parallelism.tensor)}Gi` },
      },
      { name: 'tmp', emptyDir: { sizeLimit: '1Gi' } },
      ...(auth === undefined
        ? []
        : [{ name: API_KEYS_VOLUME, secret: apiKeysSecret(auth.apiKeysSecretRef) }]),
    ],
  };
  return {
    metadata: {
      labels: {
        ...template.metadata?.labels,
        ...engineLabels(name),
        ...(role === 'worker' && { [LABELS.name]: WORKER_NAME }),
      },
      annotations: { ...template.metadata?.annotations },
    },
    spec: mergePodSpec(base, template.spec ?? {}),
  };
}

/** Ten hexadecimal digits over what a replica is made from: equal templates are one revision, also after a change and back. */
export function engineRevision(props: EngineProps): string {
  // How long a start may take is learned later than pods are made, and is no reason to replace them.
  const { weightsBytes: _, ...lasting } = props;
  const { pipeline } = props.spec.parallelism;
  const serving = enginePodTemplate(lasting);
  const template =
    pipeline === 1 ? serving : { serving, worker: workerTemplate(lasting), pods: pipeline };
  return createHash('sha256')
    .update(JSON.stringify(sorted(template)))
    .digest('hex')
    .slice(0, 10);
}

/** Nobody sends a key to a worker, so it is given none. */
export function workerTemplate(props: EngineProps): PodTemplate {
  const { auth: _, ...spec } = props.spec;
  return enginePodTemplate({ ...props, spec }, 'worker');
}

function sorted(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(sorted);
  if (typeof value !== 'object' || value === null) return value;
  const entries = Object.entries(value).filter(([, child]) => child !== undefined);
  return Object.fromEntries(
    entries.sort(([a], [b]) => (a < b ? -1 : 1)).map(([key, child]) => [key, sorted(child)]),
  );
}

/** A pod of the template; `podName` is unique in the namespace. */
export function enginePod(
  props: EngineProps,
  template: PodTemplate,
  revision: string,
  podName: string,
): Pod {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: {
      name: podName,
      namespace: props.namespace,
      labels: {
        ...template.metadata.labels,
        [LABELS.revision]: revision,
        [LABELS.traffic]: 'serving',
      },
      annotations: { ...template.metadata.annotations },
      ownerReferences: [ownerReference(props)],
    },
    spec: template.spec,
  };
}
