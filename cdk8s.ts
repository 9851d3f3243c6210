/** Synthesises what people install: `node cdk8s.ts` writes crds/nvlmdeployments.yaml, charts/install.yaml, charts/dashboard.yaml and the Helm chart charts/nvlm-operator; `node cdk8s.ts --check` compares. */
import { existsSync, globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { ApiObject, type ApiObjectProps, App, Chart, Yaml } from 'cdk8s';
import { dashboardConfigMap } from '#charts/dashboard.ts';
import { helmChart } from '#charts/helm.ts';
import type { KubeObject } from '#charts/kube.ts';
import { DASHBOARD_LABELS, operatorObjects } from '#charts/operator-objects.ts';
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
const crd = customResourceDefinition as unknown as KubeObject;
new Install(app, [crd, ...objects]);

const chartFolder = 'charts/nvlm-operator';
const chart = helmChart({
  version,
  customResourceDefinition: crd,
  toYaml: (object) => Yaml.stringify(object),
});

const dashboard = dashboardConfigMap('nvlm-dashboard', 'nvlm-system', DASHBOARD_LABELS);

const outputs: readonly (readonly [string, string])[] = [
  ['crds/nvlmdeployments.yaml', Yaml.stringify(customResourceDefinition)],
  ['charts/install.yaml', app.synthYaml()],
  ['charts/dashboard.yaml', Yaml.stringify(dashboard)],
  ...[...chart].map(([path, text]) => [`${chartFolder}/${path}`, text] as const),
];
// A template that no object is written to any more would still be installed.
const left = globSync(`${chartFolder}/**/*`, { withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map(({ parentPath, name }) => `${parentPath}/${name}`)
  .filter((path) => !outputs.some(([output]) => output === path));
const stale = outputs.filter(
  ([path, text]) => !existsSync(path) || readFileSync(path, 'utf8') !== text,
);
if (process.argv.includes('--check')) {
  for (const [path] of stale) console.error(`${path} is out of date: run node cdk8s.ts`);
  for (const path of left) console.error(`${path} is made by nothing any more: run node cdk8s.ts`);
  process.exit(stale.length + left.length === 0 ? 0 : 1);
}
for (const path of left) {
  rmSync(path);
  console.log(`removed ${path}`);
}
for (const [path, text] of stale) {
  mkdirSync(path.slice(0, path.lastIndexOf('/')), { recursive: true });
  writeFileSync(path, text);
  console.log(`wrote ${path}`);
}
