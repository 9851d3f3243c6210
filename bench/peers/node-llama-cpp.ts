/**
 * llama.cpp as npm ships it, prebuilt: node-llama-cpp with the binary of this platform, in the cache by version. Ready in a minute where
 * building llama.cpp takes twenty, but only the weights as shipped, and no server.
 */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildOnce } from '../../scripts/build-once.mjs';
import { run } from '../../scripts/command.mjs';
import { type ModelWork, promptsOf } from '../model.ts';

export const nodeLlamaCppVersion = '3.22.1';

/** The directory whose node_modules hold it; downloads some 60 MB the first time. */
export async function installNodeLlamaCpp(cacheDirectory: string): Promise<string> {
  const directory = join(cacheDirectory, 'peers', `node-llama-cpp-${nodeLlamaCppVersion}`);
  await buildOnce(directory, async (work) => {
    writeFileSync(join(work, 'package.json'), '{ "private": true }\n');
    // Its optional packages are binaries of every platform and of CUDA; the one needed is named.
    const binary = `@node-llama-cpp/${process.platform === 'darwin' ? 'mac' : process.platform}-${process.arch}`;
    await run('npm', [
      ...['install', '--prefix', work, '--omit=optional', '--ignore-scripts'],
      ...['--no-audit', '--no-fund'],
      ...[`node-llama-cpp@${nodeLlamaCppVersion}`, `${binary}@${nodeLlamaCppVersion}`],
    ]);
  });
  return directory;
}

/** tokens/s of one work, counted as for this engine, in a process of its own. */
export async function nodeLlamaCppSpeed(
  directory: string,
  gguf: string,
  work: ModelWork,
  threads: number,
): Promise<number> {
  const { generate } = work;
  const output = await run(process.execPath, [
    join(import.meta.dirname, 'node-llama-cpp-work.mjs'),
    JSON.stringify({ directory, gguf, threads, generate, prompts: promptsOf(work, 0) }),
  ]);
  return Number(output.trim().split('\n').at(-1));
}
