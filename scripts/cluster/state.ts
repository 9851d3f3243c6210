/**
 * The folder of a cluster, and in it a list of what the cluster has outside of it: processes, network interfaces, control
 * groups. A cluster whose owner was killed is cleaned by that list when the next one starts.
 */
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  globSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** A process number is used again some day; together with the start time it is not. */
interface ProcessId {
  readonly pid: number;
  readonly startTime: string;
}

interface State {
  readonly owner: ProcessId;
  readonly processes: readonly ProcessId[];
  readonly interfaces: readonly string[];
  readonly controlGroups: readonly string[];
}

export interface ClusterFolder {
  readonly path: string;
  addProcess(pid: number | undefined): void;
  /** To be called before the interface is made: none is ever without a record. */
  addInterface(name: string): void;
  addControlGroup(path: string): void;
  /** Ends and removes everything on the list, then the folder. */
  remove(): Promise<void>;
}

const prefix = join(tmpdir(), 'nvlm-cluster-');
const stateFile = 'state.json';

/** Clock ticks from the start of the machine to that of the process; undefined when there is none, or only its remains. */
function startTimeOf(pid: number): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const [state, ...fields] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return state === 'Z' ? undefined : fields[18];
  } catch {
    return undefined;
  }
}

const isAlive = ({ pid, startTime }: ProcessId): boolean => startTimeOf(pid) === startTime;

/** Makes the folder of a new cluster, after those of dead owners were cleaned. */
export async function createClusterFolder(): Promise<ClusterFolder> {
  await removeLeftovers();
  const path = mkdtempSync(prefix);
  const processes: ProcessId[] = [];
  const interfaces: string[] = [];
  const controlGroups: string[] = [];
  const owner = { pid: process.pid, startTime: startTimeOf(process.pid) ?? '' };
  const current = (): State => ({ owner, processes, interfaces, controlGroups });
  const save = (): void => {
    const file = join(path, stateFile);
    writeFileSync(`${file}.new`, JSON.stringify(current()));
    renameSync(`${file}.new`, file);
  };
  save();
  const add = <T>(list: T[], item: T): void => {
    list.push(item);
    save();
  };
  return {
    path,
    addProcess(pid) {
      const startTime = pid === undefined ? undefined : startTimeOf(pid);
      if (pid !== undefined && startTime !== undefined) add(processes, { pid, startTime });
    },
    addInterface: (name) => add(interfaces, name),
    addControlGroup: (group) => add(controlGroups, group),
    remove: () => clean(path, current()),
  };
}

/** Cleans after clusters whose owner ended without doing so. Answers their folders. */
export async function removeLeftovers(): Promise<string[]> {
  const removed: string[] = [];
  for (const file of globSync(`${prefix}*/${stateFile}`)) {
    const path = file.slice(0, -stateFile.length - 1);
    let state: State;
    try {
      state = JSON.parse(readFileSync(file, 'utf8'));
    } catch {
      // Its owner removes it at this moment.
      continue;
    }
    if (isAlive(state.owner)) continue;
    await clean(path, state);
    removed.push(path);
  }
  return removed;
}

async function clean(path: string, { processes, interfaces, controlGroups }: State): Promise<void> {
  for (const one of processes.filter(isAlive)) {
    try {
      process.kill(one.pid, 'SIGKILL');
    } catch {
      // It ended by itself.
    }
  }
  while (processes.some(isAlive)) await sleep(20);
  for (const name of interfaces.filter((one) => existsSync(`/sys/class/net/${one}`))) {
    // Where it cannot be deleted it was just taken down together with the namespace at its other end.
    spawnSync('ip', ['link', 'delete', name]);
  }
  for (const group of controlGroups) await removeControlGroup(group);
  rmSync(path, { recursive: true, force: true });
}

/** Its processes have ended, or do so at this moment: a group is busy until the kernel has taken the last one out. */
async function removeControlGroup(path: string): Promise<void> {
  if (!existsSync(path)) return;
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    if (entry.isDirectory()) await removeControlGroup(join(path, entry.name));
  }
  for (let tries = 0; ; tries++) {
    try {
      rmdirSync(path);
      return;
    } catch (error) {
      if (!existsSync(path)) return;
      if (tries === 250) throw error;
      await sleep(20);
    }
  }
}
