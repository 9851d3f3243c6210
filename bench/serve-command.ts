/** Starts our server (or takes a running one) and the peers', sends each the same load in turn, and reports. */
import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { resolveModel } from '#engine/weights/resolve.ts';
import { type LlamaVariant, startLlamaServer } from './peers/llama-cpp.ts';
import type { BenchResult } from './result.ts';
import type { EventLoopFigures, ServeFigures, ServeLoad, Wire } from './serve.ts';
import { randomPrompts, runLoad, serveResult } from './serve.ts';

interface Target {
  readonly name: string;
  readonly url: string;
  readonly model: string;
  readonly wire: Wire;
  close(): Promise<void>;
}

export interface ServeBenchOptions {
  readonly load: ServeLoad;
  readonly url: string | undefined;
  readonly model: string;
  readonly dtype: string;
  readonly kvCacheDtype: string;
  readonly threads: number;
  readonly isa: string | undefined;
  readonly rounds: number;
  readonly cacheDirectory: string;
  readonly peers: ((gguf: string) => Promise<readonly LlamaVariant[]>) | undefined;
}

/** Starts `engine/main.ts` on a port of its own and waits for its ready line. */
function startOurs(options: ServeBenchOptions): Promise<{ url: string; close(): Promise<void> }> {
  const child = spawn(
    process.execPath,
    [
      join(import.meta.dirname, '../engine/main.ts'),
      '--port',
      '0',
      '--model',
      options.model,
      '--dtype',
      options.dtype,
      '--kv-cache-dtype',
      options.kvCacheDtype,
      '--threads',
      String(options.threads),
      ...(options.isa === undefined ? [] : ['--isa', options.isa]),
      '--log-level',
      'error',
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const close = () =>
    new Promise<void>((resolve) => {
      if (child.exitCode !== null) return resolve();
      child.once('close', () => resolve());
      child.kill('SIGTERM');
    });
  return new Promise((resolve, reject) => {
    child.once('close', (code) =>
      reject(new Error(`The server ended with exit code ${code} before it was ready.`)),
    );
    createInterface({ input: child.stdout }).on('line', (line) => {
      const url = /^listening on (http:\/\/\S+)/.exec(line)?.[1];
      if (url !== undefined) resolve({ url, close });
    });
  });
}

async function modelName(url: string): Promise<string> {
  const { data } = (await (await fetch(`${url}/v1/models`)).json()) as { data: { id: string }[] };
  return data[0]?.id ?? '';
}

/** Since the last call; undefined when the server does not tell. */
async function readEventLoop(url: string): Promise<EventLoopFigures | undefined> {
  const text = await (await fetch(`${url}/metrics`)).text();
  const milliseconds = (name: string): number | undefined => {
    const pattern = new RegExp(`^nvlm_event_loop_${name}_seconds\\{quantile="1"\\} (\\S+)`, 'm');
    const seconds = pattern.exec(text)?.[1];
    return seconds === undefined ? undefined : Number(seconds) * 1000;
  };
  const heldUpMs = milliseconds('block');
  const workMs = milliseconds('work');
  return heldUpMs === undefined || workMs === undefined ? undefined : { heldUpMs, workMs };
}

export async function serveBench(
  options: ServeBenchOptions,
  progress: (fraction: number, note: string) => void,
): Promise<BenchResult> {
  const { load } = options;
  const samples = new Map<string, ServeFigures[]>();
  const prompts = randomPrompts(load, 40000);
  const total = (options.rounds + 1) * (2 + (options.peers ? 3 : 0));
  let finished = 0;
  const measure = async (target: Target, round: number) => {
    const note = `round ${round} of ${options.rounds}: ${target.name}`;
    // Another prompt for each round: no server profits from what it has seen.
    if (target.url === own.url) await readEventLoop(own.url);
    const measured = await runLoad(
      target.url,
      target.model,
      target.wire,
      load,
      prompts.map((prompt) => prompt.map((id) => id + round)),
      (fraction) => progress((finished + fraction) / total, note),
    );
    const eventLoop = target.url === own.url ? await readEventLoop(own.url) : undefined;
    const figures = { ...measured, ...(eventLoop !== undefined && { eventLoop }) };
    finished++;
    if (round > 0) samples.set(target.name, [...(samples.get(target.name) ?? []), figures]);
  };
  const own = options.url ? { url: options.url, close: async () => {} } : await startOurs(options);
  const targets: Target[] = [];
  try {
    const name = await modelName(own.url);
    targets.push({ name: 'ours, HTTP', url: own.url, model: name, wire: 'http', close: own.close });
    targets.push({
      name: 'ours, WebSocket',
      url: own.url,
      model: name,
      wire: 'websocket',
      close: async () => {},
    });
    if (options.peers) {
      const { path } = await resolveModel(options.model, {
        cacheDirectory: join(options.cacheDirectory, 'models'),
      });
      for (const { name, peer, gguf } of await options.peers(path)) {
        const server = await startLlamaServer(peer, gguf, {
          threads: options.threads,
          slots: load.requests,
          contextPerSlot: load.promptTokens + load.newTokens + 64,
        });
        targets.push({
          name: `${name}, HTTP`,
          url: server.url,
          model: await modelName(server.url),
          wire: 'http',
          close: server.close,
        });
      }
    }
    for (let round = 0; round <= options.rounds; round++)
      for (const target of targets) await measure(target, round);
  } finally {
    await Promise.all([own.close(), ...targets.slice(2).map((target) => target.close())]);
  }
  const runs = targets.map(({ name }) => ({ name, figures: medianRun(samples.get(name) ?? []) }));
  const path = options.isa === undefined ? '' : ` on ${options.isa}`;
  const served =
    options.url === undefined
      ? `${options.model}, ${options.dtype}${path}, ${options.threads} threads`
      : `${targets[0]?.model} of the server at ${options.url}`;
  return serveResult(runs, load, `Median round of ${options.rounds}; ${served}.`);
}

/** The round whose throughput is the median. */
function medianRun(rounds: readonly ServeFigures[]): ServeFigures {
  const sorted = [...rounds].sort((a, b) => a.outputTokensPerSecond - b.outputTokensPerSecond);
  return sorted[Math.floor(sorted.length / 2)] as ServeFigures;
}
