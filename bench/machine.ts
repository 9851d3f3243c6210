/** What the numbers were measured on. */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { availableParallelism, cpus, totalmem } from 'node:os';

export interface Machine {
  readonly cpu: string;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly flags: readonly string[];
  readonly node: string;
  readonly commit: string;
  readonly date: string;
}

const interestingFlags = [
  'avx2',
  'avx512f',
  'avx512_vnni',
  'avx512_bf16',
  'avx_vnni',
  'amx_bf16',
  'amx_int8',
];

export function describeMachine(): Machine {
  let flags: string[] = [];
  let family = '';
  try {
    const info = readFileSync('/proc/cpuinfo', 'utf8');
    const present = new Set(/^flags\s*: (.*)$/m.exec(info)?.[1]?.split(' ') ?? []);
    flags = interestingFlags.filter((flag) => present.has(flag));
    family = ` (family ${/^cpu family\s*: (.*)$/m.exec(info)?.[1]}, model ${/^model\s*: (.*)$/m.exec(info)?.[1]})`;
  } catch {
    // Not Linux: the name has to do.
  }
  let commit = 'unknown';
  try {
    commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    // Not a clone.
  }
  return {
    cpu: `${cpus()[0]?.model.trim() ?? 'unknown'}${family}`,
    cores: availableParallelism(),
    memoryGiB: Math.round(totalmem() / 2 ** 30),
    flags,
    node: process.version,
    commit,
    date: new Date().toISOString().slice(0, 10),
  };
}

export const machineLine = (machine: Machine): string =>
  `${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB, ${machine.flags.join(' ') || 'no vector flags'}; Node ${machine.node}; commit ${machine.commit}; ${machine.date}`;

/**
 * Reads the package energy counters (RAPL). Undefined where the machine does not tell, as in most virtual machines.
 * Returns joules since `start`, counter wrap-around included.
 */
export function startEnergyMeter(): (() => number) | undefined {
  const base = '/sys/class/powercap';
  try {
    const zones = readdirSync(base).filter((zone) => /^intel-rapl:\d+$/.test(zone));
    if (zones.length === 0) return undefined;
    const read = (zone: string, file: string) =>
      Number(readFileSync(`${base}/${zone}/${file}`, 'utf8'));
    const before = zones.map((zone) => read(zone, 'energy_uj'));
    return () =>
      zones.reduce((joules, zone, i) => {
        const used = read(zone, 'energy_uj') - (before[i] as number);
        return joules + (used < 0 ? used + read(zone, 'max_energy_range_uj') : used) / 1e6;
      }, 0);
  } catch {
    return undefined;
  }
}
