/** Carries out a rollout plan, one write per pod; every write is expected back before the next plan is made. A plan may be left off at any write. */
import { enginePod, enginePodTemplate } from '#charts/engine-pod.ts';
import { ANNOTATIONS, LABELS } from '#charts/labels.ts';
import type { EngineProps } from '#charts/props.ts';
import type { KubeRequest } from '../kube/client.ts';
import { isConflict, isNotFound, KubeError } from '../kube/errors.ts';
import { collectionPath, type KubeObject, objectPath, RESOURCES } from '../kube/resource.ts';
import type { ControllerContext } from './context.ts';
import type { Observation } from './observe.ts';
import type { PodProblem } from './pod.ts';
import type { RolloutPlan } from './rollout.ts';
import type { Turn } from './turn.ts';

export interface CarriedOut {
  readonly created: number;
  /** Names of pods that were taken out of the Service. */
  readonly drained: readonly string[];
  /** What the API server refused about the pods themselves: that is for the status. */
  readonly refused?: PodProblem;
}

const alphabet = 'bcdfghjklmnpqrstvwxz2456789';

export function randomSuffix(random: () => number): string {
  return Array.from({ length: 5 }, () => alphabet[Math.floor(random() * alphabet.length)]).join('');
}

/** Carries out `plan` as far as the turn goes. Throws KubeError for what is not about the pods themselves. */
export async function carryOut(
  context: ControllerContext,
  { key, deployment, pods }: Observation,
  plan: RolloutPlan,
  props: EngineProps,
  revision: string,
  turn: Turn,
): Promise<CarriedOut> {
  const { client, expectations, now } = context;
  const { namespace } = deployment.metadata;
  const write = (request: KubeRequest): Promise<unknown> =>
    turn.write(() => client.request({ ...request, signal: turn.fence }));
  const podPath = (name: string): string => objectPath(RESOURCES.pod, name, namespace);
  const setTraffic = async (name: string, traffic: 'serving' | 'draining'): Promise<void> => {
    const since = traffic === 'draining' ? now().toISOString() : null;
    await ignoreGone(async () => {
      const written = await write({
        method: 'PATCH',
        path: podPath(name),
        contentType: 'application/merge-patch+json',
        body: {
          metadata: {
            labels: { [LABELS.traffic]: traffic },
            annotations: { [ANNOTATIONS.drainingSince]: since },
          },
        },
      });
      expectations.expectWrite(key, context.pods, written as KubeObject);
    });
  };
  const drained: string[] = [];
  for (const name of plan.undrain) {
    if (turn.isOver) return { created: 0, drained };
    await setTraffic(name, 'serving');
  }
  for (const name of plan.drain) {
    if (turn.isOver) return { created: 0, drained };
    await setTraffic(name, 'draining');
    drained.push(name);
  }
  for (const name of plan.delete) {
    if (turn.isOver) return { created: 0, drained };
    const pod = pods.find((candidate) => candidate.metadata.name === name);
    if (pod === undefined) continue;
    const { uid, resourceVersion } = pod.metadata;
    await ignoreGone(async () => {
      await write({
        method: 'DELETE',
        path: podPath(name),
        // As it was seen: one that has become ready since is planned with again.
        body: { preconditions: { uid, resourceVersion } },
      });
      expectations.expectDelete(key, context.pods, pod);
    });
  }
  if (plan.create === 0) return { created: 0, drained };
  const template = enginePodTemplate(props);
  let created = 0;
  for (; created < plan.create && !turn.isOver; created++) {
    const name = `${props.name}-${revision}-${randomSuffix(context.random)}`;
    try {
      const pod = await write({
        method: 'POST',
        path: collectionPath(RESOURCES.pod, namespace),
        body: enginePod(props, template, revision, name),
      });
      expectations.expectWrite(key, context.pods, pod as KubeObject);
    } catch (error) {
      const isRefusal = error instanceof KubeError && [400, 403, 422].includes(error.status ?? 0);
      if (!isRefusal) throw error;
      const message = `The API server refuses the engine pod: ${error.message}. Change spec.template, or what forbids it.`;
      return { created, drained, refused: { reason: 'InvalidTemplate', message } };
    }
  }
  return { created, drained };
}

/** A pod that is gone, was re-made under its name, or has changed since it was seen, needs no write: its change comes by the watch. */
async function ignoreGone(write: () => Promise<void>): Promise<void> {
  try {
    await write();
  } catch (error) {
    if (!isNotFound(error) && !isConflict(error)) throw error;
  }
}
