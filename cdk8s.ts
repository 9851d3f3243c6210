/** Synthesises what people install: `node cdk8s.ts` writes crds/nvlmdeployments.yaml and charts/install.yaml; `node cdk8s.ts --check` compares. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { ApiObject, type ApiObjectProps, App, Chart, Yaml } from 'cdk8s';
import type { KubeObject } from '#charts/kube.ts';
import { operatorObjects } from '#charts/operator-objects.ts';
import { customResourceDefinition } from '#crds/crd.ts';

const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };

class Install extends Chart {
  constructor(app: App, objects: readonly KubeObject[]) {
    super(app, 'install', { disableResourceNameHashes: true });
    for (const object of objects) {
      const id = [object.kind, object.metadata.namespace, object.metadata.name]
        .join('-')
        .toLowerCase();
      new ApiObject(this, id, object as ApiObjectProps & KubeObject);
    }
  }
}

const app = new App();
const objects = operatorObjects({
  namespace: 'nvlm-system',
  image: `nvlm-operator:${version}`,
  engineImage: `nvlm-engine:${version}`,
  imagePullPolicy: 'IfNotPresent',
  replicas: 2,
  metricsApi: 'custom',
});
new Install(app, [customResourceDefinition as unknown as KubeObject, ...objects]);

const outputs: readonly (readonly [string, string])[] = [
  ['crds/nvlmdeployments.yaml', Yaml.stringify(customResourceDefinition)],
  ['charts/install.yaml', app.synthYaml()],
];
const stale = outputs.filter(
  ([path, text]) => !existsSync(path) || readFileSync(path, 'utf8') !== text,
);
if (process.argv.includes('--check')) {
  for (const [path] of stale) console.error(`${path} is out of date: run node cdk8s.ts`);
  process.exit(stale.length === 0 ? 0 : 1);
}
for (const [path, text] of stale) {
  mkdirSync(path.slice(0, path.lastIndexOf('/')), { recursive: true });
  writeFileSync(path, text);
  console.log(`wrote ${path}`);
}
