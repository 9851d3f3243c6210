/**
 * PyTorch as a peer, on the CPU: the wheel that PyPI has, in a virtual environment of its own in the cache, kept by version. That wheel is
 * linked against two gigabytes of NVIDIA's libraries, which a CPU never calls: empty ones of the same names and symbols stand in
 * for them, so that the loader is content.
 */
import type { ChildProcess } from 'node:child_process';
import { spawn } from 'node:child_process';
import { globSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { createInterface } from 'node:readline';
import { buildOnce } from '../../scripts/build-once.mjs';
import { run } from '../../scripts/command.mjs';

export const torchVersion = '2.15.0';
/** What `import torch` needs of its requirements. */
const requirements = [
  'filelock==4.3.1',
  'fsspec==2026.9.0',
  'jinja2==3.1.6',
  'markupsafe==3.0.4',
  'mpmath==1.3.0',
  'networkx==3.6.1',
  'sympy==1.14.0',
  'typing-extensions==4.16.0',
];

/** The interpreter of an environment that has PyTorch; downloads half a gigabyte the first time. */
export async function installPyTorch(
  cacheDirectory: string,
  progress: (fraction: number | undefined, note: string) => void,
): Promise<string> {
  const directory = join(cacheDirectory, 'peers', `torch-${torchVersion}`);
  await buildOnce(directory, async (work) => {
    // What is called by its module, never by a script in bin, may be moved.
    const python = join(work, 'bin/python');
    progress(undefined, 'environment');
    await run('python3', ['-m', 'venv', work]);
    const pip = ['-m', 'pip', 'install', '-q', '--no-cache-dir', '--no-deps'];
    progress(undefined, `torch ${torchVersion} from PyPI`);
    await run(python, [...pip, `torch==${torchVersion}`, ...requirements]);
    progress(undefined, 'stand-ins for libraries of GPUs');
    const [libraries] = globSync(join(work, 'lib/python*/site-packages/torch/lib'));
    if (libraries === undefined) throw new Error(`torch ${torchVersion} has no folder torch/lib.`);
    await standInForGpuLibraries(libraries);
    await run(python, ['-c', 'import torch; torch.ones(2, 2) @ torch.ones(2, 2)']);
  });
  return join(directory, 'bin/python');
}

/** Defines every symbol that the libraries of a folder want from NVIDIA's, each in a library of the name they look it up in. */
async function standInForGpuLibraries(directory: string): Promise<void> {
  const isGpu = /^lib(cu|nv|nccl)/;
  const needed = new Set<string>();
  /** By symbol version, '' for none. */
  const symbols = new Map<string, Set<string>>();
  for (const library of globSync(join(directory, '*.so*'))) {
    const dynamic = await run('readelf', ['-d', library]);
    for (const [, name = ''] of dynamic.matchAll(/\(NEEDED\).*\[(.*)\]/g))
      if (isGpu.test(name)) needed.add(name);
    const undefinedSymbols = await run('nm', ['-D', '--undefined-only', library]);
    for (const [, symbol = '', version = ''] of undefinedSymbols.matchAll(
      / U ((?:_*cu|_*nv|nccl)\w+)(?:@(\S+))?/g,
    ))
      symbols.set(version, (symbols.get(version) ?? new Set()).add(symbol));
  }
  const work = join(directory, '.stand-ins');
  mkdirSync(work, { recursive: true });
  for (const name of needed) {
    const version = name.startsWith('libnvshmem') ? 'NVSHMEM' : name;
    const own = new Set(symbols.get(version));
    if (name.startsWith('libnccl')) for (const symbol of symbols.get('') ?? []) own.add(symbol);
    // 100 is cudaErrorNoDevice.
    const source = [...own].map((symbol) => `int ${symbol}(void) { return 100; }\n`).join('');
    writeFileSync(join(work, 'stand-in.c'), source);
    writeFileSync(join(work, 'versions'), `${version} { global: *; };\n`);
    await run('cc', [
      ...['-shared', '-fPIC', '-w', '-fno-builtin', `-Wl,-soname,${name}`],
      ...(name.startsWith('libnccl') ? [] : [`-Wl,--version-script=${join(work, 'versions')}`]),
      ...['-o', join(work, basename(name)), join(work, 'stand-in.c')],
    ]);
    renameSync(join(work, basename(name)), join(directory, basename(name)));
  }
  rmSync(work, { recursive: true });
}

/** A Python process that answers requests, one JSON line each way. */
export interface PythonWorker {
  ask(request: Readonly<Record<string, unknown>>): Promise<Readonly<Record<string, unknown>>>;
  close(): Promise<void>;
}

/** Starts a script. OpenBLAS and OpenMP settings of this process do not reach it: it shall choose for itself. */
export function startPython(python: string, args: readonly string[]): PythonWorker {
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !/^(OPENBLAS|OMP|MKL|GOTO)_/.test(name)),
  );
  const child: ChildProcess = spawn(python, args, { stdio: ['pipe', 'pipe', 'inherit'], env });
  const { stdin, stdout } = child;
  if (stdin === null || stdout === null) throw new Error('The Python process has no pipes.');
  const waiting: ((line: string) => void)[] = [];
  createInterface(stdout).on('line', (line) => waiting.shift()?.(line));
  const ended = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  return {
    ask: async (request) => {
      const answer = await Promise.race([
        new Promise<string>((resolve) => {
          waiting.push(resolve);
          stdin.write(`${JSON.stringify(request)}\n`);
        }),
        ended.then((code) => {
          throw new Error(`The Python process ended with exit code ${code}.`);
        }),
      ]);
      const result = JSON.parse(answer) as Record<string, unknown>;
      if (typeof result.failed === 'string')
        throw new Error(`PyTorch, ${JSON.stringify(request)}: ${result.failed}`);
      return result;
    },
    close: async () => {
      stdin.end();
      await ended;
    },
  };
}
