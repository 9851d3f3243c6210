/** Tokens a second of each NVLMDeployment, from the counters of its engines: one figure a window, so that it can be told in a status. */

/** Long enough that a busy deployment's status is not written at every scrape. */
const WINDOW_MS = 30_000;

interface Window {
  startedAtMs: number;
  tokens: number;
  /** Of the last full window; undefined before there was one. */
  perSecond: number | undefined;
  /** Pod -> its counter when it was last read. */
  readonly counters: Map<string, number>;
}

/** Two digits: the third is noise, and a write. */
const rounded = (value: number): number => Number(value.toPrecision(2));

export class Throughput {
  readonly #windows = new Map<string, Window>();

  /** Notes the counter of a pod, which starts again at 0 when its engine does. `deployment` and `pod` are keys. */
  record(deployment: string, pod: string, tokens: number, nowMs: number): void {
    const window = this.#windows.get(deployment) ?? {
      startedAtMs: nowMs,
      tokens: 0,
      perSecond: undefined,
      counters: new Map<string, number>(),
    };
    this.#windows.set(deployment, window);
    const before = window.counters.get(pod);
    // What a pod has made before it was first seen was made at another time.
    if (before !== undefined) window.tokens += tokens >= before ? tokens - before : tokens;
    window.counters.set(pod, tokens);
    const elapsedMs = nowMs - window.startedAtMs;
    if (elapsedMs < WINDOW_MS) return;
    window.perSecond = rounded((window.tokens / elapsedMs) * 1000);
    window.startedAtMs = nowMs;
    window.tokens = 0;
  }

  /** Forgets pods that are not there any more; a deployment without pods makes no tokens. */
  keep(deployment: string, pods: ReadonlySet<string>): void {
    const window = this.#windows.get(deployment);
    if (window === undefined) return;
    for (const pod of window.counters.keys()) if (!pods.has(pod)) window.counters.delete(pod);
    if (pods.size === 0) Object.assign(window, { tokens: 0, perSecond: 0 });
  }

  forget(deployment: string): void {
    this.#windows.delete(deployment);
  }

  /** Tokens a second over the last full window; undefined while this process has not watched for so long. */
  of(deployment: string): number | undefined {
    return this.#windows.get(deployment)?.perSecond;
  }
}
