/** What the operator tells of its present state at /metrics, read when it is scraped. */
import type { Watched } from './controllers.ts';
import { registerDeploymentGauges } from './deployment-gauges.ts';
import type { ConcurrencyLimit } from './kube/concurrency-limit.ts';
import type { OptionalKinds } from './kube/discovery.ts';
import type { WorkQueue } from './kube/queue.ts';
import type { ServerTime } from './kube/server-time.ts';
import type { OperatorMetrics } from './metrics.ts';
import type { DepthBook } from './scaling/depth.ts';

export interface GaugeSources {
  readonly isLeader: () => boolean;
  readonly serverTime: Pick<ServerTime, 'offsetMs'>;
  readonly pace: Pick<ConcurrencyLimit, 'limit'>;
  readonly queue: Pick<WorkQueue, 'depth' | 'oldestAgeMs'>;
  readonly watched: Pick<Watched, 'deployments' | 'reflectors'>;
  readonly optionalKinds: Pick<OptionalKinds, 'reflectors'>;
  readonly depths: Pick<DepthBook, 'depthOf'>;
}

export function registerGauges(
  metrics: OperatorMetrics,
  { isLeader, serverTime, pace, queue, watched, optionalKinds, depths }: GaugeSources,
): void {
  metrics.gauge('nvlm_operator_is_leader', '1 on the replica that writes', [], () => [
    [{}, isLeader() ? 1 : 0],
  ]);
  metrics.gauge(
    'nvlm_operator_clock_offset_seconds',
    'The API server’s clock ahead of ours, 0 within a second',
    [],
    () => [[{}, serverTime.offsetMs / 1000]],
  );
  metrics.gauge('nvlm_operator_queue_depth', 'Keys that wait', [], () => [[{}, queue.depth]]);
  metrics.gauge(
    'nvlm_operator_workers',
    'NVLMDeployments that may be worked on at once now',
    [],
    () => [[{}, pace.limit]],
  );
  metrics.gauge(
    'nvlm_operator_queue_oldest_seconds',
    'Age of the key that waits longest',
    [],
    () => [[{}, queue.oldestAgeMs / 1000]],
  );
  metrics.gauge(
    'nvlm_operator_last_event_age_seconds',
    'Since a watch last said anything',
    ['resource'],
    () =>
      [...watched.reflectors, ...optionalKinds.reflectors].map(({ resource, reflector }) => [
        { resource },
        (reflector.lastEventAgeMs ?? 0) / 1000,
      ]),
  );
  registerDeploymentGauges(metrics, watched.deployments, depths);
}
