/** A deployment with what belongs to it, as a tree of lines. Pure. */
import { LABELS } from '#charts/labels.ts';
import type { NVLMDeployment } from '#crds/nvlm-deployment.ts';
import type { KubeObject } from '../kube/resource.ts';
import { findProblem, isPodReady, type PodObject } from '../nvlm/pod.ts';

export interface EventObject extends KubeObject {
  readonly type?: string;
  readonly reason?: string;
  readonly note?: string;
  readonly eventTime?: string;
}

export interface Seen {
  readonly deployment: NVLMDeployment;
  readonly pods: readonly PodObject[];
  readonly children: readonly KubeObject[];
  /** Any order. */
  readonly events: readonly EventObject[];
}

export interface Node {
  readonly text: string;
  readonly tone?: 'good' | 'bad' | 'dim';
  readonly nodes?: readonly Node[];
}

const lastEvents = 5;
/** The scheduler's messages are long, an engine's last words are several lines; `kubectl describe` has them whole. */
const longestMessage = 160;

function cut(message: string): string {
  const line = message.trim().replaceAll(/\s*\n\s*/g, ' ');
  return line.length <= longestMessage ? line : `${line.slice(0, longestMessage)}…`;
}

export function deploymentTree({ deployment, pods, children, events }: Seen): Node {
  const { metadata, spec, status = {} } = deployment;
  const queue = status.queueDepth === undefined ? '' : `, ${status.queueDepth} waiting`;
  const isGood = status.phase === 'Ready' || status.phase === 'ScaledToZero';
  return {
    text: `${metadata.namespace}/${metadata.name}  ${status.phase ?? 'Unknown'} (${status.reason ?? 'not seen by the operator yet'})  ${status.ready ?? '-'} ready${queue}`,
    tone: isGood ? 'good' : 'bad',
    nodes: [
      { text: modelText(spec, status) },
      ...conditionNodes(deployment),
      ...revisionNodes(pods, status.currentRevision),
      ...children.map(childNode),
      ...eventNodes(events),
    ],
  };
}

function modelText(
  { model, parallelism }: NVLMDeployment['spec'],
  { model: known, capacity }: NonNullable<NVLMDeployment['status']>,
): string {
  const size =
    known?.parameters === undefined ? '' : `, ${(known.parameters / 1e9).toFixed(1)} B parameters`;
  const cache =
    capacity?.maxCachedTokens === undefined
      ? ''
      : `, ${capacity.maxCachedTokens} cached tokens fit`;
  return `model ${model.source} on ${parallelism.tensor * parallelism.pipeline} GPUs a replica${size}${cache}`;
}

/** What is not as it should be; the rest is told by the phase. */
function conditionNodes({ status }: NVLMDeployment): Node[] {
  const isTrouble = ({ type, status: is }: { type: string; status: string }): boolean =>
    ['Degraded', 'Drifted'].includes(type) ? is === 'True' : is !== 'True';
  // The phase on the first line is what Ready says.
  const quiet = new Set(['Drained', 'Progressing', 'ScalingActive', 'Ready']);
  return (status?.conditions ?? [])
    .filter((condition) => isTrouble(condition) && !quiet.has(condition.type))
    .map(({ type, status: is, reason, message }) => ({
      text: `${type}=${is} ${reason}: ${cut(message)}`,
      tone: is === 'Unknown' ? 'dim' : 'bad',
    }));
}

function revisionNodes(pods: readonly PodObject[], current: string | undefined): Node[] {
  const revisions = Map.groupBy(pods, ({ metadata }) => metadata.labels?.[LABELS.revision] ?? '?');
  return [...revisions].map(([revision, members]) => ({
    text: `revision ${revision}${revision === current ? ' (current)' : ' (older)'}  ${members.filter(isPodReady).length}/${members.length} ready`,
    nodes: members.map(podNode),
  }));
}

function podNode(pod: PodObject): Node {
  const { metadata, spec, status } = pod;
  const words = [
    metadata.name,
    metadata.deletionTimestamp !== undefined ? 'Terminating' : (status?.phase ?? 'Pending'),
    metadata.labels?.[LABELS.traffic] === 'draining' ? 'draining' : '',
    spec.nodeName === undefined ? '' : `on ${spec.nodeName}`,
  ].filter((word) => word !== '');
  const problem = findProblem(pod);
  const isReady = isPodReady(pod);
  return {
    text: `${words.join('  ')}${problem === undefined ? '' : `  ${problem.reason}`}`,
    ...(isReady
      ? { tone: 'good' as const }
      : problem === undefined
        ? {}
        : { tone: 'bad' as const }),
  };
}

function childNode({ kind, metadata, spec, status }: KubeObject): Node {
  const name = `${kind} ${metadata.name}`;
  if (kind !== 'HorizontalPodAutoscaler') return { text: name, tone: 'dim' };
  const { minReplicas, maxReplicas } = spec as { minReplicas?: number; maxReplicas?: number };
  const { desiredReplicas = '?' } = (status ?? {}) as { desiredReplicas?: number };
  return { text: `${name}  wants ${desiredReplicas}, between ${minReplicas} and ${maxReplicas}` };
}

function eventNodes(events: readonly EventObject[]): Node[] {
  const newest = [...events]
    .sort((a, b) => ((a.eventTime ?? '') < (b.eventTime ?? '') ? 1 : -1))
    .slice(0, lastEvents);
  if (newest.length === 0) return [];
  const nodes = newest.map(({ type, reason, note, eventTime }) => ({
    text: `${(eventTime ?? '').slice(0, 19)}  ${reason}: ${cut(note ?? '')}`,
    tone: type === 'Warning' ? ('bad' as const) : ('dim' as const),
  }));
  return [{ text: 'events, newest first', nodes }];
}

/** Lines with the branches drawn; `paint` colours a text. */
export function drawTree(
  { text, tone, nodes = [] }: Node,
  paint: (text: string, tone: Node['tone']) => string,
  indent = '',
): string[] {
  const lines = indent === '' ? [paint(text, tone)] : [];
  for (const [index, node] of nodes.entries()) {
    const isLast = index === nodes.length - 1;
    lines.push(`${indent}${isLast ? '└─ ' : '├─ '}${paint(node.text, node.tone)}`);
    const deeper = drawTree(node, paint, `${indent}${isLast ? '   ' : '│  '}`);
    lines.push(...deeper);
  }
  return lines;
}
