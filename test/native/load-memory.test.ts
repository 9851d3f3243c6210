import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { promisify } from 'node:util';
import { cpuBackends } from '../support/backends.ts';

const skip =
  cpuBackends()[0]!.skip ||
  (!existsSync('/proc/self/status') && 'this system does not tell the peak memory of a process');

const script = join(import.meta.dirname, 'load-memory.ts');

interface Loading {
  /** Bytes the process grew by at most. */
  readonly peak: number;
  /** Bytes of the weights as repacked. */
  readonly held: number;
  readonly fileBytes: number;
  readonly computeType: string;
}

async function load(type: string): Promise<Loading> {
  const directory = mkdtempSync(join(tmpdir(), 'nvlm-load-memory-'));
  try {
    const { stdout } = await promisify(execFile)(process.execPath, [
      script,
      join(directory, 'weights'),
      type,
    ]);
    return JSON.parse(stdout);
  } finally {
    rmSync(directory, { recursive: true });
  }
}

for (const [type, computeType] of [
  ['bf16', 'bfloat16'],
  ['q8_0', 'int8'],
  ['q4_1', 'int4'],
] as const) {
  test(`loading ${type} weights never takes 1.3 times the memory that they then hold`, {
    skip,
  }, async () => {
    const loading = await load(type);
    assert.equal(loading.computeType, computeType);
    const { peak, held, fileBytes } = loading;
    const figures = JSON.stringify(loading);
    assert.ok(held >= fileBytes && held < 1.1 * fileBytes, `held as stored: ${figures}`);
    // Below what is held nothing was measured at all.
    assert.ok(peak > 0.9 * held && peak < 1.3 * held, figures);
  });
}
