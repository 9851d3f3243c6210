/** The values of the Helm chart: one table that makes values.yaml, its schema and the README's table. */
import { DASHBOARD_LABELS } from './operator-objects.ts';

interface JsonSchema {
  readonly type?: string | readonly string[];
  readonly [keyword: string]: unknown;
}

export interface HelmValue {
  /** Dotted path. */
  readonly path: string;
  readonly value: unknown;
  readonly description: string;
  readonly schema: JsonSchema;
}

const flag: JsonSchema = { type: 'boolean' };
const choice = (...values: readonly string[]): JsonSchema => ({ type: 'string', enum: values });
const text = (pattern: string, maxLength = 253): JsonSchema => ({
  type: 'string',
  pattern,
  maxLength,
});
const strings: JsonSchema = { type: 'object', additionalProperties: { type: 'string' } };
const objects: JsonSchema = { type: 'array', items: { type: 'object' } };
const repository = text('^[a-z0-9]+([._/:-]+[a-zA-Z0-9]+)*$', 255);
const tag = text('^([A-Za-z0-9_][A-Za-z0-9._-]{0,127})?$', 128);
const digest = text('^(sha256:[0-9a-f]{64})?$', 71);
const quantity: JsonSchema = { type: ['string', 'number'] };
const quantities: JsonSchema = { type: 'object', additionalProperties: quantity };

const image = (key: string, name: string, what: string): readonly HelmValue[] => [
  {
    path: `${key}.repository`,
    value: name,
    description: `Image of ${what}, with its registry.`,
    schema: repository,
  },
  {
    path: `${key}.tag`,
    value: '',
    description: "Its tag; the chart's appVersion when empty.",
    schema: tag,
  },
  {
    path: `${key}.digest`,
    value: '',
    description: 'Its digest, `sha256:...`; goes before the tag.',
    schema: digest,
  },
];

export const HELM_VALUES: readonly HelmValue[] = [
  ...image('image', 'nvlm-operator', 'the operator'),
  {
    path: 'image.pullPolicy',
    value: 'IfNotPresent',
    description: 'When nodes pull either image.',
    schema: choice('Always', 'IfNotPresent', 'Never'),
  },
  ...image('engineImage', 'nvlm-engine', 'the engine pods'),
  {
    path: 'imagePullSecrets',
    value: [],
    description:
      'Secrets to pull the operator with, as `- name: ...`. Engine pods take theirs from `spec.template` or the service account of their namespace.',
    schema: {
      type: 'array',
      items: {
        type: 'object',
        required: ['name'],
        additionalProperties: false,
        properties: { name: text('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$') },
      },
    },
  },
  {
    path: 'replicas',
    value: 2,
    description: 'Operators; one leads, all serve metrics.',
    schema: { type: 'integer', minimum: 1, maximum: 16 },
  },
  {
    path: 'metricsApi',
    value: 'custom',
    description:
      'Where the HPA reads queue depth: `custom` (custom.metrics.k8s.io), `external` (external.metrics.k8s.io), or `none`: the operator scales by itself.',
    schema: choice('custom', 'external', 'none'),
  },
  {
    path: 'logLevel',
    value: 'info',
    description: 'Least severe log line that is written.',
    schema: choice('fatal', 'error', 'warn', 'info', 'debug', 'silent'),
  },
  {
    path: 'extraArgs',
    value: [],
    description: 'More options of the operator (docs/operator-options.md), as `--name=value`.',
    schema: { type: 'array', items: text('^--[a-z][a-z-]*=.*$', 1024) },
  },
  {
    path: 'resources',
    value: { requests: { cpu: '50m', memory: '128Mi' }, limits: { memory: '512Mi' } },
    description: 'Of an operator.',
    schema: {
      type: 'object',
      additionalProperties: false,
      properties: { requests: quantities, limits: quantities, claims: objects },
    },
  },
  {
    path: 'priorityClassName',
    value: 'system-cluster-critical',
    description: 'Of the operators; none when empty.',
    schema: text('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$'),
  },
  {
    path: 'nodeSelector',
    value: {},
    description: 'Labels of the nodes that operators run on.',
    schema: strings,
  },
  {
    path: 'tolerations',
    value: [],
    description: 'Taints that operators tolerate.',
    schema: objects,
  },
  {
    path: 'affinity',
    value: {},
    description: 'Of the operators, besides the spread over nodes that they have.',
    schema: { type: 'object' },
  },
  {
    path: 'podAnnotations',
    value: {},
    description: "On the operators' pods.",
    schema: strings,
  },
  {
    path: 'serviceAccount.annotations',
    value: {},
    description: "On the operators' service account.",
    schema: strings,
  },
  {
    path: 'podMonitor.enabled',
    value: false,
    description: "A PodMonitor of the operators' metrics; needs the Prometheus operator.",
    schema: flag,
  },
  {
    path: 'podMonitor.interval',
    value: '30s',
    description: 'How often Prometheus reads them.',
    schema: text('^([0-9]+(ms|s|m|h))+$', 24),
  },
  {
    path: 'podMonitor.labels',
    value: {},
    description: 'Labels that your Prometheus selects PodMonitors by.',
    schema: strings,
  },
  {
    path: 'dashboard.enabled',
    value: false,
    description: "A Grafana dashboard of engines and operator, for the sidecar of Grafana's chart.",
    schema: flag,
  },
  {
    path: 'dashboard.labels',
    value: DASHBOARD_LABELS,
    description: 'Labels that your sidecar selects dashboards by.',
    schema: strings,
  },
  {
    path: 'crds.install',
    value: true,
    description: 'Installs and upgrades the CRD with the release.',
    schema: flag,
  },
  {
    path: 'crds.keep',
    value: true,
    description:
      'Leaves the CRD, and so every NVLMDeployment, when the release is uninstalled. With `false` all of them are deleted with it.',
    schema: flag,
  },
];

interface Tree {
  [key: string]: Tree | HelmValue;
}
const isValue = (node: Tree | HelmValue): node is HelmValue => typeof node.path === 'string';

function tree(): Tree {
  const root: Tree = {};
  for (const value of HELM_VALUES) {
    const keys = value.path.split('.');
    const last = keys.pop() ?? '';
    let node = root;
    for (const key of keys) {
      const child = (node[key] as Tree | undefined) ?? {};
      node[key] = child;
      node = child;
    }
    node[last] = value;
  }
  return root;
}

/** values.yaml: every value with its default, under what it is for. JSON is YAML: values are written as such on one line. */
export function valuesYaml(): string {
  const write = (node: Tree, indent: string): string[] =>
    Object.entries(node).flatMap(([key, child]) => {
      if (!isValue(child)) return [`${indent}${key}:`, ...write(child, `${indent}  `)];
      return [`${indent}# ${child.description}`, `${indent}${key}: ${JSON.stringify(child.value)}`];
    });
  return `${write(tree(), '').join('\n')}\n`;
}

/** values.schema.json: Helm refuses what it does not take, also a value that does not exist. */
export function valuesSchema(): string {
  const object = (node: Tree): JsonSchema => ({
    type: 'object',
    additionalProperties: false,
    properties: Object.fromEntries(
      Object.entries(node).map(([key, child]) => [
        key,
        isValue(child)
          ? { ...child.schema, description: child.description, default: child.value }
          : object(child),
      ]),
    ),
  });
  const { properties, ...rest } = object(tree());
  const schema = {
    $schema: 'http://json-schema.org/draft-07/schema#',
    title: 'Values of nvlm-operator',
    ...rest,
    // What a chart that depends on this one hands to all of its charts.
    properties: { ...(properties as object), global: { type: 'object' } },
  };
  return `${JSON.stringify(schema, null, 2)}\n`;
}

/** Rows of the README's table. */
export const valuesTable = (): string =>
  [
    '| value | default | what it is |',
    '|---|---|---|',
    ...HELM_VALUES.map(
      ({ path, value, description }) =>
        `| \`${path}\` | \`${JSON.stringify(value)}\` | ${description} |`,
    ),
  ].join('\n');
