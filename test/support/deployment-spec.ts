/** What an NVLMDeployment and the props of its charts look like once the API server has filled in the defaults. */
import type { EngineProps } from '#charts/props.ts';
import type { NVLMDeploymentSpec } from '#crds/nvlm-deployment.ts';

/** Everything but the model; `test/cluster/crd.test.ts` holds it against a real API server. */
export const SPEC_DEFAULTS: Omit<NVLMDeploymentSpec, 'model'> = {
  parallelism: { tensor: 1, pipeline: 1 },
  batchPolicy: {
    mode: 'Continuous',
    maxSequences: 64,
    maxQueuedRequests: 256,
    queueTimeout: '60s',
  },
  replicas: 1,
  accelerator: { resourceName: 'nvidia.com/gpu' },
  rollout: { maxSurge: 0, maxUnavailable: 1 },
  drain: {},
  driftPolicy: 'Repair',
};

/** NVLM-D-72B with the defaults, and what `more` says instead of them. */
export const nvlmSpec = (more: Partial<NVLMDeploymentSpec> = {}): NVLMDeploymentSpec => ({
  model: { source: 'hf://nvidia/NVLM-D-72B', dtype: 'bfloat16', cache: {} },
  ...SPEC_DEFAULTS,
  ...more,
});

/** The charts' props of deployment `chat` in namespace `team`, on a cluster without kinds of others. */
export const engineProps = (spec: NVLMDeploymentSpec): EngineProps => ({
  name: 'chat',
  namespace: 'team',
  uid: 'u-1',
  spec,
  image: 'nvlm-engine:test',
  imagePullPolicy: 'Never',
  operatorNamespace: 'nvlm-system',
  available: { podMonitor: false, leaderWorkerSet: false },
});
