/** A server over one of the tiny checkpoints that see. */
import { readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import type { GenerationEngine } from '#engine/scheduler/request.ts';
import { createServer, type RunningServer } from '#engine/server/app.ts';
import { defaultServerOptions, type ServerOptions } from '#engine/server/options.ts';
import { type LoadedModel, type LoadOptions, loadModel } from '#engine/start.ts';
import { FIXTURES } from './golden.ts';
import { goldenImages } from './golden-images.ts';

/** `model`: a preset of test/fixtures/nvlm-tiny, or a path. */
export const loadTiny = (model: string, more: Partial<LoadOptions> = {}): Promise<LoadedModel> =>
  loadModel({
    model: resolve(FIXTURES, 'nvlm-tiny', model),
    dtype: 'float32',
    cacheDirectory: join(tmpdir(), 'nvlm-images-test'),
    maxSequences: 8,
    maxBatchedTokens: 8192,
    ...more,
  });

export async function serveTiny(
  model: LoadedModel,
  engine: GenerationEngine = model.startEngine({ mode: 'Continuous', maxSequences: 8, workers: 2 }),
  eosTokenIds: readonly number[] = [],
  options: Partial<ServerOptions> = {},
): Promise<{ readonly server: RunningServer; readonly url: string }> {
  const server = createServer({
    engine,
    tokenizer: model.tokenizer,
    chatTemplate: model.chatTemplate,
    images: model.images,
    model: {
      name: 'tiny',
      aliases: [],
      createdAt: 0,
      eosTokenIds,
      defaults: { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 },
      version: 'test',
    },
    options: { ...defaultServerOptions, host: '127.0.0.1', port: 0, ...options },
  });
  const { url } = await server.listen();
  return { server, url };
}

/** The bytes of a picture of the fixtures. */
export const fileOf = (name: string): Buffer =>
  readFileSync(join(FIXTURES, 'nvlm-tiny', goldenImages()[name]!.file));

/** The media type is PNG's whatever the file is: it is not believed. */
export const dataUrl = (file: Buffer): string => `data:image/png;base64,${file.toString('base64')}`;
