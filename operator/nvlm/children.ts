/** Applies what a deployment has besides its pods, repairs or reports what others changed, and removes what is not wanted any more. */
import { createHash } from 'node:crypto';
import { FIELD_MANAGER } from '#charts/labels.ts';
import type { DriftPolicy } from '#crds/nvlm-deployment.ts';
import { isInvalid, isNotFound } from '../kube/errors.ts';
import { type FieldPath, findForeignFields, showPath } from '../kube/managed-fields.ts';
import { type KubeObject, keyOf, objectPath, resourceOf } from '../kube/resource.ts';
import type { ControllerContext } from './context.ts';
import type { Turn } from './turn.ts';

export interface Drift {
  readonly object: string;
  readonly manager: string;
  readonly fields: readonly string[];
  readonly isRepaired: boolean;
}

/** An object of the name that we need belongs to somebody else. */
export class NameTakenError extends Error {
  constructor(object: KubeObject) {
    super(
      `${object.kind} ${keyOf(object)} exists and does not belong to this NVLMDeployment. Rename one of the two, or delete that ${object.kind}.`,
    );
    this.name = 'NameTakenError';
  }
}

/** The API server will never take an object that the spec asks for. */
export class RefusedError extends Error {
  constructor(object: KubeObject, cause: Error) {
    super(`${object.kind} ${keyOf(object)} is refused: ${cause.message}`, { cause });
    this.name = 'RefusedError';
  }
}

interface Applied {
  readonly hash: string;
  readonly resourceVersion: string | undefined;
}

/** Holds replicas: it goes when they have drained, not when it is not wanted any more. */
const KEPT_KIND = 'LeaderWorkerSet';

const idOf = (object: KubeObject): string => `${object.kind} ${keyOf(object)}`;
const hashOf = (object: KubeObject): string =>
  createHash('sha256').update(JSON.stringify(object)).digest('hex');

export class ChildApplier {
  readonly #context: ControllerContext;
  /** What was applied last, and the version that came back: equal to both, a child needs no call. */
  readonly #applied = new Map<string, Applied>();

  constructor(context: ControllerContext) {
    this.#context = context;
  }

  /**
   * Applies `wanted` as far as the turn goes, and deletes owned children that are not in it. Throws KubeError; NameTakenError, before any
   * write of that child, and RefusedError after the other children have been applied.
   */
  async applyAll(
    key: string,
    ownerUid: string,
    wanted: readonly KubeObject[],
    policy: DriftPolicy,
    turn: Turn,
  ): Promise<Drift[]> {
    const drifts: Drift[] = [];
    let refusal: Error | undefined;
    for (const object of wanted) {
      // What is told of a turn is told whole, and one child that is refused in every turn must not keep the others from theirs.
      if (turn.isOver && drifts.length === 0 && refusal === undefined) return [];
      try {
        drifts.push(...(await this.apply(key, ownerUid, object, policy, turn)));
      } catch (error) {
        if (!(error instanceof NameTakenError || error instanceof RefusedError)) throw error;
        refusal ??= error;
      }
    }
    if (refusal !== undefined) throw refusal;
    const names = new Set(wanted.map(idOf));
    for (const [kind, store] of this.#context.children) {
      if (kind === KEPT_KIND) continue;
      for (const child of store.by('owner', ownerUid)) {
        if (names.has(idOf(child)) || child.metadata.deletionTimestamp !== undefined) continue;
        await this.delete(child, turn);
      }
    }
    return drifts;
  }

  forget(key: string): void {
    for (const id of this.#applied.keys()) {
      if (id.endsWith(` ${key}`)) this.#applied.delete(id);
    }
  }

  /** Applies one child. Throws as `applyAll`. */
  async apply(
    key: string,
    ownerUid: string,
    object: KubeObject,
    policy: DriftPolicy,
    turn: Turn,
  ): Promise<Drift[]> {
    const { client, children, expectations } = this.#context;
    const store = children.get(object.kind);
    const live = store?.get(keyOf(object));
    const id = idOf(object);
    const hash = hashOf(object);
    const last = this.#applied.get(id);
    if (live !== undefined) {
      const isOurs = live.metadata.ownerReferences?.some(({ uid }) => uid === ownerUid) ?? false;
      if (!isOurs) throw new NameTakenError(object);
      if (last?.hash === hash && last.resourceVersion === live.metadata.resourceVersion) return [];
    }
    const foreign = live === undefined ? [] : findForeignFields(live, object, FIELD_MANAGER);
    const isRepaired = policy === 'Repair';
    const drifts = groupByManager(id, foreign, isRepaired);
    if (live !== undefined && last?.hash === hash && (foreign.length === 0 || !isRepaired)) {
      // Changed by others only in fields that are not ours, or we only report.
      this.#applied.set(id, { hash, resourceVersion: live.metadata.resourceVersion });
      return drifts;
    }
    if (!isRepaired && foreign.length > 0 && last === undefined) return drifts;
    let applied: KubeObject;
    try {
      applied = await turn.write(() =>
        client.apply(resourceOf(object), object, {
          fieldManager: FIELD_MANAGER,
          force: true,
          signal: turn.fence,
        }),
      );
    } catch (error) {
      if (!isInvalid(error)) throw error;
      if (object.kind !== 'Job' || live === undefined)
        throw new RefusedError(object, error as Error);
      // A Job's pods cannot be changed: it goes, and the next reconcile makes the one that is wanted.
      if (live.metadata.deletionTimestamp === undefined) await this.delete(live, turn);
      return drifts;
    }
    this.#applied.set(id, { hash, resourceVersion: applied.metadata.resourceVersion });
    if (store !== undefined) expectations.expectWrite(key, store, applied);
    return drifts;
  }

  async delete(child: KubeObject, { fence }: Turn): Promise<void> {
    this.#applied.delete(idOf(child));
    try {
      await this.#context.client.request({
        method: 'DELETE',
        path: objectPath(resourceOf(child), child.metadata.name, child.metadata.namespace),
        // A Job's pods would stay otherwise.
        body: { preconditions: { uid: child.metadata.uid }, propagationPolicy: 'Background' },
        signal: fence,
      });
    } catch (error) {
      if (!isNotFound(error)) throw error;
    }
  }
}

function groupByManager(
  object: string,
  foreign: readonly { readonly manager: string; readonly path: FieldPath }[],
  isRepaired: boolean,
): Drift[] {
  const fields = new Map<string, string[]>();
  for (const { manager, path } of foreign) {
    fields.set(manager, [...(fields.get(manager) ?? []), showPath(path)]);
  }
  return [...fields].map(([manager, paths]) => ({ object, manager, fields: paths, isRepaired }));
}
