/** One writer per cache entry, between processes: a lock file with the holder's name and a heartbeat. */
import { randomUUID } from 'node:crypto';
import { open, readFile, rm, stat, utimes } from 'node:fs/promises';
import { hostname } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';

const HEARTBEAT_MS = 5_000;
/** A holder on another machine that has not moved for so long is taken for dead. */
const STALE_MS = 60_000;
/** The same for a process that is alive here: its id may have been given to another since. */
const STALE_ALIVE_MS = 600_000;
const POLL_MS = 200;

interface Holder {
  readonly token: string;
  readonly pid: number;
  readonly host: string;
}

/**
 * Waits until `path` can be created, then runs `use` and removes it. Locks of dead processes are taken over: at once on
 * this machine, after a minute without heartbeat on others. `onWait` is called once when another holds the lock.
 */
export async function withFileLock<T>(
  path: string,
  options: { readonly signal?: AbortSignal | undefined; readonly onWait?: () => void },
  use: () => Promise<T>,
): Promise<T> {
  const holder: Holder = { token: randomUUID(), pid: process.pid, host: hostname() };
  let waited = false;
  while (!(await tryCreate(path, JSON.stringify(holder)))) {
    if (!waited) options.onWait?.();
    waited = true;
    if (await isStale(path)) await takeAway(path);
    else await sleep(POLL_MS, undefined, options.signal ? { signal: options.signal } : {});
  }
  const heartbeat = setInterval(() => {
    const now = new Date();
    utimes(path, now, now).catch(() => undefined);
  }, HEARTBEAT_MS);
  heartbeat.unref();
  try {
    return await use();
  } finally {
    clearInterval(heartbeat);
    if ((await readHolder(path))?.token === holder.token) await rm(path, { force: true });
  }
}

async function tryCreate(path: string, content: string): Promise<boolean> {
  try {
    const file = await open(path, 'wx');
    try {
      await file.writeFile(content);
    } finally {
      await file.close();
    }
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

async function readHolder(path: string): Promise<Holder | undefined> {
  try {
    return JSON.parse(await readFile(path, 'utf8'));
  } catch {
    return undefined;
  }
}

async function isStale(path: string): Promise<boolean> {
  const stats = await stat(path).catch(() => undefined);
  if (stats === undefined) return false;
  const age = Date.now() - stats.mtimeMs;
  const holder = await readHolder(path);
  if (holder?.host !== hostname()) return age > STALE_MS;
  return !isAlive(holder.pid) || age > STALE_ALIVE_MS;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

/**
 * Removes a stale lock. Only one waiter may, and only after looking again: between a waiter's look and its removal
 * another may have taken the lock over, and that new lock must stay.
 */
async function takeAway(path: string): Promise<void> {
  const guard = `${path}.takeover`;
  if (await tryCreate(guard, '')) {
    try {
      if (await isStale(path)) await rm(path, { force: true });
    } finally {
      await rm(guard, { force: true });
    }
    return;
  }
  const guardStats = await stat(guard).catch(() => undefined);
  if (guardStats !== undefined && Date.now() - guardStats.mtimeMs > STALE_MS) {
    await rm(guard, { force: true });
  }
  await sleep(POLL_MS);
}
