/** NVLMDeployments of tests: made, read, awaited. */
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import type { KubeClient } from '#operator/kube/client.ts';
import { collectionPath, type KubeList, objectPath, RESOURCES } from '#operator/kube/resource.ts';
import { NVLM_RESOURCE } from '#operator/nvlm/context.ts';
import type { PodObject } from '#operator/nvlm/pod.ts';
import { eventually, type WaitOptions } from '../../../scripts/cluster/processes.ts';

/** As a user writes it: a partial spec. */
export interface SpecPatch {
  readonly [field: string]: unknown;
}

/** HPA steps as fast as its controller looks. */
export const FAST_SCALING = {
  scaleUp: {
    stabilizationWindowSeconds: 0,
    policies: [{ type: 'Pods', value: 100, periodSeconds: 1 }],
  },
  scaleDown: {
    // Longer than a scrape: while a pod joins, the stub's even shares are read one after the other.
    stabilizationWindowSeconds: 4,
    policies: [{ type: 'Pods', value: 100, periodSeconds: 1 }],
  },
} as const;

export class Deployments {
  readonly #client: KubeClient;
  readonly namespace: string;

  constructor(client: KubeClient, namespace = 'default') {
    this.#client = client;
    this.namespace = namespace;
  }

  async create(name: string, spec: SpecPatch = {}): Promise<NVLMDeployment> {
    return (await this.#client.request({
      method: 'POST',
      path: collectionPath(NVLM_RESOURCE, this.namespace),
      body: {
        apiVersion: 'serving.nvlm.dev/v1alpha1',
        kind: 'NVLMDeployment',
        metadata: { name },
        spec: { model: { source: 'hf://nvidia/NVLM-D-72B' }, parallelism: { tensor: 8 }, ...spec },
      },
    })) as NVLMDeployment;
  }

  async get(name: string): Promise<NVLMDeployment> {
    const path = objectPath(NVLM_RESOURCE, name, this.namespace);
    return (await this.#client.request({ method: 'GET', path })) as NVLMDeployment;
  }

  /** A JSON merge patch of the whole object. */
  async patch(name: string, body: object): Promise<NVLMDeployment> {
    return (await this.#client.request({
      method: 'PATCH',
      path: objectPath(NVLM_RESOURCE, name, this.namespace),
      contentType: 'application/merge-patch+json',
      body,
    })) as NVLMDeployment;
  }

  async delete(name: string): Promise<void> {
    const path = objectPath(NVLM_RESOURCE, name, this.namespace);
    await this.#client.request({ method: 'DELETE', path });
  }

  async pods(name: string): Promise<PodObject[]> {
    const list = (await this.#client.request({
      method: 'GET',
      path: collectionPath(RESOURCES.pod, this.namespace),
      query: { labelSelector: `serving.nvlm.dev/deployment=${name}` },
    })) as KubeList<PodObject>;
    return [...list.items];
  }

  /** Until the deployment is as `test` says; the error of a timeout carries its status. */
  async until(
    name: string,
    what: string,
    test: (deployment: NVLMDeployment) => unknown,
    options: WaitOptions = {},
  ): Promise<NVLMDeployment> {
    let seen: NVLMDeployment | undefined;
    await eventually(
      `${name} ${what}`,
      async () => {
        seen = await this.get(name);
        return test(seen);
      },
      { explain: () => JSON.stringify(seen?.status, null, 1), ...options },
    );
    return seen as NVLMDeployment;
  }

  async untilReady(name: string, options?: WaitOptions): Promise<NVLMDeployment> {
    return this.until(
      name,
      'is Ready',
      ({ metadata, status }) =>
        status?.phase === 'Ready' && status.observedGeneration === metadata.generation,
      options,
    );
  }
}
