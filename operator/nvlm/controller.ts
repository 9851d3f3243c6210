/** Reconciles one NVLMDeployment: observe, decide, apply, tell. Level-based: it is given a name, never an event. */
import { describeJob } from '#charts/describe-job.ts';
import { drainSeconds } from '#charts/engine-container.ts';
import { engineObjects } from '#charts/engine-objects.ts';
import { engineRevision } from '#charts/engine-pod.ts';
import { FIELD_MANAGER, FINALIZER } from '#charts/labels.ts';
import { isGrouped } from '#charts/leader-worker-set.ts';
import type { EngineProps } from '#charts/props.ts';
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import { type Clock, systemClock } from '../kube/clock.ts';
import { isConflict, isNotFound } from '../kube/errors.ts';
import { type KubeObject, objectPath } from '../kube/resource.ts';
import { OwnScaler } from '../scaling/own.ts';
import { announce, announcePlan } from './announce.ts';
import { ChildApplier, type Drift, NameTakenError, RefusedError } from './children.ts';
import { type ControllerContext, NVLM_RESOURCE, scalesItself } from './context.ts';
import { type Description, whatIsDescribed } from './describe.ts';
import { EventRecorder } from './events.ts';
import { FailureBackoff } from './failure-backoff.ts';
import { type Feasibility, judgeFeasibility } from './feasibility.ts';
import { carryOutGroups, findGroupProblem, groupRevision, groupsOf } from './group-set.ts';
import { type GroupsPlan, planGroups } from './groups.ts';
import { type Observation, observe } from './observe.ts';
import { findProblem, type PodProblem } from './pod.ts';
import { carryOut } from './pods.ts';
import { scale } from './scale.ts';
import { makeStatus, timeText } from './status.ts';
import { StatusWriter } from './status-writer.ts';
import { Turn } from './turn.ts';

const cacheWaitMs = 200;
const drainPollMs = 1000;
const minDrainMs = 2000;
/** The time of the last request is told in steps of this, so that a busy deployment's status is not written at every scrape. */
const activeStepMs = 30_000;
const nothing = { create: 0, drain: [], undrain: [], delete: [] };

export class NVLMController {
  readonly #context: ControllerContext;
  readonly #children: ChildApplier;
  readonly #events: EventRecorder;
  readonly #statuses: StatusWriter;
  readonly #clock: Clock;
  readonly #ownScaler = new OwnScaler();
  readonly #failures = new FailureBackoff();

  constructor(context: ControllerContext, clock: Clock = systemClock) {
    this.#context = context;
    this.#clock = clock;
    this.#statuses = new StatusWriter(context, clock);
    this.#children = new ChildApplier(context);
    this.#events = new EventRecorder(context);
  }

  /**
   * Brings one NVLMDeployment nearer to its spec. Answers after how many milliseconds to look again, if at all. Throws what should
   * be tried again. `fence` aborts when this process does not lead any more.
   */
  async reconcile(key: string, fence: AbortSignal): Promise<number | undefined> {
    const turn = new Turn(fence, this.#clock);
    const { expectations, depths } = this.#context;
    const seen = observe(this.#context, key);
    if (seen === undefined) {
      expectations.forget(key);
      depths.forget(key);
      this.#children.forget(key);
      this.#ownScaler.forget(key);
      this.#failures.forget(key);
      this.#statuses.forget(key);
      return undefined;
    }
    if (!expectations.isSatisfied(key)) return cacheWaitMs;
    const isDeleting = seen.deployment.metadata.deletionTimestamp !== undefined;
    if (isDeleting) return this.#finalize(seen, turn);
    if (!seen.deployment.metadata.finalizers?.includes(FINALIZER)) {
      await this.#setFinalizers(
        seen,
        [...(seen.deployment.metadata.finalizers ?? []), FINALIZER],
        turn,
      );
      return undefined;
    }
    return this.#serve(seen, turn);
  }

  /** Resolves when the events of past reconciles are written. */
  async flush(): Promise<void> {
    await this.#events.flush();
  }

  async #serve(seen: Observation, turn: Turn): Promise<number | undefined> {
    const { deployment } = seen;
    const { described, attempts } = this.#described(seen);
    const { leaderWorkerSet } = this.#context.available;
    const feasibility = judgeFeasibility(deployment, described, leaderWorkerSet);
    const props = this.#props(deployment, feasibility.weightsBytes);
    const revision = engineRevision(props);
    const problems: PodProblem[] = [];
    let drifts: Drift[] = [];
    let plan: GroupsPlan = { ...nothing, groups: groupsOf(seen.groupSet) };
    let waitMs: number | undefined;
    const refuse = (error: unknown): void => {
      if (!(error instanceof NameTakenError || error instanceof RefusedError)) throw error;
      problems.push({ reason: 'InvalidTemplate', message: error.message });
    };
    try {
      drifts = await this.#children.applyAll(
        seen.key,
        deployment.metadata.uid,
        this.#wantedObjects(props, attempts),
        deployment.spec.driftPolicy,
        turn,
      );
    } catch (error) {
      refuse(error);
    }
    // What is decided next is decided on what was written, unless there is something to tell.
    const isForNextTurn = (): boolean =>
      turn.hasWritten && problems.length === 0 && drifts.length === 0;
    if (isForNextTurn()) return cacheWaitMs;
    if (feasibility.accepted.status !== 'False' && !isHeld(seen, revision, feasibility)) {
      const planned = this.#plan(seen, revision, deployment.spec.replicas);
      const paced = this.#failures.apply(seen.key, seen.barePods, planned);
      plan = paced.plan;
      waitMs = paced.waitMs;
      const { created, drained, refused } = await carryOut(
        this.#context,
        seen,
        plan,
        props,
        revision,
        turn,
      );
      plan = { ...plan, create: created, drain: drained };
      if (refused !== undefined) problems.push(refused);
      const { groups } = plan;
      try {
        drifts.push(
          ...(await carryOutGroups(
            this.#context,
            this.#children,
            seen,
            groups,
            props,
            revision,
            turn,
          )),
        );
      } catch (error) {
        refuse(error);
      }
      if (isForNextTurn()) {
        announcePlan(this.#events, seen, plan, revision);
        return Math.min(cacheWaitMs, waitMs ?? cacheWaitMs);
      }
    }
    if (described.state === 'waiting' && described.problem !== undefined) {
      problems.push(described.problem);
    }
    const ofGroups = findGroupProblem(seen);
    if (ofGroups.problem !== undefined) problems.push(ofGroups.problem);
    problems.push(
      ...seen.pods
        .map(findProblem)
        .filter((problem): problem is PodProblem => problem !== undefined),
    );
    const scaled = await scale(this.#context, this.#ownScaler, seen, turn.fence);
    const untoldMs = await this.#tell(
      seen,
      revision,
      problems,
      feasibility,
      drifts,
      plan,
      scaled.scaledTo,
      turn.fence,
    );
    const isMoving = plan.drain.length > 0 || seen.rolloutPods.some((pod) => pod.isDraining);
    const describedMs = described.state === 'known' ? undefined : described.lookAgainMs;
    const times = [
      isMoving ? drainPollMs : undefined,
      waitMs,
      scaled.lookAgainMs,
      describedMs,
      ofGroups.lookAgainMs,
      untoldMs,
    ];
    const due = times.filter((time) => time !== undefined);
    return due.length === 0 ? undefined : Math.min(...due);
  }

  /** Lets streams finish, deletes the pods, then lets the object go; its children go with it. */
  async #finalize(seen: Observation, turn: Turn): Promise<number | undefined> {
    const { deployment, pods } = seen;
    const finalizers = deployment.metadata.finalizers ?? [];
    if (!finalizers.includes(FINALIZER)) return undefined;
    const { leaderWorkerSet } = this.#context.available;
    const feasibility = judgeFeasibility(
      deployment,
      this.#described(seen).described,
      leaderWorkerSet,
    );
    const props = this.#props(deployment, feasibility.weightsBytes);
    const revision = engineRevision(props);
    const plan = this.#plan(seen, revision, 0);
    const { drained } = await carryOut(this.#context, seen, plan, props, revision, turn);
    const { groups } = plan;
    await carryOutGroups(this.#context, this.#children, seen, groups, props, revision, turn);
    if (pods.length === 0 && groups === 0) {
      await this.#setFinalizers(
        seen,
        finalizers.filter((name) => name !== FINALIZER),
        turn,
      );
      return undefined;
    }
    if (turn.isOver) return cacheWaitMs;
    const done = { ...plan, drain: drained };
    await this.#tell(seen, revision, [], feasibility, [], done, undefined, turn.fence);
    return drainPollMs;
  }

  #plan(seen: Observation, currentRevision: string, wanted: number): GroupsPlan {
    const { spec } = seen.deployment;
    return planGroups({
      pods: seen.barePods,
      leaders: seen.leaders,
      groups: groupsOf(seen.groupSet),
      isGrouped: isGrouped({ spec }),
      wanted,
      currentRevision,
      maxSurge: spec.rollout.maxSurge,
      maxUnavailable: spec.rollout.maxUnavailable,
      drainTimeoutMs: drainSeconds(spec) * 1000,
      minDrainMs,
    });
  }

  /** Without an HPA where it could not read the queue depth: the operator scales then. */
  #wantedObjects(props: EngineProps, attempts: Description['attempts']): readonly KubeObject[] {
    const hasHpa = !scalesItself(this.#context.metricsState());
    const describing = attempts.map((attempt) => describeJob(props, attempt));
    const objects = [...describing, ...engineObjects(props)] as readonly KubeObject[];
    return objects.filter(({ kind }) => hasHpa || kind !== 'HorizontalPodAutoscaler');
  }

  #described({ key, deployment, now }: Observation): Description {
    const { children, describePods, describeTimeoutMs } = this.#context;
    const props = this.#props(deployment, undefined);
    const jobs = children.get('Job')?.by('owner', deployment.metadata.uid) ?? [];
    const pods = describePods.by('describes', key);
    return whatIsDescribed(deployment, props, jobs, pods, now, describeTimeoutMs);
  }

  #props(deployment: NVLMDeployment, weightsBytes: number | undefined): EngineProps {
    const { engineImage, imagePullPolicy, operatorNamespace, available, queueMetricsApi } =
      this.#context;
    const { name, namespace, uid } = deployment.metadata;
    return {
      name,
      namespace,
      uid,
      spec: deployment.spec,
      image: engineImage,
      imagePullPolicy,
      operatorNamespace,
      available,
      queueMetricsApi,
      ...(weightsBytes !== undefined && { weightsBytes }),
    };
  }

  async #setFinalizers(
    { deployment }: Observation,
    finalizers: readonly string[],
    { fence }: Turn,
  ): Promise<void> {
    const { name, namespace, resourceVersion } = deployment.metadata;
    try {
      await this.#context.client.request({
        method: 'PATCH',
        path: objectPath(NVLM_RESOURCE, name, namespace),
        query: { fieldManager: FIELD_MANAGER },
        contentType: 'application/merge-patch+json',
        body: { metadata: { resourceVersion, finalizers } },
        signal: fence,
      });
    } catch (error) {
      // Changed or gone since: the watch brings it here again.
      if (!isConflict(error) && !isNotFound(error)) throw error;
    }
  }

  /** Answers after how many milliseconds what is new may be told, where it was not at once. */
  async #tell(
    seen: Observation,
    revision: string,
    problems: readonly PodProblem[],
    feasibility: Feasibility,
    drifts: readonly Drift[],
    plan: GroupsPlan,
    scaledTo: number | undefined,
    fence: AbortSignal,
  ): Promise<number | undefined> {
    const { metricsState } = this.#context;
    const { deployment, rolloutPods, depth, loading, now } = seen;
    const status = makeStatus({
      deployment,
      pods: rolloutPods,
      podObjects: seen.pods,
      revision,
      problems,
      accepted: feasibility.accepted,
      drifts,
      depth,
      tokensPerSecond: seen.tokensPerSecond,
      hasRoute: seen.hasRoute,
      loading,
      metrics: metricsState(),
      lastActiveTime: this.#lastActiveTime(seen),
      capacity: feasibility.capacity,
      model: feasibility.model,
      now,
    });
    const untoldMs = await this.#statuses.write(seen.key, deployment, status, fence);
    announcePlan(this.#events, seen, plan, revision);
    announce(this.#events, deployment, status, problems, drifts, scaledTo);
    return untoldMs;
  }

  #lastActiveTime({ deployment, idleMs, now }: Observation): string | undefined {
    const before = deployment.status?.lastActiveTime;
    if (idleMs === undefined) return before;
    const at = now.getTime() - idleMs;
    const isRecent = before !== undefined && at - Date.parse(before) < activeStepMs;
    return isRecent ? before : timeText(new Date(at));
  }
}

/** New replicas wait for the description of their model; those that are there are served meanwhile. */
function isHeld(
  { deployment, pods, groupSet }: Observation,
  revision: string,
  { isWaiting }: Feasibility,
): boolean {
  if (!isWaiting) return false;
  // An engine that cannot run in several pods would end again and again.
  if (isGrouped(deployment)) return groupRevision(groupSet) !== revision;
  return pods.length === 0;
}
