/** Child processes of a cluster: started with their output kept, awaited, stopped by id. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

export interface Child {
  readonly name: string;
  readonly process: ChildProcess;
  /** Last lines of its output. */
  tail(lines?: number): string;
  readonly hasExited: boolean;
  /** SIGTERM (or another signal), then SIGKILL after `graceMs`; resolves when it is gone. */
  stop(signal?: NodeJS.Signals, graceMs?: number): Promise<void>;
}

export interface ChildOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly logFile: string;
}

/** The kernel ends the child when its parent was killed and could not. */
const dieTogether =
  process.platform === 'linux' && spawnSync('setpriv', ['--version']).status === 0
    ? ['setpriv', '--pdeathsig', 'KILL']
    : [];

/** Runs a command that ends at once, and answers its standard output. Throws with what it said. */
export function command(name: string, ...args: readonly string[]): string {
  const { status, stdout, stderr, error } = spawnSync(name, args, { encoding: 'utf8' });
  if (status !== 0)
    throw new Error(`${name} ${args.join(' ')}: ${error?.message ?? stderr.trim()}`);
  return stdout;
}

export function startChild(
  name: string,
  command: string,
  args: readonly string[],
  { env = {}, cwd, logFile }: ChildOptions,
): Child {
  const log = openSync(logFile, 'a');
  const [program = command, ...rest] = [...dieTogether, command, ...args];
  const child = spawn(program, rest, {
    stdio: ['ignore', log, log],
    env: { ...process.env, ...env },
    ...(cwd !== undefined && { cwd }),
  });
  closeSync(log);
  // A command that dies must not leave its cluster behind.
  const kill = (): void => void child.kill('SIGKILL');
  process.once('exit', kill);
  const gone = new Promise<void>((resolve) => {
    child.once('exit', () => resolve());
    child.once('error', () => resolve());
  });
  void gone.then(() => process.removeListener('exit', kill));
  const hasExited = (): boolean => child.exitCode !== null || child.signalCode !== null;
  return {
    name,
    process: child,
    tail: (lines = 25) =>
      readFileSync(logFile, 'utf8').trimEnd().split('\n').slice(-lines).join('\n'),
    get hasExited() {
      return hasExited();
    },
    async stop(signal = 'SIGTERM', graceMs = 10_000) {
      if (hasExited()) return;
      child.kill(signal);
      const timer = setTimeout(kill, graceMs);
      await gone;
      clearTimeout(timer);
    },
  };
}

/** `count` TCP ports that nobody listened on a moment ago. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from(
      { length: count },
      () =>
        new Promise<ReturnType<typeof createServer>>((resolve, reject) => {
          const server = createServer();
          server.once('error', reject);
          server.listen(0, '127.0.0.1', () => resolve(server));
        }),
    ),
  );
  return Promise.all(
    servers.map(
      (server) =>
        new Promise<number>((resolve) => {
          const { port } = server.address() as { port: number };
          server.close(() => resolve(port));
        }),
    ),
  );
}

/** Time for a control plane, a node or an operator to come up: seconds, and minutes beside other builds on two cores. */
export const SETUP_MS = 180_000;

export interface WaitOptions {
  readonly timeoutMs?: number;
  readonly intervalMs?: number;
  /** Added to the error of a timeout. */
  readonly explain?: () => string | Promise<string>;
  /** True ends the wait at once: it can come no more. */
  readonly isHopeless?: () => boolean;
}

/** Calls `probe` until it gives something truthy; a throwing probe counts as not yet. Rejects with the last error in its message. */
export async function eventually<T>(
  what: string,
  probe: () => Promise<T> | T,
  { timeoutMs = 30_000, intervalMs = 100, explain, isHopeless }: WaitOptions = {},
): Promise<NonNullable<T>> {
  const deadline = performance.now() + timeoutMs;
  let last: unknown;
  for (;;) {
    try {
      last = await probe();
      if (last) return last as NonNullable<T>;
    } catch (error) {
      last = error;
    }
    if (isHopeless?.() || performance.now() > deadline) break;
    await sleep(intervalMs);
  }
  const detail = last instanceof Error ? last.message : JSON.stringify(last);
  const more = explain ? `\n${await explain()}` : '';
  const when = isHopeless?.() ? 'No more' : `Not within ${timeoutMs / 1000} s`;
  throw new Error(`${when}: ${what}. Last: ${detail}${more}`);
}
