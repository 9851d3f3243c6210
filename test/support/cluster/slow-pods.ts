/** KWOK's own stages of a pod with time between its start and its readiness, which engines need to load a model and KWOK does not. */
import { globSync } from 'node:fs';
import { join } from 'node:path';
import { Yaml } from 'cdk8s';
import { moduleFiles } from '../../../scripts/cluster/module-files.mjs';

interface Stage {
  readonly kind: string;
  readonly metadata: { readonly name: string };
  readonly spec: { readonly [field: string]: unknown };
}

export async function slowPods(readyAfterMs: number): Promise<Stage[]> {
  const folder = await moduleFiles({
    name: 'kwok-stages',
    builtBy: 'kwok',
    module: 'sigs.k8s.io/kwok',
    paths: { pod: 'kustomize/stage/pod/fast' },
  });
  const stages = globSync(join(folder, 'pod/pod-*.yaml'))
    .sort()
    .flatMap((path) => Yaml.load(path) as Stage[]);
  return stages.map((stage) =>
    stage.metadata.name === 'pod-ready'
      ? { ...stage, spec: { ...stage.spec, delay: { durationMilliseconds: readyAfterMs } } }
      : stage,
  );
}
