/** The operator's own installation. */
import { GROUP, PLURAL } from '#crds/nvlm-deployment.ts';
import { dashboardConfigMap } from './dashboard.ts';
import type { KubeObject } from './kube.ts';
import { LABELS, OPERATOR_NAME, PORTS } from './labels.ts';
import type { OperatorProps } from './props.ts';
import { CONTAINER_SECURITY, POD_SECURITY } from './security.ts';

export const METRICS_SERVICE = `${OPERATOR_NAME}-metrics`;

const labels = {
  [LABELS.name]: OPERATOR_NAME,
  [LABELS.component]: 'controller',
};
const rbac = 'rbac.authorization.k8s.io';

interface PolicyRule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
  readonly resourceNames?: readonly string[];
}
const rule = (
  group: string,
  resources: readonly string[],
  verbs: readonly string[],
  resourceNames?: readonly string[],
): PolicyRule => ({
  apiGroups: [group],
  resources,
  verbs,
  ...(resourceNames && { resourceNames }),
});

const apiServices = [
  'v1beta2.custom.metrics.k8s.io',
  'v1beta1.custom.metrics.k8s.io',
  'v1beta1.external.metrics.k8s.io',
];
/** Server-side apply of an object that is not there yet needs create as well. */
const applied = ['get', 'list', 'watch', 'create', 'patch', 'delete'];

/** Of the operator's process: its heap stays well within the memory limit of the pod. */
export const OPERATOR_ENVIRONMENT: Readonly<Record<string, string>> = {
  NODE_OPTIONS: '--max-old-space-size=256 --max-semi-space-size=4',
};

const clusterRules: readonly PolicyRule[] = [
  rule(GROUP, [PLURAL], ['get', 'list', 'watch', 'patch']),
  rule(GROUP, [`${PLURAL}/status`], ['patch']),
  rule(GROUP, [`${PLURAL}/scale`], ['get', 'patch']),
  rule(GROUP, [`${PLURAL}/finalizers`], ['update']),
  rule('', ['pods', 'services'], applied),
  rule('discovery.k8s.io', ['endpointslices'], ['list', 'watch']),
  rule('networking.k8s.io', ['networkpolicies'], applied),
  rule('policy', ['poddisruptionbudgets'], applied),
  rule('batch', ['jobs'], applied),
  rule('autoscaling', ['horizontalpodautoscalers'], applied),
  // Of use where the cluster serves them.
  rule('monitoring.coreos.com', ['podmonitors'], applied),
  rule('leaderworkerset.x-k8s.io', ['leaderworkersets'], applied),
  rule('events.k8s.io', ['events'], ['create']),
  rule('apiregistration.k8s.io', ['apiservices'], ['get', 'patch', 'delete'], apiServices),
  rule('apiregistration.k8s.io', ['apiservices'], ['create']),
  // The owner of its APIServices: they go when the installation goes.
  rule(rbac, ['clusterroles'], ['get'], [OPERATOR_NAME]),
];

const role = (
  kind: 'ClusterRole' | 'Role',
  name: string,
  rules: readonly PolicyRule[],
  namespace?: string,
): KubeObject => ({
  apiVersion: `${rbac}/v1`,
  kind,
  metadata: { name, ...(namespace && { namespace }), labels },
  rules,
});

const binding = (
  name: string,
  roleRef: { readonly kind: 'ClusterRole' | 'Role'; readonly name: string },
  subject: { readonly name: string; readonly namespace: string },
  namespace?: string,
): KubeObject => ({
  apiVersion: `${rbac}/v1`,
  kind: namespace === undefined ? 'ClusterRoleBinding' : 'RoleBinding',
  metadata: { name, ...(namespace && { namespace }), labels },
  roleRef: { apiGroup: rbac, ...roleRef },
  subjects: [{ kind: 'ServiceAccount', ...subject }],
});

/** Who the operator is and what it may do. */
export function operatorAccess({
  namespace,
  serviceAccountAnnotations: annotations,
}: Pick<OperatorProps, 'namespace' | 'serviceAccountAnnotations'>): readonly KubeObject[] {
  const account = { name: OPERATOR_NAME, namespace };
  const hpa = { name: 'horizontal-pod-autoscaler', namespace: 'kube-system' };
  const clusterRole = (name: string) => ({ kind: 'ClusterRole' as const, name });
  return [
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name: namespace, labels } },
    {
      apiVersion: 'v1',
      kind: 'ServiceAccount',
      metadata: { ...account, labels, ...(annotations && { annotations }) },
    },
    role('ClusterRole', OPERATOR_NAME, clusterRules),
    binding(OPERATOR_NAME, clusterRole(OPERATOR_NAME), account),
    role(
      'Role',
      OPERATOR_NAME,
      [
        rule('coordination.k8s.io', ['leases'], ['create']),
        rule('coordination.k8s.io', ['leases'], ['get', 'update'], [OPERATOR_NAME]),
        rule('', ['secrets'], ['create']),
        rule('', ['secrets'], ['get', 'update'], [`${METRICS_SERVICE}-tls`]),
      ],
      namespace,
    ),
    binding(OPERATOR_NAME, { kind: 'Role', name: OPERATOR_NAME }, account, namespace),
    // To ask the API server what a reader of metrics may do, and to read whose certificates its front proxy has.
    binding(`${OPERATOR_NAME}-auth-delegator`, clusterRole('system:auth-delegator'), account),
    binding(
      `${OPERATOR_NAME}-auth-reader`,
      { kind: 'Role', name: 'extension-apiserver-authentication-reader' },
      account,
      'kube-system',
    ),
    role('ClusterRole', `${OPERATOR_NAME}-hpa`, [
      rule('custom.metrics.k8s.io', ['*'], ['get', 'list']),
      rule('external.metrics.k8s.io', ['*'], ['get', 'list']),
      rule(GROUP, [`${PLURAL}/scale`], ['get', 'update']),
    ]),
    binding(`${OPERATOR_NAME}-hpa`, clusterRole(`${OPERATOR_NAME}-hpa`), hpa),
    // Added to the roles that people already have.
    {
      ...role('ClusterRole', `${OPERATOR_NAME}-view`, [
        rule(GROUP, [PLURAL], ['get', 'list', 'watch']),
      ]),
      metadata: {
        name: `${OPERATOR_NAME}-view`,
        labels: { ...labels, [`${rbac}/aggregate-to-view`]: 'true' },
      },
    },
    {
      ...role('ClusterRole', `${OPERATOR_NAME}-edit`, [
        rule(GROUP, [PLURAL, `${PLURAL}/scale`], ['create', 'update', 'patch', 'delete']),
      ]),
      metadata: {
        name: `${OPERATOR_NAME}-edit`,
        labels: { ...labels, [`${rbac}/aggregate-to-edit`]: 'true' },
      },
    },
  ];
}

const defaultResources = {
  requests: { cpu: '50m', memory: '128Mi' },
  limits: { memory: '512Mi' },
};

function deployment(props: OperatorProps): KubeObject {
  const { namespace, image, engineImage, imagePullPolicy, replicas, metricsApi } = props;
  const { resources = defaultResources, priorityClassName = 'system-cluster-critical' } = props;
  const { imagePullSecrets, nodeSelector, tolerations, affinity } = props;
  const probe = (path: string) => ({
    httpGet: { path, port: 'http' },
    periodSeconds: 5,
    timeoutSeconds: 3,
  });
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name: OPERATOR_NAME, namespace, labels },
    spec: {
      replicas,
      selector: { matchLabels: labels },
      template: {
        metadata: { labels, ...(props.podAnnotations && { annotations: props.podAnnotations }) },
        spec: {
          serviceAccountName: OPERATOR_NAME,
          enableServiceLinks: false,
          priorityClassName,
          ...(imagePullSecrets && { imagePullSecrets }),
          ...(nodeSelector && { nodeSelector }),
          ...(tolerations && { tolerations }),
          ...(affinity && { affinity }),
          topologySpreadConstraints: [
            {
              maxSkew: 1,
              topologyKey: 'kubernetes.io/hostname',
              whenUnsatisfiable: 'ScheduleAnyway',
              labelSelector: { matchLabels: labels },
            },
          ],
          securityContext: POD_SECURITY,
          containers: [
            {
              name: 'operator',
              image,
              imagePullPolicy,
              args: [
                `--namespace=${namespace}`,
                `--engine-image=${engineImage}`,
                `--image-pull-policy=${imagePullPolicy}`,
                `--metrics-api=${metricsApi}`,
                `--port=${PORTS.operatorHealth}`,
                `--metrics-port=${PORTS.metricsApi}`,
                `--log-level=${props.logLevel ?? 'info'}`,
                ...(props.extraArgs ?? []),
              ],
              env: Object.entries(OPERATOR_ENVIRONMENT).map(([name, value]) => ({ name, value })),
              ports: [
                { name: 'http', containerPort: PORTS.operatorHealth, protocol: 'TCP' },
                { name: 'metrics-api', containerPort: PORTS.metricsApi, protocol: 'TCP' },
              ],
              resources,
              // On a busy machine Node alone needs longer to load than a liveness probe would wait.
              startupProbe: { ...probe('/healthz'), failureThreshold: 24 },
              livenessProbe: probe('/healthz'),
              readinessProbe: probe('/readyz'),
              securityContext: CONTAINER_SECURITY,
            },
          ],
        },
      },
    },
  };
}

const service = (
  namespace: string,
  name: string,
  port: number,
  targetPort: string,
): KubeObject => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name, namespace, labels },
  spec: { selector: labels, ports: [{ name: targetPort, port, targetPort, protocol: 'TCP' }] },
});

const podMonitor = (
  namespace: string,
  { interval, labels: more }: NonNullable<OperatorProps['podMonitor']>,
): KubeObject => ({
  apiVersion: 'monitoring.coreos.com/v1',
  kind: 'PodMonitor',
  metadata: { name: OPERATOR_NAME, namespace, labels: { ...labels, ...more } },
  spec: {
    selector: { matchLabels: labels },
    // Gauges of NVLMDeployments name their own namespace, which is not that of the operator.
    podMetricsEndpoints: [{ port: 'http', path: '/metrics', interval, honorLabels: true }],
  },
});

/** By default for the sidecar of Grafana's own chart. */
export const DASHBOARD_LABELS = { grafana_dashboard: '1' } as const;

const dashboardOf = (
  namespace: string,
  { labels: more }: NonNullable<OperatorProps['dashboard']>,
): KubeObject =>
  dashboardConfigMap(`${OPERATOR_NAME}-dashboard`, namespace, { ...labels, ...more });

/** In the order in which they are applied. */
export function operatorObjects(props: OperatorProps): readonly KubeObject[] {
  const { namespace, metricsApi } = props;
  return [
    ...operatorAccess(props),
    service(namespace, OPERATOR_NAME, 80, 'http'),
    ...(metricsApi === 'none' ? [] : [service(namespace, METRICS_SERVICE, 443, 'metrics-api')]),
    deployment(props),
    {
      apiVersion: 'policy/v1',
      kind: 'PodDisruptionBudget',
      metadata: { name: OPERATOR_NAME, namespace, labels },
      spec: { maxUnavailable: 1, selector: { matchLabels: labels } },
    },
    ...(props.podMonitor ? [podMonitor(namespace, props.podMonitor)] : []),
    ...(props.dashboard ? [dashboardOf(namespace, props.dashboard)] : []),
  ];
}
