/** Events of an NVLMDeployment, for `kubectl describe`. The same one is not written again within ten minutes. */
import { OPERATOR_NAME } from '#charts/labels.ts';
import type { Reason } from '#crds/conditions.ts';
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import { microTime } from '../kube/lease.ts';
import { collectionPath, RESOURCES } from '../kube/resource.ts';
import type { ControllerContext } from './context.ts';

const repeatMs = 600_000;
const noteLength = 1024;

export type EventReason = Reason | 'Created' | 'Drained' | 'Deleted' | 'Scaled' | 'NameTaken';

export class EventRecorder {
  readonly #context: ControllerContext;
  readonly #writtenAt = new Map<string, number>();

  constructor(context: ControllerContext) {
    this.#context = context;
  }

  /** Never throws: an event that cannot be written is logged. */
  async record(
    { metadata, apiVersion, kind }: NVLMDeployment,
    type: 'Normal' | 'Warning',
    reason: EventReason,
    action: string,
    note: string,
  ): Promise<void> {
    const { client, identity, now, log } = this.#context;
    const id = `${metadata.uid} ${reason} ${note}`;
    const at = now().getTime();
    for (const [key, writtenAt] of this.#writtenAt) {
      if (at - writtenAt > repeatMs) this.#writtenAt.delete(key);
    }
    if (this.#writtenAt.has(id)) return;
    this.#writtenAt.set(id, at);
    const { name, namespace, uid, resourceVersion } = metadata;
    try {
      await client.request({
        method: 'POST',
        path: collectionPath(RESOURCES.event, namespace),
        body: {
          apiVersion: 'events.k8s.io/v1',
          kind: 'Event',
          metadata: { generateName: `${name}-`, namespace },
          eventTime: microTime(now()),
          type,
          reason,
          action,
          note: note.slice(0, noteLength),
          regarding: { apiVersion, kind, name, namespace, uid, resourceVersion },
          reportingController: `serving.nvlm.dev/${OPERATOR_NAME}`,
          reportingInstance: identity.slice(0, 128),
        },
        timeoutMs: 5000,
      });
    } catch (error) {
      log('warn', 'an event could not be written', { reason, error: String(error) });
    }
  }
}
