/** Whether a spec can run on the GPUs it asks for. */
import type { NVLMDeploymentStatus } from '#crds/nvlm-deployment.ts';
import type { Finding } from './status.ts';

export interface Feasibility {
  readonly accepted: Finding;
  readonly weightsBytes?: number;
  readonly capacity: NVLMDeploymentStatus['capacity'];
  readonly model: NVLMDeploymentStatus['model'];
}
