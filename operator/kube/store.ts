/** Objects of one type as the API server last told them: frozen, by key, with indexes. */
import { type KubeObject, keyOf } from './resource.ts';

export interface StoreChange<T> {
  readonly key: string;
  /** Absent when the object is new. */
  readonly previous?: T;
  /** Absent when the object is gone. */
  readonly current?: T;
}

export type ChangeListener<T> = (change: StoreChange<T>) => void;
/** The index values of an object; several are allowed, none too. */
export type IndexFunction<T> = (object: T) => readonly string[];

export const ownerIndex = <T extends KubeObject>(object: T): readonly string[] =>
  (object.metadata.ownerReferences ?? []).map(({ uid }) => uid);

export class Store<T extends KubeObject> {
  readonly #objects = new Map<string, T>();
  readonly #indexes: ReadonlyMap<string, { of: IndexFunction<T>; keys: Map<string, Set<string>> }>;
  readonly #listeners: ChangeListener<T>[] = [];
  readonly #onListenerError: (error: unknown) => void;
  #resourceVersion: string | undefined;
  #clearings = 0;

  /** `onListenerError` takes what a listener throws: it must not end the watch that feeds the store. */
  constructor(
    indexes: Readonly<Record<string, IndexFunction<T>>> = {},
    onListenerError: (error: unknown) => void = () => {},
  ) {
    this.#indexes = new Map(
      Object.entries(indexes).map(([name, of]) => [name, { of, keys: new Map() }]),
    );
    this.#onListenerError = onListenerError;
  }

  onChange(listener: ChangeListener<T>): void {
    this.#listeners.push(listener);
  }

  /** Of the last list or event: all that was written up to it has been told, even of objects that are gone again. */
  get resourceVersion(): string | undefined {
    return this.#resourceVersion;
  }

  /** How often the store was emptied because its type was not served any more. */
  get clearings(): number {
    return this.#clearings;
  }

  get size(): number {
    return this.#objects.size;
  }

  get(key: string): T | undefined {
    return this.#objects.get(key);
  }

  list(): T[] {
    return [...this.#objects.values()];
  }

  /** Objects whose index `name` holds `value`. Throws when the store has no such index. */
  by(name: string, value: string): T[] {
    const index = this.#indexes.get(name);
    if (index === undefined) throw new Error(`The store has no index ${name}`);
    return [...(index.keys.get(value) ?? [])].map((key) => this.#objects.get(key) as T);
  }

  /** An added or changed object. One that was deleted and made again in a gap is told as gone, then as new. */
  set(object: T): void {
    this.#resourceVersion = object.metadata.resourceVersion;
    const key = keyOf(object);
    const previous = this.#objects.get(key);
    if (previous?.metadata.resourceVersion === object.metadata.resourceVersion && previous) return;
    if (previous && previous.metadata.uid !== object.metadata.uid) this.#remove(key, previous);
    this.#put(key, deepFreeze(object), this.#objects.get(key));
  }

  /** `object` as it was deleted: its version is the one of the deletion. */
  delete(object: T): void {
    this.#resourceVersion = object.metadata.resourceVersion;
    const key = keyOf(object);
    const previous = this.#objects.get(key);
    if (previous !== undefined) this.#remove(key, previous);
  }

  /** The whole list, and its version: what is not in it is gone. */
  replace(objects: readonly T[], resourceVersion?: string): void {
    const keys = new Set(objects.map(keyOf));
    for (const [key, previous] of this.#objects) {
      if (!keys.has(key)) this.#remove(key, previous);
    }
    for (const object of objects) this.set(object);
    this.#resourceVersion = resourceVersion;
  }

  /** The type is not served any more: its objects went with it, and no event about them will come. */
  clear(): void {
    this.#clearings++;
    this.replace([]);
  }

  #put(key: string, current: T, previous: T | undefined): void {
    if (previous !== undefined) this.#unindex(key, previous);
    this.#objects.set(key, current);
    for (const { of, keys } of this.#indexes.values()) {
      for (const value of of(current)) {
        const set = keys.get(value) ?? new Set();
        keys.set(value, set.add(key));
      }
    }
    this.#tell({ key, current, ...(previous && { previous }) });
  }

  #remove(key: string, previous: T): void {
    this.#unindex(key, previous);
    this.#objects.delete(key);
    this.#tell({ key, previous });
  }

  #unindex(key: string, object: T): void {
    for (const { of, keys } of this.#indexes.values()) {
      for (const value of of(object)) {
        const set = keys.get(value);
        set?.delete(key);
        if (set?.size === 0) keys.delete(value);
      }
    }
  }

  #tell(change: StoreChange<T>): void {
    for (const listener of this.#listeners) {
      try {
        listener(change);
      } catch (error) {
        this.#onListenerError(error);
      }
    }
  }
}

function deepFreeze<T>(value: T): T {
  if (typeof value === 'object' && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const child of Object.values(value)) deepFreeze(child);
  }
  return value;
}
