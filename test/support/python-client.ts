/** A Python with the official client at a pinned version, made once per machine in the cache. */
import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';

const REQUIREMENT = 'openai[realtime]==3.54.0';
const NAME = 'venv-openai-3.54.0';

/**
 * The interpreter's path, or why there is none. Under CI nothing is skipped: there it throws with the same words. The
 * environment is built beside its place and moved there whole, so that an interrupted install is never used.
 */
export function findPythonClient(): { readonly python: string } | { readonly skip: string } {
  const cacheHome = process.env.XDG_CACHE_HOME || join(homedir(), '.cache');
  const folder = join(cacheHome, 'nvlm', NAME);
  const python = join(folder, 'bin', 'python');
  if (existsSync(python)) return { python };
  const partial = `${folder}.${process.pid}`;
  mkdirSync(join(cacheHome, 'nvlm'), { recursive: true });
  const failure =
    attempt('python3', ['-m', 'venv', partial]) ??
    attempt(join(partial, 'bin', 'python'), [
      ...['-m', 'pip', 'install', '--quiet', '--no-input', '--disable-pip-version-check'],
      REQUIREMENT,
    ]);
  if (failure === undefined) {
    try {
      renameSync(partial, folder);
    } catch (error) {
      // Another process was faster; its environment is as good.
      if (!existsSync(python)) throw error;
    }
  }
  rmSync(partial, { recursive: true, force: true });
  if (failure === undefined) return { python };
  const reason = `no Python with ${REQUIREMENT}: ${failure}`;
  if (process.env.CI) throw new Error(reason);
  return { skip: reason };
}

export interface Outcome {
  readonly check: string;
  readonly error: string | null;
}

/** Runs a script of test/wire, which prints one outcome a line. */
export async function runChecks(
  python: string,
  script: string,
  args: readonly string[],
): Promise<readonly Outcome[]> {
  const { stdout } = await promisify(execFile)(python, [`test/wire/${script}`, ...args]);
  return stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
}

/** One test for each check, named by its behaviour, of outcomes that are there by then. */
export function testChecks(
  checks: Readonly<Record<string, string>>,
  outcomes: () => readonly Outcome[],
): void {
  for (const [check, behaviour] of Object.entries(checks)) {
    test(behaviour, () => {
      const outcome = outcomes().find((one) => one.check === check);
      assert.equal(outcome?.error, null, outcome?.error ?? `${check} did not run`);
    });
  }
}

/** Undefined on success, else the last lines of what went wrong. */
function attempt(command: string, args: readonly string[]): string | undefined {
  const { status, error, stderr } = spawnSync(command, args, {
    encoding: 'utf8',
    timeout: 300_000,
  });
  if (error !== undefined) return `${command}: ${error.message}`;
  return status === 0 ? undefined : `${command} ended with ${status}: ${stderr.trim().slice(-400)}`;
}
