import assert from 'node:assert/strict';
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { loadYaml } from '@kubernetes/client-node';
import { Yaml } from 'cdk8s';
import { dashboard } from '#charts/dashboard.ts';
import { helmChart } from '#charts/helm.ts';
import { guarded, HelmTemplate } from '#charts/helm-template.ts';
import { HELM_VALUES } from '#charts/helm-values.ts';
import type { KubeObject } from '#charts/kube.ts';
import { customResourceDefinition } from '#crds/crd.ts';
import { readOperatorOptions } from '#operator/options.ts';
import {
  CHART,
  type Helm,
  noHelm,
  parseManifest,
  readManifest,
  startHelm,
} from '../support/cluster/helm.ts';

const { version } = JSON.parse(readFileSync('package.json', 'utf8')) as { version: string };
const releaseLabels = [
  'helm.sh/chart',
  'app.kubernetes.io/instance',
  'app.kubernetes.io/managed-by',
  'app.kubernetes.io/version',
];

/** Without what Helm adds to an object. */
function plain(object: KubeObject): KubeObject {
  const { labels: all, annotations, ...metadata } = object.metadata;
  const labels = Object.fromEntries(
    Object.entries(all ?? {}).filter(([name]) => !releaseLabels.includes(name)),
  );
  const others = Object.fromEntries(
    Object.entries(annotations ?? {}).filter(([name]) => name !== 'helm.sh/resource-policy'),
  );
  return {
    ...object,
    metadata: {
      ...metadata,
      ...(Object.keys(labels).length > 0 && { labels }),
      ...(Object.keys(others).length > 0 && { annotations: others }),
    },
  };
}
const byId = (objects: readonly KubeObject[]): Record<string, KubeObject> =>
  Object.fromEntries(
    objects.map((object) => [
      [object.kind, object.metadata.namespace, object.metadata.name].join('/'),
      plain(object),
    ]),
  );

describe('templates from objects', () => {
  test('text is quoted as a whole scalar and bare within one; numbers are bare', () => {
    const template = new HelmTemplate();
    const object = {
      whole: template.text('.A'),
      part: `--name=${template.text('.B')},end`,
      number: template.number('.C'),
      list: [template.text('.D')],
    };
    assert.deepEqual(template.fill(Yaml.stringify(object)).trimEnd().split('\n'), [
      'whole: {{ .A | quote }}',
      'part: --name={{ .B }},end',
      'number: {{ .C }}',
      'list:',
      '  - {{ .D | quote }}',
    ]);
  });

  test('a block stands at the depth of its key, more items and entries at that of their siblings', () => {
    const template = new HelmTemplate();
    const object = {
      a: { b: template.block('.B') },
      list: ['x', ...template.items('.L')],
      map: { k: 'z', ...template.entries('.M') },
    };
    assert.deepEqual(template.fill(Yaml.stringify(object)).trimEnd().split('\n'), [
      'a:',
      '  {{- with .B }}',
      '  b:',
      '    {{- toYaml . | nindent 4 }}',
      '  {{- end }}',
      'list:',
      '  - x',
      '  {{- with .L }}',
      '  {{- toYaml . | nindent 2 }}',
      '  {{- end }}',
      'map:',
      '  k: z',
      '  {{- with .M }}',
      '  {{- toYaml . | nindent 2 }}',
      '  {{- end }}',
    ]);
  });

  test('braces of the objects themselves are kept from the template engine', () => {
    assert.equal(new HelmTemplate().fill('a: {{ b }}'), 'a: {{ "{{" }} b }}');
  });

  test('a condition encloses the whole text', () => {
    assert.equal(guarded('.X', 'a: 1\n'), '{{- if .X }}\na: 1\n{{- end }}\n');
  });

  test('a block within a line is refused', () => {
    const template = new HelmTemplate();
    assert.throws(() => template.fill(`a: x-${template.block('.B')}`), /whole line/);
  });
});

describe('the files of the Helm chart', () => {
  test('are what the charts make, none more and none less', () => {
    const made = helmChart({
      version,
      customResourceDefinition: customResourceDefinition as unknown as KubeObject,
      toYaml: (object) => Yaml.stringify(object),
    });
    const there = globSync(['**/*', '**/.helmignore'], { cwd: CHART, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map(({ parentPath, name }) => join(parentPath, name).slice(CHART.length + 1));
    assert.deepEqual([...new Set(there)].sort(), [...made.keys()].sort());
    for (const [path, text] of made) assert.equal(readFileSync(join(CHART, path), 'utf8'), text);
  });

  test('every value has its default in values.yaml, a schema and a row in the README', () => {
    const values = loadYaml(readFileSync(join(CHART, 'values.yaml'), 'utf8')) as object;
    const readme = readFileSync(join(CHART, 'README.md'), 'utf8');
    for (const { path, value, description } of HELM_VALUES) {
      const found = path
        .split('.')
        .reduce<unknown>((node, key) => (node as Record<string, unknown>)[key], values);
      assert.deepEqual(found, value, path);
      assert.match(description, /\.$/, path);
      assert.ok(readme.includes(`| \`${path}\` |`), path);
    }
  });
});

describe('the Helm chart, as helm reads it', { skip: noHelm(), timeout: 600_000 }, () => {
  let helm: Helm;
  before(async () => {
    helm = await startHelm();
  });
  after(() => helm?.stop());

  const render = async (...args: readonly string[]): Promise<readonly KubeObject[]> => {
    const text = await helm.succeed(
      ...['template', 'nvlm-operator', CHART, '--namespace', 'nvlm-system', ...args],
    );
    return parseManifest(text);
  };
  const deployment = async (...args: readonly string[]) => {
    const found = (await render(...args)).find(({ kind }) => kind === 'Deployment');
    assert.ok(found);
    return found as KubeObject & {
      spec: {
        replicas: number;
        template: {
          metadata: { annotations?: object };
          spec: { containers: readonly [{ image: string; args: string[]; resources?: object }] };
        };
      };
    };
  };

  test('passes its linter, warnings included', async () => {
    const { code, stdout, stderr } = await helm.run('lint', '--strict', CHART);
    assert.equal(code, 0, stdout + stderr);
    assert.doesNotMatch(stdout, /\[(WARNING|ERROR)\]/);
  });

  test('makes by default the objects of install.yaml, but for the namespace, which helm makes', async () => {
    const installed = readManifest('charts/install.yaml');
    assert.deepEqual(
      byId(await render()),
      byId(installed.filter(({ kind }) => kind !== 'Namespace')),
    );
  });

  test('puts another namespace everywhere', async () => {
    const text = JSON.stringify(await render('--namespace', 'elsewhere'));
    assert.doesNotMatch(text, /nvlm-system/);
    assert.match(text, /--namespace=elsewhere/);
  });

  test('takes tags, digests, and a registry with a port', async () => {
    const { spec } = await deployment(
      ...['--set', 'image.repository=registry.example:5000/team/nvlm-operator,image.tag=v9'],
      ...['--set', `engineImage.digest=sha256:${'a'.repeat(64)}`],
    );
    const [container] = spec.template.spec.containers;
    assert.equal(container.image, 'registry.example:5000/team/nvlm-operator:v9');
    assert.ok(container.args.includes(`--engine-image=nvlm-engine@sha256:${'a'.repeat(64)}`));
  });

  test('hands every setting of the pods on, and options that the operator understands', async () => {
    const values = {
      replicas: 3,
      logLevel: 'debug',
      metricsApi: 'external',
      extraArgs: ['--scrape-period=5s', '--workers=4'],
      imagePullSecrets: [{ name: 'pull' }],
      resources: { requests: { cpu: 1 } },
      nodeSelector: { pool: 'system' },
      tolerations: [{ key: 'system', operator: 'Exists' }],
      affinity: { nodeAffinity: {} },
      podAnnotations: { 'a/b': 'true' },
    };
    const settings = Object.entries(values).flatMap(([name, value]) => [
      '--set-json',
      `${name}=${JSON.stringify(value)}`,
    ]);
    const { spec } = await deployment(...settings);
    const [container] = spec.template.spec.containers;
    assert.equal(spec.replicas, 3);
    assert.deepEqual(spec.template.metadata.annotations, values.podAnnotations);
    assert.deepEqual(container.resources, {
      requests: { cpu: 1, memory: '128Mi' },
      limits: { memory: '512Mi' },
    });
    const pod = spec.template.spec as unknown as Record<string, unknown>;
    for (const name of ['imagePullSecrets', 'nodeSelector', 'tolerations', 'affinity'] as const) {
      assert.deepEqual(pod[name], values[name]);
    }
    const options = readOperatorOptions(container.args, {});
    assert.ok(options !== 'help');
    assert.equal(options.logLevel, 'debug');
    assert.equal(options.metricsApi, 'external');
    assert.equal(options.workers, 4);
    assert.equal(options.scrapePeriod, 5000);
  });

  test('has the metrics Service, the PodMonitor and the CRD only where they are wanted', async () => {
    const ids = async (...args: string[]): Promise<string[]> =>
      (await render(...args)).map(({ kind, metadata: { name } }) => `${kind}/${name}`);
    const all = await ids('--set', 'podMonitor.enabled=true,podMonitor.labels.release=prometheus');
    assert.ok(all.includes('PodMonitor/nvlm-operator'));
    assert.ok(all.includes('Service/nvlm-operator-metrics'));
    const few = await ids('--set', 'metricsApi=none,crds.install=false');
    assert.equal(all.length - few.length, 3);
    assert.ok(!few.some((id) => /PodMonitor|CustomResource|operator-metrics/.test(id)));
  });

  test('has the dashboard only where it is wanted, as the charts make it, with the labels of the sidecar', async () => {
    const map = async (...args: string[]) =>
      (await render(...args)).find(({ kind }) => kind === 'ConfigMap') as
        | (KubeObject & { readonly data: Readonly<Record<string, string>> })
        | undefined;
    assert.equal(await map(), undefined);
    const found = await map('--set', 'dashboard.enabled=true');
    assert.equal(found?.metadata.labels?.grafana_dashboard, '1');
    const [text = ''] = Object.values(found?.data ?? {});
    assert.deepEqual(JSON.parse(text), JSON.parse(JSON.stringify(dashboard())));
    const other = await map('--set', 'dashboard.enabled=true,dashboard.labels.my_sidecar=yes');
    assert.equal(other?.metadata.labels?.my_sidecar, 'yes');
  });

  test('keeps the CRD when it is uninstalled, unless told not to', async () => {
    const crd = async (...args: string[]): Promise<KubeObject | undefined> =>
      (await render(...args)).find(({ kind }) => kind === 'CustomResourceDefinition');
    assert.equal((await crd())?.metadata.annotations?.['helm.sh/resource-policy'], 'keep');
    assert.equal((await crd('--set', 'crds.keep=false'))?.metadata.annotations, undefined);
  });

  const refused: readonly (readonly [string, string, RegExp])[] = [
    ['no replica', 'replicas=0', /replicas/],
    ['replicas that are no number', 'replicas=two', /replicas/],
    ['a metrics API that is none', 'metricsApi=prometheus', /metricsApi/],
    ['a log level that is none', 'logLevel=loud', /logLevel/],
    ['a pull policy that is none', 'image.pullPolicy=Sometimes', /pullPolicy/],
    ['a tag with a colon', 'image.tag=v1:2', /tag/],
    ['a digest cut short', 'image.digest=sha256:abc', /digest/],
    ['an image with a space', 'engineImage.repository=my image', /repository/],
    ['an option without dashes', 'extraArgs[0]=workers=4', /extraArgs/],
    ['a pull Secret without a name', 'imagePullSecrets[0].key=x', /imagePullSecrets/],
    ['an interval without a unit', 'podMonitor.interval=thirty', /interval/],
    ['a flag that is text', 'crds.install=maybe', /install/],
    ['a value that does not exist', 'replicaCount=2', /replicaCount/],
    ['a nested value that does not exist', 'image.name=x', /name/],
  ];
  for (const [what, setting, told] of refused) {
    test(`refuses ${what}`, async () => {
      const { code, stderr } = await helm.run('template', 'x', CHART, '--set', setting);
      assert.notEqual(code, 0);
      assert.match(stderr, /schema/);
      assert.match(stderr, told);
    });
  }
});
