/**
 * `npm run cluster`: a Kubernetes cluster on this machine with the operator and an example in it, made of the same parts as the
 * tests'. It lasts as long as the command, and leaves nothing.
 */
import { chmodSync, mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { DEFAULT_LANGUAGE_MODEL_REFERENCE, resolveModel } from '#engine/weights/resolve.ts';
import {
  OptionError,
  type OptionTable,
  optionLines,
  readOptions,
  required,
} from '#options/table.ts';
import { choice } from '#options/types.ts';
import { cacheDirectory, root } from '../build.mjs';
import { startStep } from '../progress.mjs';
import { buildCluster } from './build.mjs';
import type { ControlPlane } from './control-plane.ts';
import { type Kubectl, succeed } from './kubectl.ts';
import { buildImages, startNodeCluster } from './node-cluster.ts';
import { missingForNode } from './node-requirements.ts';
import { startPretendedCluster } from './pretended.ts';
import { type ClusterFolder, createClusterFolder } from './state.ts';

const OPTIONS = {
  node: required(
    choice('auto', 'real', 'pretended'),
    'auto',
    'real: one node whose pods run, on the CPU; needs root. pretended: nodes of A100 whose pods only look as if they ran. auto: real where this machine can',
  ),
} satisfies OptionTable;

function readArguments() {
  try {
    const result = readOptions(OPTIONS, process.argv.slice(2), {}, () => true);
    if (result !== 'help') return result.values;
    console.log(`Usage: npm run cluster -- [options]\n\n${optionLines(OPTIONS)}`);
    process.exit(0);
  } catch (error) {
    if (!(error instanceof OptionError)) throw error;
    console.error(error.message);
    process.exit(2);
  }
}

/** Shows that `work` runs, and the part of it that is done where it tells one. */
async function narrate<T>(
  title: string,
  work: (update: (fraction?: number) => void) => Promise<T>,
): Promise<T> {
  const step = startStep(title);
  try {
    const result = await work(step.update);
    step.done();
    return result;
  } catch (error) {
    step.fail('failed');
    throw error;
  }
}

/** The folder of the default model in this machine's cache. */
async function fetchModel(): Promise<string> {
  const { path } = await narrate(`Fetch ${DEFAULT_LANGUAGE_MODEL_REFERENCE}`, (update) =>
    resolveModel(DEFAULT_LANGUAGE_MODEL_REFERENCE, {
      cacheDirectory: join(cacheDirectory, 'models'),
      onProgress: ({ receivedBytes, totalBytes }) =>
        update(totalBytes && receivedBytes / totalBytes),
    }),
  );
  return dirname(path);
}

async function installOperator(kubectl: Kubectl): Promise<void> {
  await narrate('Apply charts/install.yaml', () =>
    succeed(kubectl, 'apply', '--server-side', '-f', join(root, 'charts/install.yaml')),
  );
  await narrate('Wait for the operator', () =>
    succeed(
      kubectl,
      ...['-n', 'nvlm-system', 'rollout', 'status', 'deployment/nvlm-operator', '--timeout=5m'],
    ),
  );
}

async function startReal(state: ClusterFolder): Promise<string> {
  const images = await narrate('Build the images', () => buildImages(join(state.path, 'images')));
  const model = await fetchModel();
  const { plane, kubectl } = await startNodeCluster({ images, models: [model], state, narrate });
  await installOperator(kubectl);
  await narrate('Apply examples/laptop.yaml', () =>
    succeed(kubectl, 'apply', '-f', join(root, 'examples/laptop.yaml')),
  );
  await narrate('Wait until chat is Ready', () =>
    succeed(kubectl, 'wait', 'nvlm/chat', '--for=jsonpath={.status.phase}=Ready', '--timeout=5m'),
  );
  const address = await succeed(
    kubectl,
    'get',
    'service',
    'chat',
    '-o',
    'jsonpath={.spec.clusterIP}',
  );
  return `${await describe(plane, kubectl)}
  Chat in the browser    http://${address}/
  Chat in the terminal   kubectl nvlm chat chat
  What it does           kubectl nvlm status chat
  A load                 npm run bench -- serve --url http://${address}
`;
}

async function startFake(state: ClusterFolder): Promise<string> {
  const { plane, kubectl } = await startPretendedCluster(state, narrate);
  return `${await describe(plane, kubectl)}
  What it does           kubectl nvlm status nvlm-d-72b
  A new replica          kubectl scale nvlm/nvlm-d-72b --replicas=2

  The pods of these nodes only look as if they ran: no engine answers.
`;
}

/** What a user types first, with the answers. */
async function describe({ folder, programs, kubeconfig }: ControlPlane, kubectl: Kubectl) {
  const bin = join(folder, 'bin');
  mkdirSync(bin);
  symlinkSync(join(programs, 'kubectl'), join(bin, 'kubectl'));
  const plugin = join(bin, 'kubectl-nvlm');
  const command = [process.execPath, join(root, 'operator/plugin/main.ts')];
  writeFileSync(plugin, `#!/bin/sh\nexec ${command.map((word) => `'${word}'`).join(' ')} "$@"\n`);
  chmodSync(plugin, 0o755);
  const indented = (text: string): string => text.trimEnd().replace(/^/gm, '  ');
  return `
  export KUBECONFIG=${kubeconfig}
  export PATH=${bin}:$PATH

  $ kubectl get nodes
${indented(await succeed(kubectl, 'get', 'nodes'))}

  $ kubectl get nvlm
${indented(await succeed(kubectl, 'get', 'nvlm'))}
`;
}

const { node } = readArguments();
const missing = node === 'pretended' ? undefined : missingForNode();
if (node === 'real' && missing !== undefined) {
  console.error(`A real node needs ${missing}.`);
  process.exit(1);
}
if (missing !== undefined)
  console.error(`  The nodes are pretended ones: a real node needs ${missing}.`);
const state = await createClusterFolder();
let isStopping = false;
async function stop(exitCode: number): Promise<never> {
  isStopping = true;
  await narrate('Stop the cluster', () => state.remove());
  process.exit(exitCode);
}
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  // A terminal sends it to npm and to this process, and npm passes it on: it may come twice.
  process.on(signal, () => void (isStopping || stop(0)));
}
try {
  await buildCluster();
  const isReal = node !== 'pretended' && missing === undefined;
  console.log(await (isReal ? startReal : startFake)(state));
  console.log('  Stop with Ctrl-C.\n');
  // Nothing of it keeps this process running.
  setInterval(() => {}, 2 ** 30);
} catch (error) {
  // What was being done when the signal came fails because of it.
  if (!isStopping) {
    console.error(error instanceof Error ? error.message : error);
    await stop(1);
  }
}
