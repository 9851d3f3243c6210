/** What the LeaderWorkerSet controller needs in a cluster, out of the Go module that it is built from: its CRDs and webhooks. */
import { globSync } from 'node:fs';
import { join } from 'node:path';
import { moduleFiles } from './module-files.mjs';

/**
 * Resolves with the paths of the YAML files.
 *
 * @returns {Promise<{ crds: string[], webhooks: string }>}
 */
export async function leaderWorkerSetManifests() {
  const folder = await moduleFiles({
    name: 'lws',
    builtBy: 'kube',
    module: 'sigs.k8s.io/lws',
    paths: { crds: 'config/crd/bases', 'webhooks.yaml': 'config/webhook/manifests.yaml' },
  });
  return {
    crds: globSync(join(folder, 'crds/*.yaml')).sort(),
    webhooks: join(folder, 'webhooks.yaml'),
  };
}
