/** Whether requests to a deployment's Service reach an engine: what the cluster's EndpointSlices say. */
import type { KubeObject } from '../kube/resource.ts';

export interface EndpointSlice extends KubeObject {
  readonly endpoints?: readonly {
    readonly addresses?: readonly string[];
    readonly conditions?: { readonly ready?: boolean };
  }[];
}

/** Key of the Service that a slice belongs to: of the NVLMDeployment as well, whose name it bears. */
export function serviceIndex({ kind, metadata: { namespace, labels } }: KubeObject): string[] {
  const service = labels?.['kubernetes.io/service-name'];
  return kind !== 'EndpointSlice' || service === undefined ? [] : [`${namespace}/${service}`];
}

/** An endpoint that does not say is ready, as the API of EndpointSlices has it. */
export const hasReadyEndpoint = (slice: EndpointSlice | undefined): boolean =>
  slice?.endpoints?.some(({ conditions }) => conditions?.ready !== false) ?? false;
