/** What the operator tells of each NVLMDeployment at /metrics, so that nobody needs kube-state-metrics to alert on one. */
import type { Condition } from '#crds/conditions.ts';
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import { remembered } from './kube/remembered.ts';
import type { OperatorMetrics, Series } from './metrics.ts';
import type { Depth, DepthBook } from './scaling/depth.ts';

interface Seen {
  readonly deployment: NVLMDeployment;
  /** A sum over its pods: made for the gauges that tell of it alone. */
  readonly depth: () => Depth;
}

const subject = ['namespace', 'name'] as const;
type Subject = (typeof subject)[number];

/** Name, what it tells, and the one number of an NVLMDeployment that it is. */
const NUMBERS: readonly (readonly [string, string, (seen: Seen) => number])[] = [
  ['queue_depth', 'Requests that wait', ({ depth }) => depth().waiting],
  [
    'queue_depth_is_stale',
    '1 while some engine has not said lately, or never, what waits',
    ({ depth }) => (depth().isStale ? 1 : 0),
  ],
  [
    'tokens_per_second',
    'Generated tokens a second, a mean of half a minute',
    ({ deployment }) => deployment.status?.tokensPerSecond ?? 0,
  ],
  ['running_requests', 'Requests in the batches of the engines', ({ depth }) => depth().running],
  [
    'desired_replicas',
    'Replicas that are wanted, spec.replicas',
    ({ deployment }) => deployment.spec.replicas,
  ],
  [
    'ready_replicas',
    'Ready replicas of the current revision',
    ({ deployment }) => deployment.status?.readyReplicas ?? 0,
  ],
  [
    'serving_replicas',
    'Replicas of any revision that take requests',
    ({ deployment }) => deployment.status?.servingReplicas ?? 0,
  ],
  [
    'draining_replicas',
    'Replicas that finish their streams before they go',
    ({ deployment }) => deployment.status?.drainingReplicas ?? 0,
  ],
];

const subjectOf = ({ metadata: { namespace, name } }: NVLMDeployment) => ({ namespace, name });

export function registerDeploymentGauges(
  metrics: OperatorMetrics,
  deployments: { readonly list: () => readonly NVLMDeployment[] },
  depths: Pick<DepthBook, 'depthOf'>,
): void {
  // Labels that are the same object at every scrape are written out only once.
  const subjectLabels = remembered(subjectOf);
  for (const [name, help, read] of NUMBERS) {
    metrics.gauge(`nvlm_deployment_${name}`, help, subject, () =>
      deployments.list().map((deployment): Series<Subject> => {
        const { namespace, name } = deployment.metadata;
        const depth = (): Depth => depths.depthOf(`${namespace}/${name}`);
        return [subjectLabels(deployment), read({ deployment, depth })];
      }),
    );
  }
  // Only what holds is a series: a dozen phases and conditions that hold, not forty that may, for each of a thousand deployments.
  const phaseLabels = remembered((deployment: NVLMDeployment) => ({
    ...subjectOf(deployment),
    phase: deployment.status?.phase ?? '',
  }));
  metrics.gauge(
    'nvlm_deployment_phase',
    '1 for the phase that it is in; the others have no series',
    [...subject, 'phase'],
    () =>
      deployments
        .list()
        .filter(({ status }) => status?.phase !== undefined)
        .map((deployment) => [phaseLabels(deployment), 1]),
  );
  const conditionLabels = remembered(
    ({ type, status, reason }: Condition, deployment: NVLMDeployment) => ({
      ...subjectOf(deployment),
      type,
      status,
      reason,
    }),
  );
  metrics.gauge(
    'nvlm_deployment_condition',
    '1 for the status and reason that a condition has; others have no series',
    [...subject, 'type', 'status', 'reason'],
    () =>
      deployments
        .list()
        .flatMap((deployment) =>
          (deployment.status?.conditions ?? []).map(
            (condition) => [conditionLabels(condition, deployment), 1] as const,
          ),
        ),
  );
}
