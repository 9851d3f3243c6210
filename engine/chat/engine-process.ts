/** An engine of the chat's own: a child process on a free port of this machine. */
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { ChatError } from './chat-error.ts';

/** After this an engine that does not end by itself is killed. */
const STOP_TIMEOUT_MS = 5000;

export interface EngineProcess {
  /** http://HOST:PORT */
  readonly url: string;
  /** Resolves when it ends, with what to tell the user. */
  readonly ended: Promise<string>;
  stop(): Promise<void>;
}

/**
 * Starts `node engine/main.ts` with these variables and no other flags than the port; its progress and warnings go to our
 * standard error. Throws ChatError 'engine_ended' when it ends before it listens; its own message is on standard error then.
 */
export async function startEngine(
  environment: Readonly<Record<string, string | undefined>>,
): Promise<EngineProcess> {
  const child = spawn(process.execPath, [join(import.meta.dirname, '../main.ts'), '--port', '0'], {
    env: environment,
    // The channel carries nothing: its end tells the engine that this process is gone, however it went.
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
    // A Ctrl-C of the terminal reaches its whole process group, and must stop the answer only.
    detached: true,
  });
  const killNow = () => child.kill('SIGKILL');
  process.once('exit', killNow);
  const ended = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(`the engine could not be started: ${error.message}`));
    child.once('exit', (code, signal) => resolve(`the engine ended (${signal ?? `code ${code}`})`));
  });
  const url = await Promise.race([listeningUrl(child), ended.then(() => undefined)]);
  if (url === undefined) throw new ChatError('engine_ended', await ended);
  return {
    url,
    ended,
    stop: async () => {
      const timer = setTimeout(killNow, STOP_TIMEOUT_MS);
      child.kill('SIGTERM');
      await ended;
      clearTimeout(timer);
      process.off('exit', killNow);
    },
  };
}

/** Also keeps reading what the engine prints later, so that it never blocks on a full pipe. */
function listeningUrl(child: ChildProcess): Promise<string | undefined> {
  return new Promise((resolve) => {
    if (child.stdout === null) return;
    createInterface({ input: child.stdout }).on('line', (line) => {
      const url = /^listening on (\S+)/.exec(line)?.[1];
      if (url !== undefined) resolve(url);
    });
  });
}
