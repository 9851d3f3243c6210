/** A server of this process over SmolLM2 on a free port, with its log, its figures and official clients. */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { Writable } from 'node:stream';
import { after, before } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import OpenAI from 'openai';
import { pino } from 'pino';
import type { EngineStats } from '#engine/scheduler/request.ts';
import { createServer } from '#engine/server/app.ts';
import { defaultServerOptions, type ServerOptions } from '#engine/server/options.ts';
import { type EngineStartOptions, type LoadedModel, loadModel } from '#engine/start.ts';
import { findDefaultModel } from './default-model.ts';

const found = await findDefaultModel();

/** Why no live server can be started here, or false. */
export const noLiveServer: string | false =
  ('skip' in found ? found.skip : false) ||
  (existsSync('kernels/build/nvlm.node') ? false : 'the addon is not built: npm run build');

export const MODEL_NAME = 'smol';

let loading: Promise<LoadedModel> | undefined;

/** SmolLM2 in fp32 arithmetic of the chosen storage, loaded once per process; release it with closeModel. */
export function liveModel(): Promise<LoadedModel> {
  assert.ok('path' in found);
  loading ??= loadModel({
    model: found.path,
    dtype: 'auto',
    threads: 2,
    cacheDirectory: tmpdir(),
    maxSequences: 4,
    maxBatchedTokens: 256,
    maxModelLength: 1024,
    kvCacheMemory: { bytes: 256 << 20 },
  });
  return loading;
}

export async function closeModel(): Promise<void> {
  await (await loading)?.close();
  loading = undefined;
}

export interface LiveServer {
  readonly url: string;
  readonly model: LoadedModel;
  readonly client: OpenAI;
  /** Lines of the log, parsed, oldest first. */
  readonly log: Record<string, unknown>[];
  stats(): EngineStats;
  /** POST of a JSON body; status and parsed answer. */
  post<Answer = unknown>(
    path: string,
    body: unknown,
  ): Promise<{ readonly status: number; readonly json: Answer }>;
  /** Resolves once nothing runs, waits or holds a cache block. Fails after 5 s. */
  idle(): Promise<void>;
  /** Running responses may go on for `timeoutMs`, 2 s when left out. */
  close(timeoutMs?: number): Promise<void>;
}

/** Greedy unless a request says otherwise: the checkpoint's own temperature would make tests random. */
export async function startLiveServer(
  options: Partial<ServerOptions> = {},
  engineOptions: Partial<EngineStartOptions> = {},
): Promise<LiveServer> {
  const model = await liveModel();
  const engine = model.startEngine({
    mode: 'Continuous',
    maxSequences: 4,
    workers: 2,
    ...engineOptions,
  });
  const log: Record<string, unknown>[] = [];
  const lines = new Writable({
    write(chunk, _encoding, done) {
      for (const line of String(chunk).split('\n')) if (line !== '') log.push(JSON.parse(line));
      done();
    },
  });
  const server = createServer({
    engine,
    tokenizer: model.tokenizer,
    chatTemplate: model.chatTemplate,
    model: {
      name: MODEL_NAME,
      aliases: [],
      createdAt: 1_700_000_000,
      eosTokenIds: model.checkpoint.eosTokenIds,
      defaults: { temperature: 0, topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 },
      version: '0.0.0-test',
    },
    logger: pino({ level: 'info' }, lines),
    options: { ...defaultServerOptions, port: 0, ...options },
  });
  const { url } = await server.listen();
  const apiKey = options.apiKeys?.[0] ?? 'unused';
  const stats = () => engine.stats();
  return {
    url,
    model,
    client: new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0 }),
    log,
    stats,
    post: async (path, body) => {
      const response = await fetch(`${url}${path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: `Bearer ${apiKey}` },
        body: JSON.stringify(body),
      });
      return { status: response.status, json: (await response.json()) as never };
    },
    idle: async () => {
      for (let tries = 0; tries < 500; tries++) {
        const { running, waiting, blocksUsed } = stats();
        if (running + waiting + blocksUsed === 0) return;
        await sleep(10);
      }
      const { running, waiting, blocksUsed } = stats();
      assert.deepEqual({ running, waiting, blocksUsed }, { running: 0, waiting: 0, blocksUsed: 0 });
    },
    close: (timeoutMs = 2000) => server.close(timeoutMs),
  };
}

/** Gives a live server to the tests of the suite it is called in, and takes it down after them. */
export function useLiveServer(take: (server: LiveServer) => void): void {
  let server: LiveServer | undefined;
  before(async () => {
    server = await startLiveServer();
    take(server);
  });
  after(async () => {
    await server?.close();
    await closeModel();
  });
}

/** The samples of one metric: its label text, '' when it has none, to its value. */
export function samplesOf(exposition: string, name: string): Map<string, number> {
  const samples = new Map<string, number>();
  for (const line of exposition.split('\n')) {
    const match = /^([\w:]+)(\{.*\})? (\S+)$/.exec(line);
    if (match?.[1] === name) samples.set(match[2] ?? '', Number(match[3]));
  }
  return samples;
}
