/**
 * llama.cpp as a peer, at its best: built for this very CPU from the source inside PyPI's llama-cpp-python, with its own
 * bench and server. Kept in the cache by version. Weights as shipped, and the variants it is fastest with.
 */
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import {
  existsSync,
  globSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { buildOnce } from '../../scripts/build-once.mjs';
import { freePorts } from '../../scripts/cluster/processes.ts';
import { run } from '../../scripts/command.mjs';
import type { ModelWork } from '../model.ts';

export const llamaCppVersion = '0.3.36';
/** Counts the ways this version has been built: a build made otherwise is not taken from the cache. */
const recipe = 2;
const targets = ['llama-bench', 'llama-batched-bench', 'llama-server', 'llama-quantize'];

export interface LlamaCpp {
  readonly name: string;
  readonly binaries: string;
}

/** Builds it once (several minutes), `progress` in 0..1. */
export async function installLlamaCpp(
  cacheDirectory: string,
  progress: (fraction: number, note: string) => void,
): Promise<LlamaCpp> {
  const directory = join(cacheDirectory, 'peers', `llama.cpp-${llamaCppVersion}-${recipe}`);
  await buildOnce(directory, (work) => buildLlamaCpp(work, progress));
  return {
    name: `llama.cpp (llama-cpp-python ${llamaCppVersion})`,
    binaries: join(directory, 'build/bin'),
  };
}

/** Leaves the programs in build/bin of the folder, and nothing else. */
async function buildLlamaCpp(
  folder: string,
  progress: (fraction: number, note: string) => void,
): Promise<void> {
  const work = join(folder, 'work');
  mkdirSync(work);
  progress(0, 'source');
  await run('python3', [
    '-m',
    'pip',
    'download',
    '-q',
    '--no-binary',
    ':all:',
    '--no-deps',
    `llama-cpp-python==${llamaCppVersion}`,
    '-d',
    work,
  ]);
  await run('tar', ['xzf', join(work, `llama_cpp_python-${llamaCppVersion}.tar.gz`), '-C', work]);
  const source = globSync(join(work, 'llama_cpp_python-*/vendor/llama.cpp'))[0];
  if (source === undefined)
    throw new Error(`llama-cpp-python ${llamaCppVersion} holds no vendor/llama.cpp.`);
  keepTileConfiguration(join(source, 'ggml/src/ggml-cpu/amx/mmq.cpp'));
  const build = join(work, 'build');
  await run('cmake', [
    '-S',
    source,
    '-B',
    build,
    '-DGGML_NATIVE=ON',
    '-DLLAMA_CURL=OFF',
    '-DCMAKE_BUILD_TYPE=Release',
    '-DLLAMA_BUILD_TESTS=OFF',
    '-DLLAMA_BUILD_EXAMPLES=OFF',
    '-DBUILD_SHARED_LIBS=OFF',
  ]);
  await run('cmake', ['--build', build, '--parallel', '2', '--target', ...targets], {
    onLine: (line: string) => {
      const percent = /^\[ *(\d+)%\]/.exec(line)?.[1];
      const step = /^\[(\d+)\/(\d+)\]/.exec(line);
      if (percent) progress(Number(percent) / 100, 'build');
      else if (step) progress(Number(step[1]) / Number(step[2]), 'build');
    },
  });
  mkdirSync(join(folder, 'build'));
  renameSync(join(build, 'bin'), join(folder, 'build/bin'));
  rmSync(work, { recursive: true });
}

/**
 * GCC 12's _tile_loadconfig names 8 of its 64 bytes as read, so the stores of the others are dropped and llama.cpp ends with
 * SIGSEGV at ldtilecfg on every processor with AMX. A barrier before it keeps them.
 */
function keepTileConfiguration(path: string): void {
  const call = '_tile_loadconfig(&tc);';
  const text = readFileSync(path, 'utf8');
  if (!text.includes(call)) throw new Error(`${path} holds no ${call}`);
  writeFileSync(path, text.replace(call, `__asm__ volatile("" ::"r"(&tc) : "memory"); ${call}`));
}

/** The checkpoint requantised to one of llama.cpp's types, kept beside the peer. */
export async function requantise(peer: LlamaCpp, gguf: string, type: string): Promise<string> {
  const path = join(
    peer.binaries,
    '../..',
    `${gguf
      .split('/')
      .at(-1)
      ?.replace(/\.gguf$/, '')}.${type}.gguf`,
  );
  if (existsSync(path)) return path;
  await run(join(peer.binaries, 'llama-quantize'), [
    '--allow-requantize',
    gguf,
    `${path}.new`,
    type,
    '2',
  ]);
  renameSync(`${path}.new`, path);
  return path;
}

/** tokens/s of one llama-bench test. */
export async function llamaBench(
  peer: LlamaCpp,
  gguf: string,
  test: { readonly prompt: number; readonly generate: number; readonly depth: number },
  threads: number,
): Promise<number> {
  const output = await run(join(peer.binaries, 'llama-bench'), [
    '-m',
    gguf,
    '-t',
    String(threads),
    '-fa',
    '1',
    '-p',
    String(test.prompt),
    '-n',
    String(test.generate),
    '-d',
    String(test.depth),
    '-r',
    '1',
    '-o',
    'json',
  ]);
  const rows = JSON.parse(output.slice(output.indexOf('['), output.lastIndexOf(']') + 1)) as {
    avg_ts: number;
  }[];
  return rows[0]?.avg_ts ?? Number.NaN;
}

/** Total decode tokens/s of `sequences` sequences, 128 prompt and 128 new tokens each. */
export async function llamaBatchedBench(
  peer: LlamaCpp,
  gguf: string,
  sequences: number,
  threads: number,
): Promise<number> {
  const output = await run(join(peer.binaries, 'llama-batched-bench'), [
    '-m',
    gguf,
    '-t',
    String(threads),
    '-tb',
    String(threads),
    '-fa',
    'on',
    '-c',
    String(sequences * 256 + 256),
    '-npp',
    '128',
    '-ntg',
    '128',
    '-npl',
    String(sequences),
    '--output-format',
    'jsonl',
  ]);
  const line = output.split('\n').find((text) => text.startsWith('{'));
  return line === undefined ? Number.NaN : (JSON.parse(line) as { speed_tg: number }).speed_tg;
}

/** tokens/s of one work of the model bench, by the tool that runs it. */
export const llamaSpeed = (
  peer: LlamaCpp,
  gguf: string,
  work: ModelWork,
  threads: number,
): Promise<number> =>
  work.sequences === 1
    ? llamaBench(peer, gguf, work, threads)
    : llamaBatchedBench(peer, gguf, work.sequences, threads);

export interface LlamaVariant {
  readonly name: string;
  readonly peer: LlamaCpp;
  readonly gguf: string;
}

export interface LlamaServer {
  readonly url: string;
  close(): Promise<void>;
}

export async function startLlamaServer(
  peer: LlamaCpp,
  gguf: string,
  options: { readonly threads: number; readonly slots: number; readonly contextPerSlot: number },
): Promise<LlamaServer> {
  const [port = 0] = await freePorts(1);
  const child: ChildProcess = spawn(
    join(peer.binaries, 'llama-server'),
    [
      '-m',
      gguf,
      '-t',
      String(options.threads),
      '-tb',
      String(options.threads),
      '-np',
      String(options.slots),
      '-c',
      String(options.slots * options.contextPerSlot),
      '-fa',
      'on',
      '--host',
      '127.0.0.1',
      '--port',
      String(port),
      '--no-webui',
    ],
    { stdio: 'ignore' },
  );
  const url = `http://127.0.0.1:${port}`;
  const close = () =>
    new Promise<void>((resolve) => {
      if (child.exitCode !== null) return resolve();
      child.once('close', () => resolve());
      child.kill('SIGTERM');
    });
  for (let attempt = 0; attempt < 300; attempt++) {
    if (child.exitCode !== null)
      throw new Error(`llama-server ended with exit code ${child.exitCode} before it was ready.`);
    try {
      if ((await fetch(`${url}/health`)).ok) return { url, close };
    } catch {
      // Not listening yet.
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  await close();
  throw new Error('llama-server was not ready within 30 s.');
}

/** Seconds for the prompts one by one and all at once, `newTokens` each, greedy, no prompt cache. */
export async function timeQuestions(
  server: LlamaServer,
  prompts: readonly (readonly number[])[],
  newTokens: number,
): Promise<{ sequential: number; together: number }> {
  const ask = async (prompt: readonly number[]) => {
    const response = await fetch(`${server.url}/completion`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        prompt,
        n_predict: newTokens,
        temperature: 0,
        ignore_eos: true,
        cache_prompt: false,
      }),
    });
    const { tokens_predicted } = (await response.json()) as { tokens_predicted: number };
    if (tokens_predicted !== newTokens)
      throw new Error(`llama-server gave ${tokens_predicted} tokens, expected ${newTokens}.`);
  };
  const startedAt = performance.now();
  for (const prompt of prompts) await ask(prompt);
  const between = performance.now();
  await Promise.all(prompts.map(ask));
  return {
    sequential: (between - startedAt) / 1000,
    together: (performance.now() - between) / 1000,
  };
}
