/** Runs the vision encoder: a bounded number of tiles a step, of as many pictures as wait, and keeps what it made. */
import type { Forward } from '#engine/model/forward.ts';
import { type VisionModel, visionFeatures, visionStep } from '#engine/model/vision.ts';

export interface ImageEncoderOptions {
  /** Encoder budget. */
  readonly maxTilesPerStep: number;
  /** Of kept embeddings; the least recently used go first. Requests that run hold theirs besides. */
  readonly cacheBytes: number;
}

interface Job {
  readonly digest: string;
  readonly tiles: readonly Float32Array[];
  readonly embeddings: Float32Array;
  /** Tiles that a step has taken, and that one has finished. */
  taken: number;
  done: number;
  readonly settled: PromiseWithResolvers<Float32Array>;
}

export class ImageEncoder {
  readonly #model: VisionModel;
  readonly #forward: Forward;
  readonly #options: ImageEncoderOptions;
  /** Least recently used first. */
  readonly #kept = new Map<string, Float32Array>();
  readonly #jobs = new Map<string, Job>();
  #keptBytes = 0;
  #isRunning = false;

  constructor(model: VisionModel, forward: Forward, options: ImageEncoderOptions) {
    this.#model = model;
    this.#forward = forward;
    this.#options = options;
  }

  get keptBytes(): number {
    return this.#keptBytes;
  }

  /** Embeddings that were made before, undefined when they are gone or never were. */
  find(digest: string): Float32Array | undefined {
    const found = this.#kept.get(digest);
    if (found === undefined) return undefined;
    this.#kept.delete(digest);
    this.#kept.set(digest, found);
    return found;
  }

  /**
   * (tiles * tokensPerTile, featureSize). Tiles are fp32 [channels, tileSize, tileSize], normalised. Equal digests that wait at once
   * are encoded once. Rejects with the KernelError of the step that failed.
   */
  encode(digest: string, tiles: readonly Float32Array[]): Promise<Float32Array> {
    const known = this.find(digest);
    if (known !== undefined) return Promise.resolve(known);
    const waiting = this.#jobs.get(digest);
    if (waiting !== undefined) return waiting.settled.promise;
    const job: Job = {
      digest,
      tiles,
      embeddings: new Float32Array(tiles.length * this.#tileLength),
      taken: 0,
      done: 0,
      settled: Promise.withResolvers(),
    };
    this.#jobs.set(digest, job);
    if (!this.#isRunning) void this.#run();
    return job.settled.promise;
  }

  get #tileLength(): number {
    return this.#model.tokensPerTile * this.#model.featureSize;
  }

  /** Never rejects. */
  async #run(): Promise<void> {
    this.#isRunning = true;
    // Pictures of one request come one after the other in the same task.
    await Promise.resolve();
    while (this.#jobs.size > 0) await this.#step();
    this.#isRunning = false;
  }

  async #step(): Promise<void> {
    const taken: { readonly job: Job; readonly tile: number }[] = [];
    for (const job of this.#jobs.values()) {
      while (taken.length < this.#options.maxTilesPerStep && job.taken < job.tiles.length) {
        taken.push({ job, tile: job.taken++ });
      }
    }
    try {
      const tiles = taken.map(({ job, tile }) => job.tiles[tile]!);
      const outputs = await this.#forward.run(visionStep(this.#model, tiles));
      const features = visionFeatures(this.#model, outputs);
      const length = this.#tileLength;
      for (const [i, { job, tile }] of taken.entries()) {
        job.embeddings.set(features.subarray(i * length, (i + 1) * length), tile * length);
        if (++job.done === job.tiles.length) this.#finish(job);
      }
    } catch (error) {
      for (const job of new Set(taken.map(({ job }) => job))) {
        this.#jobs.delete(job.digest);
        job.settled.reject(error);
      }
    }
  }

  #finish({ digest, embeddings, settled }: Job): void {
    this.#jobs.delete(digest);
    this.#kept.set(digest, embeddings);
    this.#keptBytes += embeddings.byteLength;
    for (const [oldest, { byteLength }] of this.#kept) {
      if (this.#keptBytes <= this.#options.cacheBytes) break;
      this.#kept.delete(oldest);
      this.#keptBytes -= byteLength;
    }
    settled.resolve(embeddings);
  }
}
