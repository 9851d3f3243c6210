#!/usr/bin/env node
/** `kubectl nvlm`: what a deployment is doing, a chat with it, and what a manifest would change. */
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { styleText } from 'node:util';
import { loadAllYaml } from '@kubernetes/client-node';
import { engineObjects } from '#charts/engine-objects.ts';
import { engineRevision } from '#charts/engine-pod.ts';
import { LABELS, memberSelector, OPERATOR_NAME, selectorText } from '#charts/labels.ts';
import { isGrouped, leaderWorkerSet } from '#charts/leader-worker-set.ts';
import type { EngineProps } from '#charts/props.ts';
import { API_VERSION, KIND, type NVLMDeployment } from '#crds/nvlm-deployment.ts';
import {
  OptionError,
  type OptionTable,
  optional,
  optionLines,
  readOptions,
  required,
} from '#options/table.ts';
import { choice, text } from '#options/types.ts';
import { connectKube, type KubeClient, loadKubeConfig } from '../kube/client.ts';
import { isNotFound, KubeError } from '../kube/errors.ts';
import {
  collectionPath,
  type KubeList,
  type KubeObject,
  objectPath,
  RESOURCES,
  resourceOf,
} from '../kube/resource.ts';
import { NVLM_RESOURCE } from '../nvlm/context.ts';
import type { PodObject } from '../nvlm/pod.ts';
import { changesBetween, changeText } from './changes.ts';
import { chatProgram } from './chat-program.ts';
import { deploymentTree, drawTree, type EventObject, type Node, type Seen } from './tree.ts';

const OPTIONS = {
  namespace: optional(text, 'Namespace; default: that of the context'),
  kubeconfig: optional(text, 'Kubeconfig file; default: KUBECONFIG or ~/.kube/config'),
  filename: optional(text, 'plan: the manifest'),
  output: required(choice('tree', 'json'), 'tree', 'status: how it is written'),
  'operator-namespace': required(text, 'nvlm-system', 'plan: where the operator runs'),
} satisfies OptionTable;
const SHORT: Readonly<Record<string, string>> = {
  '-n': '--namespace',
  '-f': '--filename',
  '-o': '--output',
};
const FIELD_MANAGER = 'kubectl-nvlm';

const help = `Usage: kubectl nvlm COMMAND [options]

  status [NAME]   deployments with revisions, pods, children and events
  chat NAME       a chat in the terminal, through the API server
  plan -f FILE    what applying a manifest would change; nothing is written

${optionLines(OPTIONS)}
`;

function fail(message: string, exitCode: number): never {
  console.error(message);
  process.exit(exitCode);
}

function readArguments() {
  const words: string[] = [];
  const flags: string[] = [];
  const given = process.argv.slice(2);
  for (let i = 0; i < given.length; i++) {
    const word = given[i] as string;
    if (!word.startsWith('-')) words.push(word);
    else {
      flags.push(SHORT[word] ?? word);
      if (!word.includes('=') && word !== '--help' && given[i + 1] !== undefined)
        flags.push(given[++i] as string);
    }
  }
  try {
    const result = readOptions(OPTIONS, flags, {}, () => true);
    if (result !== 'help') return { words, values: result.values };
    console.log(help);
    process.exit(0);
  } catch (error) {
    if (error instanceof OptionError) fail(error.message, 2);
    throw error;
  }
}

function configOrFail() {
  try {
    return loadKubeConfig(values.kubeconfig);
  } catch (error) {
    return failWith(error);
  }
}

/** An error of the API server, as lines for people; any other goes on. */
function failWith(error: unknown): never {
  if (!(error instanceof KubeError)) throw error;
  const causes = error.causes.map(({ field, message }) => `\n  ${field}: ${message}`);
  fail(`${error.code}: ${error.message}${causes.join('')}`, 1);
}

const { words, values } = readArguments();
const [command, name] = words;
const config = configOrFail();
const client: KubeClient = connectKube(config);
const context = config.getContextObject(config.getCurrentContext());
const namespace = values.namespace ?? context?.namespace ?? 'default';

async function list<T extends KubeObject>(
  path: string,
  query: Record<string, string> = {},
): Promise<readonly T[]> {
  return ((await client.request({ method: 'GET', path, query })) as KubeList<T>).items;
}

/** Of a kind that the cluster may not serve. */
async function listServed(
  path: string,
  query: Record<string, string>,
): Promise<readonly KubeObject[]> {
  try {
    return await list(path, query);
  } catch (error) {
    if (isNotFound(error)) return [];
    throw error;
  }
}

async function find(
  type: Parameters<typeof objectPath>[0],
  objectName: string,
): Promise<KubeObject | undefined> {
  try {
    return (await client.request({
      method: 'GET',
      path: objectPath(type, objectName, namespace),
    })) as KubeObject;
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

async function look(deployment: NVLMDeployment & KubeObject): Promise<Seen> {
  const { name: own, uid } = deployment.metadata;
  const labelSelector = `${LABELS.instance}=${own},${LABELS.managedBy}=${OPERATOR_NAME}`;
  const kinds = [
    RESOURCES.service,
    RESOURCES.horizontalPodAutoscaler,
    RESOURCES.podDisruptionBudget,
    RESOURCES.networkPolicy,
    RESOURCES.job,
    RESOURCES.leaderWorkerSet,
  ];
  const [pods, events, ...children] = await Promise.all([
    list<PodObject>(collectionPath(RESOURCES.pod, namespace), {
      labelSelector: selectorText(memberSelector(own)),
    }),
    list<EventObject>(collectionPath(RESOURCES.event, namespace), {
      fieldSelector: `regarding.uid=${uid}`,
    }),
    ...kinds.map(async (type) =>
      (await listServed(collectionPath(type, namespace), { labelSelector })).map((child) => ({
        ...child,
        kind: type.kind,
      })),
    ),
  ]);
  return { deployment, pods, events, children: children.flat() };
}

async function status(): Promise<void> {
  const all = await list<NVLMDeployment & KubeObject>(collectionPath(NVLM_RESOURCE, namespace));
  const wanted = all.filter(({ metadata }) => name === undefined || metadata.name === name);
  if (wanted.length === 0) {
    const which = name === undefined ? 'No NVLMDeployment' : `No NVLMDeployment ${name}`;
    fail(
      `${which} in namespace ${namespace}${all.length > 0 ? `; there are ${all.map(({ metadata }) => metadata.name).join(', ')}` : ''}.`,
      1,
    );
  }
  const seen = await Promise.all(wanted.map(look));
  if (values.output === 'json') {
    console.log(JSON.stringify(seen, null, 2));
    return;
  }
  const colours = { good: 'green', bad: 'red', dim: 'dim' } as const;
  const paint = (line: string, tone: Node['tone']): string =>
    tone === undefined ? line : styleText(colours[tone], line, { stream: process.stdout });
  for (const one of seen) console.log(drawTree(deploymentTree(one), paint).join('\n'));
}

/** Through `kubectl proxy`: credentials stay with kubectl, and no port of a pod need be reachable. */
async function chat(): Promise<void> {
  if (name === undefined) fail('kubectl nvlm chat NAME: which deployment?', 2);
  const deployment = await find(NVLM_RESOURCE, name);
  if (deployment === undefined) fail(`No NVLMDeployment ${name} in namespace ${namespace}.`, 1);
  const kubeconfig = values.kubeconfig === undefined ? [] : ['--kubeconfig', values.kubeconfig];
  const proxy = spawn(process.env.KUBECTL ?? 'kubectl', ['proxy', '--port=0', ...kubeconfig], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  proxy.on('error', (error) => fail(`kubectl proxy: ${error.message}`, 1));
  process.on('exit', () => proxy.kill());
  const port = await new Promise<string>((resolve) => {
    createInterface({ input: proxy.stdout }).on('line', (line) => {
      const found = /127\.0\.0\.1:(\d+)/.exec(line)?.[1];
      if (found !== undefined) resolve(found);
    });
    proxy.once('close', () => fail('kubectl proxy ended before it listened.', 1));
  });
  const path = objectPath(RESOURCES.service, `${name}:http`, namespace).replace('%3A', ':');
  const terminal = spawn(
    process.execPath,
    [chatProgram.file, '--url', `http://127.0.0.1:${port}${path}/proxy`],
    { stdio: 'inherit', env: { ...process.env, ...chatProgram.environment } },
  );
  process.on('SIGINT', () => {});
  terminal.on('close', (code) => process.exit(code ?? 1));
}

/** By server-side dry run: with the defaults, rules and rights of this cluster. */
async function plan(): Promise<void> {
  if (values.filename === undefined) fail('kubectl nvlm plan -f FILE: which manifest?', 2);
  const objects = loadAllYaml(readFileSync(values.filename, 'utf8')) as unknown as KubeObject[];
  const deployments = objects.filter(
    (object) => object?.kind === KIND && object.apiVersion === API_VERSION,
  );
  if (deployments.length === 0) fail(`${values.filename}: no ${KIND} of ${API_VERSION} in it.`, 1);
  for (const written of deployments) await planOne(written);
}

async function planOne(written: KubeObject): Promise<void> {
  const before = (await find(NVLM_RESOURCE, written.metadata.name)) as
    | (NVLMDeployment & KubeObject)
    | undefined;
  const object = { ...written, metadata: { ...written.metadata, namespace } };
  const dryRun = { fieldManager: FIELD_MANAGER, force: true, dryRun: true };
  const after = (await client.apply(NVLM_RESOURCE, object, dryRun)) as NVLMDeployment & KubeObject;
  tell(`${KIND} ${namespace}/${written.metadata.name}`, before, after);
  const image = await engineImage();
  const props = propsOf(after, image);
  const [was, is] = [before && engineRevision(propsOf(before, image)), engineRevision(props)];
  const groups = isGrouped(after) ? [leaderWorkerSet(props, is, after.spec.replicas)] : [];
  const wanted = [...engineObjects(props), ...groups] as readonly KubeObject[];
  for (const child of wanted) {
    const live = await find(resourceOf(child), child.metadata.name);
    // Nothing can belong to an object that is only rehearsed.
    const { ownerReferences: _, ...metadata } = child.metadata as KubeObject['metadata'] & {
      ownerReferences?: unknown;
    };
    const rehearsed = before === undefined ? { ...child, metadata } : child;
    const title = `${child.kind} ${child.metadata.name}`;
    try {
      const options = { ...dryRun, fieldManager: 'nvlm-operator' };
      tell(title, live, await client.apply(resourceOf(child), rehearsed, options));
    } catch (error) {
      if (!isNotFound(error) || !groups.some((group) => group === child)) throw error;
      console.log(`! ${title}: the cluster does not serve LeaderWorkerSet; install it first`);
    }
  }
  const { pipeline } = after.spec.parallelism;
  const what = isGrouped(after) ? `groups of ${pipeline} pods` : 'pods';
  if (was === undefined) console.log(`+ ${after.spec.replicas} ${what} of revision ${is}`);
  else if (was !== is)
    console.log(`~ ${after.spec.replicas} ${what} roll out, revision ${was} -> ${is}`);
  else if (before?.spec.replicas !== after.spec.replicas)
    console.log(`~ ${what}: ${before?.spec.replicas} -> ${after.spec.replicas}`);
  else console.log(`= ${what} stay as they are`);
}

function tell(title: string, before: KubeObject | undefined, after: KubeObject): void {
  const changes = changesBetween(before, after);
  if (before === undefined) console.log(`+ ${title}`);
  else if (changes.length === 0) console.log(`= ${title}`);
  else
    console.log(`~ ${title}\n${changes.map((change) => `    ${changeText(change)}`).join('\n')}`);
}

const propsOf = ({ metadata, spec }: NVLMDeployment, image: string): EngineProps => ({
  name: metadata.name,
  namespace,
  uid: metadata.uid,
  spec,
  image,
  imagePullPolicy: 'IfNotPresent',
  operatorNamespace: values.operatorNamespace,
  available: { podMonitor: false, leaderWorkerSet: false },
});

/** As the operator was told; a placeholder where it cannot be read, which compares with itself. */
async function engineImage(): Promise<string> {
  try {
    const path = `/apis/apps/v1/namespaces/${values.operatorNamespace}/deployments/${OPERATOR_NAME}`;
    const text = JSON.stringify(await client.request({ method: 'GET', path }));
    return /--engine-image=([^"]+)/.exec(text)?.[1] ?? 'engine';
  } catch (error) {
    if (error instanceof KubeError) return 'engine';
    throw error;
  }
}

const COMMANDS: Readonly<Record<string, () => Promise<void>>> = { status, chat, plan };
const run = COMMANDS[command ?? ''];
if (run === undefined) {
  if (command === undefined) fail(help, 2);
  const near = Object.keys(COMMANDS).find((one) => one.startsWith(command.slice(0, 2)));
  fail(
    `Unknown command ${command}${near === undefined ? '' : `; did you mean ${near}?`}\n\n${help}`,
    2,
  );
}
try {
  await run();
} catch (error) {
  failWith(error);
}
