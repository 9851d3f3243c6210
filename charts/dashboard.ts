/** A Grafana dashboard of engines and operator, as the ConfigMap that Grafana's sidecar looks for. */
import type { KubeObject } from './kube.ts';
import { LABELS } from './labels.ts';

interface Query {
  readonly expr: string;
  /** Grafana's template of a series' name. */
  readonly legend: string;
}

interface PanelProps {
  readonly title: string;
  /** What it tells, and what to do when it looks wrong. */
  readonly description: string;
  /** Of Grafana's unit list. */
  readonly unit: string;
  readonly queries: readonly Query[];
  readonly max?: number;
  readonly stacked?: boolean;
}

interface Row {
  readonly title: string;
  readonly panels: readonly PanelProps[];
}

const panelsPerRow = 3;
const gridWidth = 24;
const panelHeight = 8;

/** How Prometheus writes the pod label that PodMonitors hand on. */
const deploymentLabel = LABELS.deployment.replaceAll(/[^a-zA-Z0-9_]/g, '_');
const engines = `namespace=~"$namespace",${deploymentLabel}=~"$deployment"`;
const deployments = 'namespace=~"$namespace",name=~"$deployment"';
const interval = '$__rate_interval';

const sumBy = (label: string, of: string): string => `sum by (${label}) (${of})`;
const rate = (metric: string, selector = engines): string =>
  `rate(${metric}{${selector}}[${interval}])`;
/** Quantiles of a histogram over all that it is selected by. */
const quantiles = (metric: string, shares: readonly number[], selector = engines): Query[] =>
  shares.map((share) => ({
    expr: `histogram_quantile(${share}, ${sumBy('le', rate(`${metric}_bucket`, selector))})`,
    legend: `p${share * 100}`,
  }));
/** Of a gauge of NVLMDeployments, which every replica of the operator tells. */
const told = (metric: string, legend = '{{name}}'): Query => ({
  expr: `max by (namespace, name) (nvlm_deployment_${metric}{${deployments}})`,
  legend,
});
const byDeployment = (of: string): Query => ({
  expr: sumBy(deploymentLabel, of),
  legend: `{{${deploymentLabel}}}`,
});
const usual = [0.5, 0.9, 0.99];

const ROWS: readonly Row[] = [
  {
    title: 'Demand',
    panels: [
      {
        title: 'Waiting requests',
        description:
          'The sum that the HPA divides by targetQueueDepth. Long above it: replicas are at maxReplicas, or still loading.',
        unit: 'short',
        queries: [told('queue_depth')],
      },
      {
        title: 'Running requests',
        description: 'Sequences in the batches of all replicas.',
        unit: 'short',
        stacked: true,
        queries: [byDeployment(`vllm:num_requests_running{${engines}}`)],
      },
      {
        title: 'Replicas',
        description:
          'Serving counts every revision. Below desired for long: look at the conditions beside it.',
        unit: 'short',
        queries: [
          told('desired_replicas', '{{name}} desired'),
          told('serving_replicas', '{{name}} serving'),
          told('draining_replicas', '{{name}} draining'),
        ],
      },
      {
        title: 'Phases',
        description: 'NVLMDeployments in each. docs/resource.md tells what each means.',
        unit: 'short',
        stacked: true,
        queries: [
          {
            expr: sumBy(
              'phase',
              `max by (namespace, name, phase) (nvlm_deployment_phase{${deployments}})`,
            ),
            legend: '{{phase}}',
          },
        ],
      },
      {
        title: 'In trouble',
        description:
          'Deployments that are degraded or refused, with the reason. What to do: docs/resource.md.',
        unit: 'short',
        queries: [
          {
            expr: `max by (namespace, name, reason) (nvlm_deployment_condition{${deployments},type="Degraded",status="True"} or nvlm_deployment_condition{${deployments},type="Accepted",status="False"})`,
            legend: '{{name}} {{reason}}',
          },
        ],
      },
      {
        title: 'Finished requests',
        description: 'By how they ended. abort: the client left.',
        unit: 'reqps',
        stacked: true,
        queries: [
          {
            expr: sumBy('finished_reason', rate('vllm:request_success_total')),
            legend: '{{finished_reason}}',
          },
        ],
      },
      {
        title: 'Errors',
        description: 'By code; docs/errors.md says what to do about each.',
        unit: 'reqps',
        stacked: true,
        queries: [{ expr: sumBy('code', rate('nvlm_errors_total')), legend: '{{code}}' }],
      },
      {
        title: 'Time in the queue',
        description: 'From the arrival of a request to its first step.',
        unit: 's',
        queries: quantiles('vllm:request_queue_time_seconds', usual),
      },
    ],
  },
  {
    title: 'Latency and throughput',
    panels: [
      {
        title: 'Time to first token',
        description: 'As clients see it: queue and prefill.',
        unit: 's',
        queries: quantiles('vllm:time_to_first_token_seconds', usual),
      },
      {
        title: 'Time between tokens',
        description: 'Grows with the batch; lower batchPolicy.maxSequences to bound it.',
        unit: 's',
        queries: quantiles('vllm:inter_token_latency_seconds', usual),
      },
      {
        title: 'Whole requests',
        description: 'From arrival to the last token.',
        unit: 's',
        queries: quantiles('vllm:e2e_request_latency_seconds', usual),
      },
      {
        title: 'Tokens',
        description: 'Prompt tokens taken in and tokens generated.',
        unit: 'short',
        queries: [
          { expr: `sum(${rate('vllm:prompt_tokens_total')})`, legend: 'prompt' },
          { expr: `sum(${rate('vllm:generation_tokens_total')})`, legend: 'generated' },
        ],
      },
      {
        title: 'Step',
        description: 'One forward pass of an engine.',
        unit: 's',
        queries: quantiles('nvlm_step_duration_seconds', usual),
      },
      {
        title: 'Tokens of a step',
        description: 'Mean; near batchPolicy.maxBatchedTokens the engine is bound by arithmetic.',
        unit: 'short',
        queries: [
          {
            expr: `sum(${rate('vllm:iteration_tokens_total_sum')}) / sum(${rate('vllm:iteration_tokens_total_count')})`,
            legend: 'mean',
          },
        ],
      },
    ],
  },
  {
    title: 'Cache',
    panels: [
      {
        title: 'KV cache in use',
        description:
          'Share of blocks per pod. At 1 sequences are preempted: lower maxSequences, or give more GPU memory.',
        unit: 'percentunit',
        max: 1,
        queries: [{ expr: `vllm:kv_cache_usage_perc{${engines}}`, legend: '{{pod}}' }],
      },
      {
        title: 'Prefix cache hits',
        description: 'Share of prompt tokens that need not be computed again.',
        unit: 'percentunit',
        max: 1,
        queries: [
          {
            expr: `sum(${rate('vllm:prefix_cache_hits_total')}) / sum(${rate('vllm:prefix_cache_queries_total')})`,
            legend: 'hits',
          },
        ],
      },
      {
        title: 'Preemptions',
        description: 'Sequences whose cache was taken and is computed again.',
        unit: 'ops',
        queries: [byDeployment(rate('vllm:num_preemptions_total'))],
      },
    ],
  },
  {
    title: 'Operator',
    panels: [
      {
        title: 'Reconciles',
        description: 'By outcome; the log names what failed.',
        unit: 'ops',
        queries: [
          {
            expr: sumBy('outcome', rate('nvlm_operator_reconcile_seconds_count', '')),
            legend: '{{outcome}}',
          },
        ],
      },
      {
        title: 'Reconcile time',
        description: 'Of one turn for one NVLMDeployment.',
        unit: 's',
        queries: quantiles('nvlm_operator_reconcile_seconds', [0.5, 0.99], ''),
      },
      {
        title: 'Work queue',
        description:
          'NVLMDeployments that wait for a turn, how long the oldest has, and how many get one at once: few while the API server is slow.',
        unit: 'short',
        queries: [
          { expr: 'sum(nvlm_operator_queue_depth)', legend: 'waiting' },
          { expr: 'max(nvlm_operator_queue_oldest_seconds)', legend: 'oldest, s' },
          { expr: 'max(nvlm_operator_workers)', legend: 'workers' },
        ],
      },
      {
        title: 'API calls',
        description: 'By verb and code. Nothing but the Lease is written while nothing changes.',
        unit: 'ops',
        stacked: true,
        queries: [
          {
            expr: sumBy('verb, code', rate('nvlm_operator_api_call_seconds_count', '')),
            legend: '{{verb}} {{code}}',
          },
        ],
      },
      {
        title: 'API call time',
        description: 'Of the API server, as the operator sees it; watches are left out.',
        unit: 's',
        queries: quantiles('nvlm_operator_api_call_seconds', [0.5, 0.99], 'verb!="watch"'),
      },
      {
        title: 'Watches',
        description:
          'Ends by why, and lists made again. Both are rare while the API server is well.',
        unit: 'ops',
        queries: [
          {
            expr: sumBy('reason', rate('nvlm_operator_watch_restarts_total', '')),
            legend: 'ended: {{reason}}',
          },
          { expr: `sum(${rate('nvlm_operator_lists_total', '')})`, legend: 'lists' },
        ],
      },
    ],
  },
];

/** Grafana puts the value of a variable in its place. */
const chosen = (name: string): string => `\${${name}}`;
const datasource = { type: 'prometheus', uid: chosen('datasource') };

const panelOf = (
  { title, description, unit, queries, max, stacked = false }: PanelProps,
  id: number,
  x: number,
  y: number,
) => ({
  id,
  type: 'timeseries',
  title,
  description,
  datasource,
  gridPos: { x, y, w: gridWidth / panelsPerRow, h: panelHeight },
  fieldConfig: {
    defaults: {
      unit,
      min: 0,
      ...(max !== undefined && { max }),
      custom: {
        lineWidth: 1,
        fillOpacity: stacked ? 30 : 5,
        stacking: { mode: stacked ? 'normal' : 'none' },
        showPoints: 'never',
      },
    },
    overrides: [],
  },
  options: {
    legend: { displayMode: 'list', placement: 'bottom' },
    tooltip: { mode: 'multi', sort: 'desc' },
  },
  targets: queries.map(({ expr, legend }, index) => ({
    refId: String.fromCharCode(65 + index),
    datasource,
    expr,
    legendFormat: legend,
    range: true,
  })),
});

function panels(): object[] {
  const made: object[] = [];
  let y = 0;
  for (const { title, panels: members } of ROWS) {
    made.push({
      id: made.length + 1,
      type: 'row',
      title,
      collapsed: false,
      panels: [],
      gridPos: { x: 0, y, w: gridWidth, h: 1 },
    });
    y++;
    for (const [index, panel] of members.entries()) {
      const column = index % panelsPerRow;
      const top = y + Math.floor(index / panelsPerRow) * panelHeight;
      made.push(panelOf(panel, made.length + 1, (column * gridWidth) / panelsPerRow, top));
    }
    y += Math.ceil(members.length / panelsPerRow) * panelHeight;
  }
  return made;
}

/** A choice among the values of a label; all of them at first. */
const variable = (name: string, label: string, query: string) => ({
  name,
  label,
  type: 'query',
  datasource,
  query: { query, refId: name },
  refresh: 2,
  sort: 1,
  multi: true,
  includeAll: true,
  allValue: '.*',
  current: { selected: true, text: ['All'], value: ['$__all'] },
});

/** Grafana's dashboard JSON. Engines must be scraped by the PodMonitors of the operator, or with the same labels. */
export const dashboard = () => ({
  uid: 'nvlm-serving',
  title: 'NVLM serving',
  description: 'NVLMDeployments: demand, latency, cache, and the operator.',
  tags: ['nvlm', 'inference'],
  schemaVersion: 39,
  editable: true,
  graphTooltip: 1,
  refresh: '30s',
  time: { from: 'now-1h', to: 'now' },
  timezone: 'browser',
  templating: {
    list: [
      {
        name: 'datasource',
        label: 'Data source',
        type: 'datasource',
        query: 'prometheus',
        current: {},
        refresh: 1,
      },
      variable('namespace', 'Namespace', 'label_values(vllm:num_requests_running, namespace)'),
      variable(
        'deployment',
        'NVLMDeployment',
        `label_values(vllm:num_requests_running{namespace=~"$namespace"}, ${deploymentLabel})`,
      ),
    ],
  },
  annotations: { list: [] },
  panels: panels(),
});

/** `labels` are those that Grafana's sidecar selects by, `grafana_dashboard: "1"` as it is installed. */
export const dashboardConfigMap = (
  name: string,
  namespace: string,
  labels: Readonly<Record<string, string>>,
): KubeObject => ({
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name, namespace, labels },
  data: { 'nvlm-serving.json': `${JSON.stringify(dashboard(), null, 1)}\n` },
});
