/** Writes statuses: what is new for whoever waits at once, and how counts go on once a second. */
import { FIELD_MANAGER } from '#charts/labels.ts';
import type { NVLMDeployment, NVLMDeploymentStatus } from '#crds/nvlm-deployment.ts';
import type { Clock } from '../kube/clock.ts';
import { isNotFound } from '../kube/errors.ts';
import type { KubeObject } from '../kube/resource.ts';
import { type ControllerContext, NVLM_RESOURCE } from './context.ts';
import { hasSameHeadline, isSameStatus } from './same-status.ts';

/** Pods of a rollout become ready one by one, and each would be a write and an event for all who watch. */
const countsMs = 1000;

type StatusContext = Pick<ControllerContext, 'client' | 'deployments' | 'expectations'>;

export class StatusWriter {
  readonly #context: StatusContext;
  readonly #clock: Clock;
  readonly #writtenAt = new Map<string, number>();

  constructor(context: StatusContext, clock: Clock) {
    this.#context = context;
    this.#clock = clock;
  }

  forget(key: string): void {
    this.#writtenAt.delete(key);
  }

  /** Answers after how many milliseconds to come again with what was not written now; undefined when nothing is left to tell. */
  async write(
    key: string,
    { apiVersion, kind, metadata, status: previous }: NVLMDeployment,
    status: NVLMDeploymentStatus,
    fence: AbortSignal,
  ): Promise<number | undefined> {
    if (isSameStatus(previous, status)) return undefined;
    const now = this.#clock.now();
    const leftMs = (this.#writtenAt.get(key) ?? Number.NEGATIVE_INFINITY) + countsMs - now;
    if (leftMs > 0 && hasSameHeadline(previous, status)) return leftMs;
    const { client, deployments, expectations } = this.#context;
    const { name, namespace } = metadata;
    try {
      const written = await client.apply<KubeObject>(
        NVLM_RESOURCE,
        { apiVersion, kind, metadata: { name, namespace }, status },
        { fieldManager: FIELD_MANAGER, force: true, subresource: 'status', signal: fence },
      );
      this.#writtenAt.set(key, now);
      // A turn before it comes back would find it changed, and write it again.
      expectations.expectWrite(key, deployments, written);
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
    return undefined;
  }
}
