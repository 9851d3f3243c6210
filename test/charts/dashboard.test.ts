import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { loadYaml } from '@kubernetes/client-node';
import { dashboard } from '#charts/dashboard.ts';
import { engineObjects } from '#charts/engine-objects.ts';
import type { KubeObject } from '#charts/kube.ts';
import { operatorObjects } from '#charts/operator-objects.ts';
import type { EngineProps } from '#charts/props.ts';
import { ServerMetrics } from '#engine/server/metrics.ts';
import { allOperatorMetrics } from '../../scripts/operator-metrics-document.ts';

interface Panel {
  readonly id: number;
  readonly type: string;
  readonly title: string;
  readonly description?: string;
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; h: number };
  readonly targets?: readonly { readonly expr: string; readonly legendFormat: string }[];
}
const panels = dashboard().panels as readonly Panel[];
const charts = panels.filter(({ type }) => type !== 'row');
const expressions = charts.flatMap(({ targets = [] }) => targets);

/** Series by their names, with their labels: what the registries of engine and operator have. */
function exposed(): Map<string, readonly string[]> {
  const engine = new ServerMetrics(
    { maxModelLength: 4096, onStep: () => {} } as never,
    'model',
    {} as never,
  );
  const series = new Map<string, readonly string[]>();
  for (const { registry } of [engine, allOperatorMetrics()]) {
    for (const { name, type } of registry.getMetricsAsArray()) {
      const { labelNames = [] } = registry.getSingleMetric(name) as { labelNames?: string[] };
      // PodMonitors add these.
      const labels = [...labelNames, 'namespace', 'pod', 'serving_nvlm_dev_deployment'];
      const isHistogram = String(type) === 'histogram';
      for (const suffix of isHistogram ? ['_bucket', '_sum', '_count'] : [''])
        series.set(name + suffix, suffix === '_bucket' ? [...labels, 'le'] : labels);
    }
  }
  return series;
}

describe('the Grafana dashboard', () => {
  test('names only series that the engine or the operator exposes, by labels that they have', () => {
    const series = exposed();
    assert.ok(series.size > 30);
    for (const { expr, legendFormat } of expressions) {
      const names = expr.match(/\b(?:vllm:|nvlm_)[a-z0-9_]+/g) ?? [];
      assert.ok(names.length > 0, expr);
      const labels = new Set(names.flatMap((name) => series.get(name) ?? []));
      for (const name of names) assert.ok(series.has(name), `${name} is exposed by nobody`);
      const used = [
        ...[...expr.matchAll(/(\w+)(?:=~|!=|=)"/g)].map((match) => match[1]),
        ...[...expr.matchAll(/by \(([^)]*)\)/g)].flatMap((match) => match[1]?.split(/, */)),
        ...[...legendFormat.matchAll(/\{\{(\w+)\}\}/g)].map((match) => match[1]),
      ];
      for (const label of used) assert.ok(labels.has(label ?? ''), `${label} in ${expr}`);
    }
  });

  test('shows queue, latency, tokens and cache of engines, and the work of the operator', () => {
    const text = expressions.map(({ expr }) => expr).join('\n');
    for (const metric of [
      'nvlm_deployment_queue_depth',
      'vllm:time_to_first_token_seconds_bucket',
      'vllm:generation_tokens_total',
      'vllm:kv_cache_usage_perc',
      'nvlm_operator_reconcile_seconds_bucket',
    ]) {
      assert.ok(text.includes(metric), metric);
    }
  });

  test('is laid out without overlaps, every panel with its own id, a title and an explanation', () => {
    assert.equal(new Set(panels.map(({ id }) => id)).size, panels.length);
    assert.equal(new Set(charts.map(({ title }) => title)).size, charts.length);
    const cells = new Set<string>();
    for (const { title, gridPos } of panels) {
      assert.ok(gridPos.x + gridPos.w <= 24, title);
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          assert.ok(!cells.has(`${x} ${y}`), `${title} overlaps another panel`);
          cells.add(`${x} ${y}`);
        }
      }
    }
    for (const { title, description } of charts) assert.match(description ?? '', /\.$/, title);
  });

  test('selects engines by the label that their PodMonitor hands on', () => {
    const props = {
      name: 'chat',
      namespace: 'team',
      uid: 'u',
      spec: { parallelism: { tensor: 1, pipeline: 1 } },
      available: { podMonitor: true, leaderWorkerSet: false },
    } as EngineProps;
    const monitor = engineObjects(props).find(({ kind }) => kind === 'PodMonitor');
    assert.ok(monitor);
    const { podTargetLabels } = monitor.spec as { podTargetLabels: string[] };
    const asPrometheus = podTargetLabels.map((label) => label.replaceAll(/[^\w]/g, '_'));
    assert.ok(asPrometheus.includes('serving_nvlm_dev_deployment'));
  });

  test('is a ConfigMap that Grafana’s sidecar finds, off by default', () => {
    const base = {
      namespace: 'nvlm-system',
      image: 'i',
      engineImage: 'e',
      imagePullPolicy: 'Never',
      replicas: 1,
      metricsApi: 'custom',
    } as const;
    const isMap = ({ kind }: KubeObject): boolean => kind === 'ConfigMap';
    assert.equal(operatorObjects(base).some(isMap), false);
    const labels = { grafana_dashboard: '1' };
    const map = operatorObjects({ ...base, dashboard: { labels } }).find(isMap);
    assert.equal(map?.metadata.labels?.grafana_dashboard, '1');
    const [text = ''] = Object.values(map?.data as Record<string, string>);
    assert.deepEqual(JSON.parse(text), JSON.parse(JSON.stringify(dashboard())));
    const written = loadYaml<typeof map>(readFileSync('charts/dashboard.yaml', 'utf8'));
    assert.deepEqual(written?.data, map?.data);
    assert.equal(written?.metadata.labels?.grafana_dashboard, '1');
    // etcd takes no more than 1 MiB.
    assert.ok(text.length < 500_000);
  });
});
