/** Memory this process may still take: asked before weights and cache are allocated, so that it is never killed for taking them. */
import { readFileSync } from 'node:fs';
import { freemem } from 'node:os';

function readNumber(path: string, pattern: RegExp): number | undefined {
  try {
    const found = pattern.exec(readFileSync(path, 'utf8'));
    return found ? Number(found[1]) : undefined;
  } catch {
    return undefined;
  }
}

/** Bytes left under the limit of the control group this process is in; undefined where there is none. */
function leftInGroup(directory: string, limit: string, usage: string): number | undefined {
  const limitBytes = readNumber(`${directory}/${limit}`, /^(\d+)/);
  const usedBytes = readNumber(`${directory}/${usage}`, /^(\d+)/);
  // Version 1 writes a number near 2^63 for "no limit".
  if (limitBytes === undefined || usedBytes === undefined || limitBytes > 2 ** 60) return undefined;
  // File pages are given back before anything is killed.
  const fileBytes = readNumber(`${directory}/memory.stat`, /^(?:total_)?inactive_file (\d+)/m) ?? 0;
  return Math.max(0, limitBytes - usedBytes + fileBytes);
}

/** The least of what the machine and the control groups leave. */
export function availableMemory(): number {
  const kibibytes = readNumber('/proc/meminfo', /^MemAvailable:\s+(\d+) kB/m);
  const left = [
    kibibytes === undefined ? freemem() : kibibytes * 1024,
    leftInGroup('/sys/fs/cgroup', 'memory.max', 'memory.current'),
    leftInGroup('/sys/fs/cgroup/memory', 'memory.limit_in_bytes', 'memory.usage_in_bytes'),
  ];
  return Math.min(...left.filter((bytes) => bytes !== undefined));
}
