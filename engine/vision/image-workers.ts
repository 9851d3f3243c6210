/** Worker threads that decode and cut pictures, so that the event loop does not wait for them. */
import { Worker } from 'node:worker_threads';
import { ImageError } from './errors.ts';
import type { PreparedImage, PrepareRequest } from './prepare.ts';

export type WorkerAnswer =
  | { readonly image: PreparedImage }
  | { readonly error: string; readonly isImageError: boolean };

interface Job {
  readonly request: PrepareRequest;
  readonly settled: PromiseWithResolvers<PreparedImage>;
}

export class ImageWorkers {
  readonly #size: number;
  readonly #idle: Worker[] = [];
  readonly #busy = new Map<Worker, Job>();
  readonly #waiting: Job[] = [];

  /** `size`: threads at most; they start when they are first needed. */
  constructor(size: number) {
    this.#size = size;
  }

  /** Throws ImageError for what is wrong with the picture, Error when the thread died of it. */
  prepare(request: PrepareRequest): Promise<PreparedImage> {
    const job: Job = { request, settled: Promise.withResolvers() };
    this.#waiting.push(job);
    this.#assign();
    return job.settled.promise;
  }

  /** Pictures in work are given up. */
  async close(): Promise<void> {
    const workers = [...this.#idle.splice(0), ...this.#busy.keys()];
    await Promise.all(workers.map((worker) => worker.terminate()));
  }

  #assign(): void {
    while (this.#waiting.length > 0) {
      const worker = this.#idle.pop() ?? this.#start();
      if (worker === undefined) return;
      const job = this.#waiting.shift()!;
      this.#busy.set(worker, job);
      worker.ref();
      worker.postMessage(job.request);
    }
  }

  #start(): Worker | undefined {
    if (this.#busy.size >= this.#size) return undefined;
    const worker = new Worker(new URL('./worker.ts', import.meta.url));
    worker.on('message', (answer: WorkerAnswer) => {
      const job = this.#busy.get(worker);
      this.#busy.delete(worker);
      this.#idle.push(worker);
      // Only a picture in work keeps the process alive.
      worker.unref();
      if ('image' in answer) job?.settled.resolve(answer.image);
      else
        job?.settled.reject(
          answer.isImageError ? new ImageError(answer.error) : new Error(answer.error),
        );
      this.#assign();
    });
    let cause: unknown;
    worker.on('error', (error) => {
      cause = error;
    });
    worker.on('exit', (code) => {
      const job = this.#busy.get(worker);
      this.#busy.delete(worker);
      const at = this.#idle.indexOf(worker);
      if (at >= 0) this.#idle.splice(at, 1);
      job?.settled.reject(
        new Error(`the thread that read a picture ended with ${code}`, { cause }),
      );
      this.#assign();
    });
    return worker;
  }
}
