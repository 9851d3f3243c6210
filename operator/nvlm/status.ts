/** What is told about an NVLMDeployment: a pure function of what was seen and done. */
import { ANNOTATIONS, engineSelector, selectorText } from '#charts/labels.ts';
import type { Condition, ConditionType, Phase, Reason } from '#crds/conditions.ts';
import type { NVLMDeployment, NVLMDeploymentStatus } from '#crds/nvlm-deployment.ts';
import { splitKey } from '../kube/resource.ts';
import { type Depth, toldFraction } from '../scaling/depth.ts';
import type { EngineLoading } from '../scaling/scrape.ts';
import type { Drift } from './children.ts';
import { coldStartOf } from './cold-start.ts';
import type { MetricsState } from './context.ts';
import type { PodObject, PodProblem } from './pod.ts';
import type { RolloutPod } from './rollout.ts';

/** A finding about one condition, before its time is known. */
export interface Finding {
  readonly status: 'True' | 'False' | 'Unknown';
  readonly reason: Reason;
  readonly message: string;
}

export interface StatusInput {
  readonly deployment: NVLMDeployment;
  readonly pods: readonly RolloutPod[];
  /** The pods themselves, of groups too. */
  readonly podObjects: readonly PodObject[];
  readonly revision: string;
  /** Of pods of the current revision, and of the API server about them. */
  readonly problems: readonly PodProblem[];
  readonly accepted: Finding;
  readonly drifts: readonly Drift[];
  readonly depth: Depth;
  /** Undefined while it is not known; what was told stays then, as long as an engine is ready. */
  readonly tokensPerSecond: number | undefined;
  /** The Service leads to an engine. */
  readonly hasRoute: boolean;
  /** Keys of pods that are loading their model. */
  readonly loading: ReadonlyMap<string, EngineLoading>;
  readonly metrics: MetricsState;
  /** RFC 3339, of the last request seen. */
  readonly lastActiveTime: string | undefined;
  readonly capacity: NVLMDeploymentStatus['capacity'];
  readonly model: NVLMDeploymentStatus['model'];
  readonly now: Date;
}

const count = (pods: readonly RolloutPod[], test: (pod: RolloutPod) => boolean): number =>
  pods.filter(test).length;

/** RFC 3339 in seconds, as Kubernetes writes times. */
export const timeText = (date: Date): string => date.toISOString().replace(/\.\d+Z$/, 'Z');

export function makeStatus(input: StatusInput): NVLMDeploymentStatus {
  const { deployment, pods, revision, depth, lastActiveTime, capacity, model } = input;
  const { spec, metadata, status: previous } = deployment;
  const present = pods.filter((pod) => !pod.isTerminating && !pod.hasFailed);
  const current = present.filter((pod) => pod.revision === revision && !pod.isDraining);
  const readyReplicas = count(current, (pod) => pod.isReady);
  const servingReplicas = count(present, (pod) => pod.isReady && !pod.isDraining);
  const drainingReplicas = count(present, (pod) => pod.isDraining);
  const findings = judge(input, {
    readyReplicas,
    servingReplicas,
    drainingReplicas,
    present,
    current,
  });
  const conditions = Object.entries(findings).map(([type, finding]) =>
    withTime(type as ConditionType, finding, input),
  );
  const wake = metadata.annotations?.[ANNOTATIONS.wake];
  const lastWake = spec.replicas > 0 ? wake : previous?.lastWake;
  const { tokensPerSecond: told = previous?.tokensPerSecond } = input;
  // Nobody is left who could tell that it makes none.
  const isSilent = !present.some((pod) => pod.isReady);
  const tokensPerSecond = isSilent && told !== undefined ? 0 : told;
  const coldStart = coldStartOf(input.podObjects, previous?.coldStart);
  const phase = phaseOf(input, findings, { readyReplicas, drainingReplicas, current });
  return {
    observedGeneration: metadata.generation,
    ...phase,
    conditions,
    replicas: present.length - drainingReplicas,
    updatedReplicas: current.length,
    readyReplicas,
    servingReplicas,
    drainingReplicas,
    ready: `${readyReplicas}/${spec.replicas}`,
    selector: selectorText(engineSelector(metadata.name)),
    currentRevision: revision,
    queueDepth: depth.waiting,
    endpoint: `http://${metadata.name}.${metadata.namespace}.svc`,
    ...(tokensPerSecond !== undefined && { tokensPerSecond }),
    ...(coldStart !== undefined && { coldStart }),
    ...(lastActiveTime !== undefined && { lastActiveTime }),
    ...(lastWake !== undefined && { lastWake }),
    ...(capacity !== undefined && { capacity }),
    ...(model !== undefined && { model }),
  };
}

interface Counts {
  readonly readyReplicas: number;
  readonly servingReplicas: number;
  readonly drainingReplicas: number;
  readonly present: readonly RolloutPod[];
  readonly current: readonly RolloutPod[];
}

type Findings = Record<ConditionType, Finding>;

const yes = (reason: Reason, message: string): Finding => ({ status: 'True', reason, message });
const no = (reason: Reason, message: string): Finding => ({ status: 'False', reason, message });

function judge(input: StatusInput, counts: Counts): Findings {
  const { deployment, accepted, problems, drifts } = input;
  const { spec, metadata } = deployment;
  const { readyReplicas, servingReplicas, drainingReplicas, present, current } = counts;
  const wanted = spec.replicas;
  const needed = Math.max(0, wanted - spec.rollout.maxUnavailable);
  const outdated = present.length - count(present, (pod) => pod.revision === input.revision);
  const worst = problems[0];
  const isDeleting = metadata.deletionTimestamp !== undefined;
  const isComplete = current.length === wanted && readyReplicas === wanted && outdated === 0;
  const route = judgeRoute(input, servingReplicas);
  const progress = `${current.length} of ${wanted} replicas are of revision ${input.revision}, ${readyReplicas} of them ready; ${outdated} of older revisions`;
  return {
    Accepted: accepted,
    ModelCached: judgeModel(input, servingReplicas),
    EnginesAvailable:
      servingReplicas >= Math.max(needed, Math.min(wanted, 1))
        ? yes('Available', `${servingReplicas} replicas serve, ${needed} must`)
        : no(
            'TooFewServing',
            `${servingReplicas} replicas serve, ${Math.max(needed, Math.min(wanted, 1))} must`,
          ),
    Progressing:
      isComplete && drainingReplicas === 0
        ? no('Complete', progress)
        : yes(outdated > 0 ? 'RollingOut' : 'Scaling', progress),
    Drained:
      drainingReplicas === 0
        ? yes('None', 'No replica is draining')
        : no('Draining', `${drainingReplicas} replicas finish their streams`),
    ScalingActive: judgeScaling(deployment, input.metrics),
    MetricsServed: judgeMetrics(input.metrics),
    RouteReady: route,
    Drifted:
      drifts.length === 0
        ? no('None', 'Nobody changed what this deployment owns')
        : yes(
            drifts.some((drift) => drift.isRepaired) ? 'Repaired' : 'Reported',
            drifts
              .map(
                ({ object, manager, fields, isRepaired }) =>
                  `${manager} set ${fields.join(', ')} of ${object}; ${isRepaired ? 'set back' : 'left so'}`,
              )
              .join('. '),
          ),
    Degraded:
      worst === undefined
        ? no('None', 'No replica is in trouble')
        : yes(worst.reason, worst.message),
    Ready: isDeleting
      ? no('Deleting', 'The NVLMDeployment is being deleted')
      : accepted.status === 'False'
        ? no(accepted.reason, accepted.message)
        : wanted === 0
          ? no('ScaledToZero', 'No replica is wanted')
          : isComplete
            ? route.status === 'True'
              ? yes('AllReady', `${readyReplicas} of ${wanted} replicas are ready`)
              : route
            : worst !== undefined
              ? no(worst.reason, worst.message)
              : no(outdated > 0 ? 'RollingOut' : 'NotReady', progress),
  };
}

/** Phases of an engine in which the model is not on its disk yet. */
const downloadPhases = new Set(['waiting', 'downloading', 'extracting']);

const isDownloading = ({ loading }: Pick<StatusInput, 'loading'>): boolean =>
  [...loading.values()].some(({ phase }) => downloadPhases.has(phase));

function judgeModel(input: StatusInput, servingReplicas: number): Finding {
  const progress = [...input.loading]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([pod, loading]) => {
      const percent = Math.round(toldFraction(loading) * 100);
      return `pod ${splitKey(pod).name}: ${loading.phase}, ${percent} %`;
    })
    .join('; ');
  if (isDownloading(input)) return no('Downloading', `Engines fetch the model: ${progress}`);
  if (progress !== '') return yes('Cached', `Engines have the model and load it: ${progress}`);
  if (servingReplicas > 0) return yes('Cached', 'The serving replicas have loaded the model');
  const message = 'No engine has told yet how far it is with the model';
  return { status: 'Unknown', reason: 'NotReady', message };
}

/** Where the operator scales itself, and why. */
const scalingReasons: Partial<Record<MetricsState['status'], Reason>> = {
  foreign: 'ForeignProvider',
  off: 'OwnScaling',
};

function judgeScaling({ spec }: NVLMDeployment, metrics: MetricsState): Finding {
  const { autoscaling, replicas } = spec;
  if (autoscaling === undefined) return no('Fixed', `spec.replicas is ${replicas}`);
  if (replicas === 0) {
    return no(
      'ScaledToZero',
      'A request through the gateway, or a new value of the annotation serving.nvlm.dev/wake, starts a replica',
    );
  }
  const { minReplicas, maxReplicas, targetQueueDepth } = autoscaling;
  return yes(
    scalingReasons[metrics.status] ?? 'HorizontalPodAutoscaler',
    `Between ${Math.max(1, minReplicas)} and ${maxReplicas} replicas, at ${targetQueueDepth} waiting requests each`,
  );
}

function judgeRoute(
  { deployment: { metadata }, hasRoute }: StatusInput,
  servingReplicas: number,
): Finding {
  if (hasRoute) return yes('Routed', `The Service ${metadata.name} leads to ready replicas`);
  return servingReplicas === 0
    ? no('TooFewServing', 'No replica serves')
    : no('NoRoute', `Replicas are ready, and the Service ${metadata.name} leads to none of them`);
}

function judgeMetrics({ status, message }: MetricsState): Finding {
  switch (status) {
    case 'served':
      return yes('Served', message);
    case 'foreign':
      return no('ForeignProvider', message);
    case 'unreachable':
      return no('NotServed', message);
    case 'off':
      return { status: 'Unknown', reason: 'None', message };
  }
}

function withTime(
  type: ConditionType,
  finding: Finding,
  { deployment, now }: StatusInput,
): Condition {
  const before = deployment.status?.conditions?.find((condition) => condition.type === type);
  return {
    type,
    ...finding,
    message: finding.message.slice(0, 4096),
    observedGeneration: deployment.metadata.generation,
    lastTransitionTime:
      before?.status === finding.status ? before.lastTransitionTime : timeText(now),
  };
}

function phaseOf(
  { deployment, problems, pods, revision }: StatusInput,
  findings: Findings,
  {
    readyReplicas,
    drainingReplicas,
    current,
  }: Pick<Counts, 'readyReplicas' | 'drainingReplicas' | 'current'>,
): { readonly phase: Phase; readonly reason: Reason } {
  const { spec, metadata } = deployment;
  const tell = (phase: Phase, finding: Finding) => ({ phase, reason: finding.reason });
  if (metadata.deletionTimestamp !== undefined) return { phase: 'Draining', reason: 'Deleting' };
  if (findings.Accepted.status === 'False') return tell('Failed', findings.Accepted);
  if (spec.replicas === 0) {
    return drainingReplicas > 0
      ? tell('Draining', findings.Drained)
      : { phase: 'ScaledToZero', reason: 'ScaledToZero' };
  }
  if (findings.Ready.status === 'True') {
    return drainingReplicas > 0
      ? tell('Draining', findings.Drained)
      : tell('Ready', findings.Ready);
  }
  const [worst] = problems;
  const isOnlyPending = worst?.reason === 'Unschedulable' && readyReplicas === 0;
  if (isOnlyPending) return { phase: 'Pending', reason: worst.reason };
  if (worst !== undefined) return { phase: 'Degraded', reason: worst.reason };
  if (readyReplicas === 0 && findings.ModelCached.reason === 'Downloading') {
    return tell('Downloading', findings.ModelCached);
  }
  if (findings.Ready.reason === 'NoRoute') return tell('Starting', findings.RouteReady);
  const isRollingOut = pods.some((pod) => pod.revision !== revision && !pod.isTerminating);
  if (isRollingOut || readyReplicas > 0) return tell('Updating', findings.Progressing);
  return { phase: current.length === 0 ? 'Pending' : 'Starting', reason: 'NotReady' };
}
