/** Entry of a worker thread: one picture a message. */
import { parentPort } from 'node:worker_threads';
import { ImageError } from './errors.ts';
import type { WorkerAnswer } from './image-workers.ts';
import { type PrepareRequest, prepareImage } from './prepare.ts';

parentPort?.on('message', async (request: PrepareRequest) => {
  let answer: WorkerAnswer;
  let moved: ArrayBuffer[] = [];
  try {
    const image = await prepareImage(request);
    answer = { image };
    moved = image.tiles.map(({ buffer }) => buffer);
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    answer = { error: message, isImageError: error instanceof ImageError };
  }
  parentPort?.postMessage(answer, moved);
});
