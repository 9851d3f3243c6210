/** Slow builds in the cache: made once under their key, whoever else wants them at the same time. */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const isAlive = (pid) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return error.code === 'EPERM';
  }
};

/** Whether the file is now this process's; one that a dead process left is taken away for the next try. */
function take(lock) {
  try {
    writeFileSync(lock, String(process.pid), { flag: 'wx' });
    return true;
  } catch (error) {
    if (error.code !== 'EEXIST') throw error;
  }
  let holder;
  try {
    holder = readFileSync(lock, 'utf8');
  } catch {
    return false;
  }
  // Empty: its owner is between creating and writing it.
  if (holder !== '' && !isAlive(Number(holder))) {
    // By rename, so that of two who see the same dead holder one takes it away and neither takes a new holder's.
    const dead = `${lock}.${process.pid}`;
    try {
      renameSync(lock, dead);
      if (readFileSync(dead, 'utf8') !== holder) renameSync(dead, lock);
      else rmSync(dead);
    } catch {}
  }
  return false;
}

/**
 * Calls `make(work)` to fill an empty folder that then becomes `folder`, unless that is there already. Processes that want the same
 * folder wait for the one that makes it; when that one fails or is killed, the next one makes it.
 *
 * @param {string} folder
 * @param {(work: string) => Promise<void>} make
 * @returns {Promise<void>}
 */
export async function buildOnce(folder, make) {
  if (existsSync(folder)) return;
  mkdirSync(dirname(folder), { recursive: true });
  const lock = `${folder}.lock`;
  while (!take(lock)) {
    await sleep(200);
    if (existsSync(folder)) return;
  }
  const work = `${folder}.${process.pid}`;
  try {
    if (existsSync(folder)) return;
    // Under the lock, other work folders of this key are those of killed builds.
    for (const name of readdirSync(dirname(folder))) {
      if (name.startsWith(`${basename(folder)}.`) && /\.\d+$/.test(name))
        rmSync(join(dirname(folder), name), { recursive: true });
    }
    mkdirSync(work);
    await make(work);
    // Rename last: a killed build never leaves half a folder under the key.
    renameSync(work, folder);
  } finally {
    rmSync(work, { recursive: true, force: true });
    rmSync(lock, { force: true });
  }
}
