import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { type TestContext, test } from 'node:test';
import { startNodeCluster } from '../../scripts/cluster/node-cluster.ts';
import { eventually } from '../../scripts/cluster/processes.ts';
import { runPausePod } from '../support/cluster/pause-pod.ts';
import { noNode } from '../support/cluster/requirements.ts';

const skip = noNode();
const owner = join(import.meta.dirname, '../support/cluster/doomed-owner.ts');

interface Left {
  readonly interfaces: readonly string[];
  readonly controlGroups: readonly string[];
}

/** Processes in control groups and those below. */
const processesIn = (groups: readonly string[]): string[] =>
  groups
    .flatMap((group) => globSync(`${group}/**/cgroup.procs`))
    .flatMap((file) => (existsSync(file) ? readFileSync(file, 'utf8').split('\n') : []))
    .filter((pid) => pid !== '');

/** A node with a pod of another process, which is killed without a chance to clean up. Answers the folder and what stands beside it. */
async function killOwner(context: TestContext): Promise<{ folder: string; left: Left }> {
  const child = spawn(process.execPath, [owner], { stdio: ['ignore', 'pipe', 'pipe'] });
  context.after(() => child.kill('SIGKILL'));
  let errors = '';
  child.stderr.on('data', (chunk) => (errors += chunk));
  let folder: string | undefined;
  for await (const line of createInterface({ input: child.stdout })) {
    folder = /^running in (.*)$/.exec(line)?.[1];
    if (folder !== undefined) break;
  }
  assert.ok(folder, errors);
  const left = JSON.parse(readFileSync(join(folder, 'state.json'), 'utf8')) as Left;
  assert.ok(processesIn(left.controlGroups).length >= 2, 'the pod has processes');
  for (const name of left.interfaces) assert.ok(existsSync(`/sys/class/net/${name}`), name);
  const closed = once(child, 'close');
  child.kill('SIGKILL');
  await closed;
  return { folder, left };
}

test('a node whose owner is killed is ended by the kernel, removed by the next start, and the next node runs pods', {
  skip,
  timeout: 600_000,
}, async (context) => {
  const { folder, left } = await killOwner(context);
  await eventually(
    'no process of its pods is left',
    () => processesIn(left.controlGroups).length === 0,
  );
  assert.ok(existsSync(folder), 'nobody has cleaned up yet');
  assert.ok(left.controlGroups.some((group) => existsSync(group)));

  const next = await startNodeCluster({ images: [] });
  context.after(() => next.stop());
  assert.equal(existsSync(folder), false);
  assert.deepEqual(
    left.controlGroups.filter((group) => existsSync(group)),
    [],
  );
  assert.deepEqual(
    left.interfaces.filter((name) => existsSync(`/sys/class/net/${name}`)),
    [],
  );
  assert.ok(!readFileSync('/proc/self/mountinfo', 'utf8').includes(folder), 'no mount is left');
  const fields = globSync('/proc/[0-9]*/cmdline').map((file) => {
    try {
      return readFileSync(file, 'utf8');
    } catch {
      return '';
    }
  });
  assert.deepEqual(
    fields.filter((line) => line.includes(folder)),
    [],
    'no process is left',
  );
  assert.match(await runPausePod(next), /^10\.249\./);
});
