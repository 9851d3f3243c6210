/** Carries out a rollout plan, one write per pod; every write is expected back before the next plan is made. */
import { enginePod, enginePodTemplate } from '#charts/engine-pod.ts';
import { ANNOTATIONS, LABELS } from '#charts/labels.ts';
import type { EngineProps } from '#charts/props.ts';
import { isConflict, isNotFound, KubeError } from '../kube/errors.ts';
import { collectionPath, type KubeObject, objectPath, RESOURCES } from '../kube/resource.ts';
import type { ControllerContext } from './context.ts';
import type { Observation } from './observe.ts';
import type { PodProblem } from './pod.ts';
import type { RolloutPlan } from './rollout.ts';

const maxAtOnce = 16;
/** A turn that has made pods for so long leaves the others to the next: keys wait for turns, those of edits too. */
const turnMs = 30;

export interface CarriedOut {
  readonly created: number;
  /** What the API server refused about the pods themselves: that is for the status. */
  readonly refused?: PodProblem;
}

const alphabet = 'bcdfghjklmnpqrstvwxz2456789';

export function randomSuffix(random: () => number): string {
  return Array.from({ length: 5 }, () => alphabet[Math.floor(random() * alphabet.length)]).join('');
}

/** Carries out `plan`, of many new pods maybe only some. Throws KubeError for what is not about the pods themselves. */
export async function carryOut(
  context: ControllerContext,
  { key, deployment, pods }: Observation,
  plan: RolloutPlan,
  props: EngineProps,
  revision: string,
  fence: AbortSignal,
): Promise<CarriedOut> {
  const { client, expectations, now } = context;
  const { namespace } = deployment.metadata;
  const podPath = (name: string): string => objectPath(RESOURCES.pod, name, namespace);
  const setTraffic = async (name: string, traffic: 'serving' | 'draining'): Promise<void> => {
    const since = traffic === 'draining' ? now().toISOString() : null;
    await ignoreGone(async () => {
      const written = await client.request({
        method: 'PATCH',
        path: podPath(name),
        contentType: 'application/merge-patch+json',
        body: {
          metadata: {
            labels: { [LABELS.traffic]: traffic },
            annotations: { [ANNOTATIONS.drainingSince]: since },
          },
        },
        signal: fence,
      });
      expectations.expectWrite(key, context.pods, written as KubeObject);
    });
  };
  for (const name of plan.undrain) await setTraffic(name, 'serving');
  for (const name of plan.drain) await setTraffic(name, 'draining');
  for (const name of plan.delete) {
    const pod = pods.find((candidate) => candidate.metadata.name === name);
    if (pod === undefined) continue;
    const { uid, resourceVersion } = pod.metadata;
    await ignoreGone(async () => {
      await client.request({
        method: 'DELETE',
        path: podPath(name),
        // As it was seen: one that has become ready since is planned with again.
        body: { preconditions: { uid, resourceVersion } },
        signal: fence,
      });
      expectations.expectDelete(key, context.pods, pod);
    });
  }
  if (plan.create === 0) return { created: 0 };
  const template = enginePodTemplate(props);
  const create = async (): Promise<void> => {
    const name = `${props.name}-${revision}-${randomSuffix(context.random)}`;
    const created = await client.request({
      method: 'POST',
      path: collectionPath(RESOURCES.pod, namespace),
      body: enginePod(props, template, revision, name),
      signal: fence,
    });
    expectations.expectWrite(key, context.pods, created as KubeObject);
  };
  // Slow start: what is refused is refused once, not for every replica. What was taken before is taken again.
  const isKnown = pods.some(({ metadata }) => metadata.labels?.[LABELS.revision] === revision);
  const startedAt = performance.now();
  let created = 0;
  for (
    let batch = isKnown ? maxAtOnce : 1;
    created < plan.create && performance.now() - startedAt < turnMs;
    batch = Math.min(2 * batch, maxAtOnce)
  ) {
    const length = Math.min(batch, plan.create - created);
    const results = await Promise.allSettled(Array.from({ length }, create));
    created += results.filter(({ status }) => status === 'fulfilled').length;
    const failed = results.find((result) => result.status === 'rejected');
    if (failed === undefined) continue;
    const { reason: error } = failed;
    const isRefusal = error instanceof KubeError && [400, 403, 422].includes(error.status ?? 0);
    if (!isRefusal) throw error;
    const message = `The API server refuses the engine pod: ${error.message}. Change spec.template, or what forbids it.`;
    return { created, refused: { reason: 'InvalidTemplate', message } };
  }
  return { created };
}

/** A pod that is gone, was re-made under its name, or has changed since it was seen, needs no write: its change comes by the watch. */
async function ignoreGone(write: () => Promise<void>): Promise<void> {
  try {
    await write();
  } catch (error) {
    if (!isNotFound(error) && !isConflict(error)) throw error;
  }
}
