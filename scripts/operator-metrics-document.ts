/** docs/operator-metrics.md, from the registry that the operator serves at /metrics. */
import { registerGauges } from '#operator/gauges.ts';
import { OperatorMetrics } from '#operator/metrics.ts';

/** What each metric is good for; a test fails where one is missing or left over. */
const uses: Readonly<Record<string, string>> = {
  nvlm_operator_reconcile_seconds:
    'p99 above a second for long: the API server is slow, or there are more NVLMDeployments than it can hold up. `outcome="error"` that grows: read the logs, the error names the object.',
  nvlm_operator_queue_retries_total: 'Grows steadily: some NVLMDeployment fails again and again.',
  nvlm_operator_queue_wait_seconds:
    'Long waits with short reconciles, and `nvlm_operator_workers` at its most: raise `--workers`.',
  nvlm_operator_api_call_seconds:
    'By verb and HTTP status, or the code of docs/errors.md where there was none. 403: a right is missing, see [operator-security.md](operator-security.md). 409 now and then is normal. In a steady state only `get` and `update` of the Lease and the metrics API’s own objects go on.',
  nvlm_operator_watch_restarts_total:
    '`closed` every four to eight minutes a resource is normal; `error` and `gone` that grow are not.',
  nvlm_operator_lists_total: 'One each quarter of an hour and resource is normal.',
  nvlm_operator_is_leader:
    'The sum over all replicas is 1, for seconds 0 while another takes over.',
  nvlm_operator_clock_offset_seconds:
    'More than a few seconds: the node’s clock is off. The operator counts by the API server’s, so that nothing breaks; TLS may one day.',
  nvlm_operator_queue_depth: 'Stays above 0: the operator is behind.',
  nvlm_operator_workers:
    '1 for long while keys wait: the API server is slow for what is asked of it, and the operator leaves it time. At `--workers`: it has room for more.',
  nvlm_operator_queue_oldest_seconds: 'How far behind.',
  nvlm_operator_last_event_age_seconds:
    'Bookmarks come about every minute; above 150 the watch is given up and opened again.',
  nvlm_deployment_queue_depth: 'What the HPA is given.',
  nvlm_deployment_queue_depth_is_stale:
    '1 for long: an engine is silent. Nothing is scaled to zero meanwhile, and its last number counts.',
  nvlm_deployment_tokens_per_second:
    'Of the engines’ counters, told by the leader in the status; 0 while nobody asks.',
  nvlm_deployment_running_requests:
    'Near `batchPolicy.maxSequences` times the serving replicas: the batches are full, and requests begin to wait.',
  nvlm_deployment_desired_replicas: 'Set by you, the HPA, or the operator between 0 and 1.',
  nvlm_deployment_ready_replicas:
    'Below `nvlm_deployment_desired_replicas` for long: the condition `Degraded` has the reason.',
  nvlm_deployment_serving_replicas:
    '0 while replicas are desired: nobody is served. During a rollout it counts old and new ones.',
  nvlm_deployment_draining_replicas: 'Above 0 for `drain.timeout` at most.',
  nvlm_deployment_phase:
    'Which are `Degraded` or `Failed`. Phases: [resource.md](resource.md#conditions).',
  nvlm_deployment_condition:
    'By type, status and reason: [resource.md](resource.md#conditions). A status that does not hold has no series, so ask for what is, `{type="Ready",status!="True"}`, not for `== 0`.',
};

interface Described {
  readonly name: string;
  readonly help: string;
  readonly labelNames: readonly string[];
}

/** Every metric that an operator registers, of one that does nothing. */
export function allOperatorMetrics(): OperatorMetrics {
  const metrics = new OperatorMetrics();
  registerGauges(metrics, {
    isLeader: () => false,
    serverTime: { offsetMs: 0 },
    pace: { limit: 1 },
    queue: { depth: 0, oldestAgeMs: 0 },
    watched: { deployments: { list: () => [] } as never, reflectors: [] },
    optionalKinds: { reflectors: [] },
    depths: { depthOf: () => ({ waiting: 0, running: 0, isStale: false, ageMs: 0 }) },
  });
  return metrics;
}

/** Every metric of the operator with its type, in the order of registration. */
async function describeMetrics(): Promise<readonly (Described & { readonly type: string })[]> {
  const metrics = allOperatorMetrics();
  const described = metrics.registry.getMetricsAsArray() as unknown as readonly Described[];
  const types = new Map(
    (await metrics.registry.getMetricsAsJSON()).map(({ name, type }) => [name, String(type)]),
  );
  return described.map(({ name, help, labelNames }) => ({
    name,
    help,
    labelNames,
    type: types.get(name) ?? '',
  }));
}

/** Throws where a metric has no use written down, or a use no metric. */
export async function operatorMetricsMarkdown(): Promise<string> {
  const described = await describeMetrics();
  const names = described.map(({ name }) => name);
  const missing = names.filter((name) => uses[name] === undefined);
  const left = Object.keys(uses).filter((name) => !names.includes(name));
  if (missing.length + left.length > 0) {
    throw new Error(`Uses of metrics: missing ${missing}, left over ${left}`);
  }
  const rows = described.map(
    ({ name, type, labelNames, help }) =>
      `| \`${name}\` | ${type} | ${labelNames.map((label) => `\`${label}\``).join(', ')} | ${help}. | ${uses[name]} |`,
  );
  return `# Metrics of the operator

Generated from the registry in \`operator/\` by \`node scripts/documents.ts\`. Every replica serves them at \`/metrics\` on \`--port\` (Service \`nvlm-operator\`); with the Prometheus operator, Helm's \`podMonitor.enabled\` has them
scraped. Those of the engines are in [protocol.md](protocol.md).

| metric | type | labels | tells | look at it when |
|---|---|---|---|---|
${rows.join('\n')}

Histograms have buckets from 1 ms to 30 s.

## Alerts that are worth a page

    # Nobody leads, or no operator is scraped.
    sum(nvlm_operator_is_leader) < 1 or absent(nvlm_operator_is_leader)
    # The operator is behind.
    max(nvlm_operator_queue_oldest_seconds) > 60
    # Reconciles fail.
    sum(rate(nvlm_operator_reconcile_seconds_count{outcome="error"}[10m])) > 0.1
    # The API server refuses what the operator does: rights are missing.
    sum(rate(nvlm_operator_api_call_seconds_count{code="403"}[10m])) > 0
    # An engine is silent.
    max by (namespace, name) (nvlm_deployment_queue_depth_is_stale) == 1
    # Nobody is served, though somebody should be.
    max by (namespace, name) (nvlm_deployment_serving_replicas) == 0 and max by (namespace, name) (nvlm_deployment_desired_replicas) > 0
    # A replica is in trouble, or the spec cannot work; the label says why.
    max by (namespace, name, reason) (nvlm_deployment_condition{type="Degraded",status="True"} or nvlm_deployment_condition{type="Accepted",status="False"}) == 1

Each for ten minutes. Every replica of the operator tells all of \`nvlm_deployment_*\`, hence \`max by\`: a sum counts twice. They are about twenty series a deployment.
Share of the last day that each was \`Ready\`:

    count_over_time(nvlm_deployment_phase{phase="Ready"}[1d]) / ignoring(phase) sum without (phase) (count_over_time(nvlm_deployment_phase[1d]))

Health: \`/healthz\` answers as long as the process serves, \`/readyz\` once everything is listed. Logs are one JSON object a line.
`;
}
