/**
 * Programs of the test cluster, built from Go modules and kept in the cache by version: etcd, the Kubernetes control plane,
 * kubelet, kube-proxy, kubectl (one program, called by symlinks), KWOK and the LeaderWorkerSet controller.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { cacheDirectory, root } from '../build.mjs';
import { buildOnce } from '../build-once.mjs';
import { run } from '../command.mjs';
import { startStep } from '../progress.mjs';

/** One folder a Go module: its go.mod pins every version. */
export const modules = join(root, 'scripts/cluster/modules');
const kubernetesVersion = 'v1.34.3';
const links = [
  'etcd',
  'kube-apiserver',
  'kube-controller-manager',
  'kube-proxy',
  'kube-scheduler',
  'kubectl',
  'kubelet',
];

/** The Go that builds: its version, or undefined when there is none. */
export function findGo() {
  const result = spawnSync('go', ['version'], { encoding: 'utf8' });
  return result.status === 0 ? result.stdout.trim() : undefined;
}

const versionFlags = () => {
  const [, major, minor] = /^v(\d+)\.(\d+)/.exec(kubernetesVersion) ?? [];
  const values = {
    gitVersion: kubernetesVersion,
    gitMajor: major,
    gitMinor: minor,
    gitTreeState: 'clean',
    gitCommit: 'module',
    buildDate: '1970-01-01T00:00:00Z',
  };
  const settings = ['k8s.io/component-base/version', 'k8s.io/client-go/pkg/version'].flatMap(
    (name) => Object.entries(values).map(([key, value]) => `-X ${name}.${key}=${value}`),
  );
  return ['-s', '-w', ...settings].join(' ');
};

const programs = [
  {
    title: 'Kubernetes and etcd',
    module: 'kube',
    package: '.',
    output: 'kube',
    flags: versionFlags(),
  },
  {
    title: 'LeaderWorkerSet controller',
    module: 'kube',
    package: 'sigs.k8s.io/lws/cmd',
    output: 'lws',
    flags: '-s -w',
  },
  {
    title: 'KWOK',
    module: 'kwok',
    package: 'sigs.k8s.io/kwok/cmd/kwok',
    output: 'kwok',
    flags: '-s -w',
  },
];

const environment = {
  CGO_ENABLED: '0',
  GOWORK: 'off',
  GOFLAGS: '-mod=readonly -trimpath -buildvcs=false -modcacherw',
  GOTOOLCHAIN: 'local',
};

/**
 * Builds what is missing; resolves with the folder that holds the programs, by their usual names. The first build takes
 * minutes and gigabytes of Go cache, every later one milliseconds.
 */
export async function buildCluster() {
  const hash = createHash('sha256').update(process.arch);
  for (const { module } of programs) {
    for (const file of ['go.mod', 'go.sum']) hash.update(readFileSync(join(modules, module, file)));
  }
  hash.update(readFileSync(join(modules, 'kube/main.go'))).update(JSON.stringify(programs));
  const folder = join(
    cacheDirectory,
    'cluster',
    `${kubernetesVersion}-${hash.digest('hex').slice(0, 12)}`,
  );
  if (existsSync(folder)) return folder;
  if (!findGo())
    throw new Error('The test cluster is built from Go modules: install Go 1.25 or later.');
  await buildOnce(folder, async (work) => {
    for (const program of programs) await buildProgram(program, work);
    for (const link of links) symlinkSync('kube', join(work, link));
  });
  return folder;
}

/** Builds one program of a module into a folder, and tells how far it is. */
export async function buildProgram({ title, module, package: name, output, flags }, folder) {
  const cwd = join(modules, module);
  const progress = startStep(`Build ${title} (Go)`);
  try {
    const packages = await run('go', ['list', '-deps', name], { cwd, env: environment });
    const total = packages.trim().split('\n').length;
    let compiled = 0;
    const args = ['build', '-v', '-gcflags=all=-dwarf=false', '-ldflags', flags];
    await run('go', [...args, '-o', join(folder, output), name], {
      cwd,
      env: environment,
      onLine: (line) => {
        if (/^[\w.-]+(\/[\w.~-]+)*$/.test(line)) progress.update(Math.min(++compiled / total, 1));
      },
    });
    progress.done();
  } catch (error) {
    progress.fail('failed');
    throw error;
  }
}
