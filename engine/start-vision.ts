/** Loads the vision half of a model that has one, and builds what the server reads pictures with. */
import { availableParallelism } from 'node:os';
import type { Backend } from '#kernels/backend.ts';
import type { ComputeType } from '#kernels/program.ts';
import { buildVision } from './model/registry.ts';
import { findContextToken, visionLoadOptions } from './model/vision.ts';
import type { Tokenizer } from './tokenizer/tokenizer.ts';
import { ImageEncoder } from './vision/encoder.ts';
import {
  DEFAULT_REQUEST_IMAGE_LIMITS,
  ImageReader,
  type RequestImageLimits,
} from './vision/image-reader.ts';
import { ImageWorkers } from './vision/image-workers.ts';
import type { ImageFetching } from './vision/sources.ts';
import type { Checkpoint } from './weights/checkpoint.ts';

/** One picture of NVLM-D at most: six tiles and a thumbnail. */
const TILES_PER_STEP = 7;
const CACHE_BYTES = 256 << 20;

export interface LoadedVision {
  readonly images: ImageReader;
  close(): Promise<void>;
}

/** Undefined for a model that reads text only. Throws as `loadModel` does. */
export async function loadVision(
  checkpoint: Checkpoint,
  tokenizer: Tokenizer,
  backend: Backend,
  options: {
    readonly dtype: ComputeType | 'auto';
    readonly threads: number;
    readonly imageLimits?: RequestImageLimits | undefined;
    readonly imageFetching?: ImageFetching | undefined;
  },
): Promise<LoadedVision | undefined> {
  const model = buildVision(checkpoint);
  if (model === undefined) return undefined;
  const contextTokenId = findContextToken(model, (content) => tokenizer.tokenToId(content));
  // Encoders lose more by integers than language models do.
  const isInteger = options.dtype === 'int8' || options.dtype === 'int4';
  const loaded = await backend.load(
    model.program,
    visionLoadOptions(model, TILES_PER_STEP, isInteger ? 'bfloat16' : options.dtype),
  );
  const runner = loaded.createRunner({ threads: options.threads });
  const encoder = new ImageEncoder(model, runner, {
    maxTilesPerStep: TILES_PER_STEP,
    cacheBytes: CACHE_BYTES,
  });
  const workers = new ImageWorkers(Math.max(1, Math.min(4, availableParallelism() - 1)));
  return {
    images: new ImageReader({
      model,
      contextTokenId,
      encoder,
      workers,
      limits: options.imageLimits ?? DEFAULT_REQUEST_IMAGE_LIMITS,
      fetching: options.imageFetching,
    }),
    close: async () => {
      await workers.close();
      await runner.close();
      await loaded.close();
    },
  };
}
