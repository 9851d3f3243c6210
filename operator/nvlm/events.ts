/**
 * Events of an NVLMDeployment, for `kubectl describe`. They are written beside the reconciles, one after the other, and the same one
 * not again within ten minutes: an API server that is slow must not hold up what the events are about.
 */
import { OPERATOR_NAME } from '#charts/labels.ts';
import type { Reason } from '#crds/conditions.ts';
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import { microTime } from '../kube/lease.ts';
import { collectionPath, RESOURCES } from '../kube/resource.ts';
import type { ControllerContext } from './context.ts';

const repeatMs = 600_000;
const noteLength = 1024;
/** More than so many that wait are news of yesterday: the oldest are dropped. */
const maxWaiting = 2000;

export type EventReason = Reason | 'Created' | 'Drained' | 'Deleted' | 'Scaled' | 'NameTaken';

type EventContext = Pick<ControllerContext, 'client' | 'identity' | 'now' | 'log'>;

interface Waiting {
  readonly namespace: string;
  readonly reason: EventReason;
  readonly body: object;
}

export class EventRecorder {
  readonly #context: EventContext;
  readonly #recordedAt = new Map<string, number>();
  #sweptAt = 0;
  #waiting: Waiting[] = [];
  #writing: Promise<void> | undefined;

  constructor(context: EventContext) {
    this.#context = context;
  }

  /** An event that cannot be written is logged. */
  record(
    { metadata, apiVersion, kind }: NVLMDeployment,
    type: 'Normal' | 'Warning',
    reason: EventReason,
    action: string,
    note: string,
  ): void {
    const { identity, now } = this.#context;
    const id = `${metadata.uid} ${reason} ${note}`;
    const at = now().getTime();
    this.#sweep(at);
    if (at - (this.#recordedAt.get(id) ?? Number.NEGATIVE_INFINITY) <= repeatMs) return;
    this.#recordedAt.set(id, at);
    const { name, namespace, uid, resourceVersion } = metadata;
    this.#waiting.push({
      namespace,
      reason,
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
    });
    if (this.#waiting.length > maxWaiting) this.#waiting = this.#waiting.slice(-maxWaiting);
    this.#writing ??= this.#write();
  }

  /** Resolves when all that was recorded is written or given up. */
  async flush(): Promise<void> {
    await this.#writing;
  }

  async #write(): Promise<void> {
    const { client, log } = this.#context;
    for (let next = this.#waiting.shift(); next; next = this.#waiting.shift()) {
      const { namespace, reason, body } = next;
      try {
        await client.request({
          method: 'POST',
          path: collectionPath(RESOURCES.event, namespace),
          body,
          timeoutMs: 5000,
        });
      } catch (error) {
        log('warn', 'an event could not be written', { reason, error: String(error) });
      }
    }
    this.#writing = undefined;
  }

  /** Forgets what may be told again, now and then. */
  #sweep(at: number): void {
    if (at - this.#sweptAt < repeatMs / 10) return;
    this.#sweptAt = at;
    for (const [key, recordedAt] of this.#recordedAt) {
      if (at - recordedAt > repeatMs) this.#recordedAt.delete(key);
    }
  }
}
