/** Which events tell of a turn: of its plan, and of what its status says that the one before did not. */
import { ANNOTATIONS } from '#charts/labels.ts';
import type { NVLMDeployment, NVLMDeploymentStatus } from '#crds/nvlm-deployment.ts';
import type { Drift } from './children.ts';
import type { EventRecorder } from './events.ts';
import { groupsOf } from './group-set.ts';
import type { GroupsPlan } from './groups.ts';
import type { Observation } from './observe.ts';
import type { PodProblem } from './pod.ts';

export function announcePlan(
  events: EventRecorder,
  { deployment, groupSet }: Observation,
  plan: GroupsPlan,
  revision: string,
): void {
  if (plan.create > 0 || plan.groups > groupsOf(groupSet)) {
    // The same words in every turn that makes some of them: told once.
    const note = `Creating replicas of revision ${revision}, of ${deployment.spec.replicas} that are wanted`;
    events.record(deployment, 'Normal', 'Created', 'Create', note);
  }
  if (plan.drain.length > 0) {
    const note = `Draining ${plan.drain.join(', ')}`;
    events.record(deployment, 'Normal', 'Draining', 'Drain', note);
  }
}

export function announce(
  events: EventRecorder,
  deployment: NVLMDeployment,
  status: NVLMDeploymentStatus,
  problems: readonly PodProblem[],
  drifts: readonly Drift[],
  scaledTo: number | undefined,
): void {
  const before = deployment.status;
  const accepted = status.conditions?.find(({ type }) => type === 'Accepted');
  if (accepted?.status === 'False') {
    events.record(deployment, 'Warning', accepted.reason, 'Judge', accepted.message);
  }
  for (const { reason, message } of problems) {
    events.record(deployment, 'Warning', reason, 'Watch', message);
  }
  for (const { object, manager, fields, isRepaired } of drifts) {
    const note = `${manager} set ${fields.join(', ')} of ${object}${isRepaired ? '; set back' : ''}`;
    events.record(deployment, 'Warning', isRepaired ? 'Repaired' : 'Reported', 'Apply', note);
  }
  if (scaledTo !== undefined) {
    const wake = deployment.metadata.annotations?.[ANNOTATIONS.wake];
    const from = deployment.spec.replicas;
    const [reason, note] =
      scaledTo === 0
        ? (['ScaledToZero', 'Idle: scaling to zero'] as const)
        : from === 0
          ? (['Waking', `Woken by ${wake}`] as const)
          : (['Scaled', `${from} to ${scaledTo} replicas on queue depth`] as const);
    events.record(deployment, 'Normal', reason, 'Scale', note);
  }
  if (before?.phase !== 'Ready' && status.phase === 'Ready') {
    events.record(deployment, 'Normal', 'AllReady', 'Watch', `${status.ready} replicas are ready`);
  }
}
