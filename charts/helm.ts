/** The Helm chart: the objects of an installation, with values where an installation may differ. */

import { guarded, HelmTemplate } from './helm-template.ts';
import { valuesSchema, valuesTable, valuesYaml } from './helm-values.ts';
import type { KubeObject } from './kube.ts';
import { OPERATOR_NAME } from './labels.ts';
import { operatorObjects } from './operator-objects.ts';
import type { OperatorProps } from './props.ts';

export interface HelmChartProps {
  /** Of the chart and of what it installs. */
  readonly version: string;
  readonly customResourceDefinition: KubeObject;
  /** One object as YAML. */
  readonly toYaml: (object: KubeObject) => string;
}

/** Where an object of each kind goes; a kind that is missing here has a file of its own name. */
const fileOf = ({ kind }: KubeObject): string => {
  if (/^(Cluster)?Role(Binding)?$/.test(kind)) return 'rbac';
  return kind === 'Service' ? 'services' : kind.toLowerCase();
};

const identity = ({ kind, metadata: { namespace = '', name } }: KubeObject): string =>
  `${kind}/${namespace}/${name}`;

/** The chart's files, by their paths in its folder. */
export function helmChart({
  version,
  customResourceDefinition,
  toYaml,
}: HelmChartProps): ReadonlyMap<string, string> {
  const template = new HelmTemplate();
  const value = (path: string): string => template.text(`.Values.${path}`);
  const imageOf = (values: string): string =>
    template.text(
      `include "${OPERATOR_NAME}.image" (dict "image" .Values.${values} "chart" .Chart)`,
    );
  const base: OperatorProps = {
    namespace: template.text('.Release.Namespace'),
    image: imageOf('image'),
    engineImage: imageOf('engineImage'),
    imagePullPolicy: value('image.pullPolicy') as OperatorProps['imagePullPolicy'],
    replicas: template.number('.Values.replicas'),
    metricsApi: value('metricsApi') as OperatorProps['metricsApi'],
    logLevel: value('logLevel'),
    extraArgs: template.items('.Values.extraArgs'),
    imagePullSecrets: template.block('.Values.imagePullSecrets'),
    resources: template.block('.Values.resources'),
    priorityClassName: value('priorityClassName'),
    nodeSelector: template.block('.Values.nodeSelector'),
    tolerations: template.block('.Values.tolerations'),
    affinity: template.block('.Values.affinity'),
    podAnnotations: template.block('.Values.podAnnotations'),
    serviceAccountAnnotations: template.block('.Values.serviceAccount.annotations'),
  };
  const podMonitor = {
    interval: value('podMonitor.interval'),
    labels: template.entries('.Values.podMonitor.labels'),
  };
  const dashboard = { labels: template.entries('.Values.dashboard.labels') };
  const all: OperatorProps = { ...base, podMonitor, dashboard };
  // What an option adds is found by leaving it out, so that no list of objects has to be kept.
  const idsWithout = (props: OperatorProps): ReadonlySet<string> =>
    new Set(operatorObjects(props).map(identity));
  const options = [
    {
      condition: 'ne .Values.metricsApi "none"',
      without: idsWithout({ ...all, metricsApi: 'none' }),
    },
    { condition: '.Values.podMonitor.enabled', without: idsWithout({ ...base, dashboard }) },
    { condition: '.Values.dashboard.enabled', without: idsWithout({ ...base, podMonitor }) },
  ];
  const releaseLabels = {
    'helm.sh/chart': template.text(`include "${OPERATOR_NAME}.chart" .`),
    'app.kubernetes.io/instance': template.text('.Release.Name'),
    'app.kubernetes.io/managed-by': template.text('.Release.Service'),
    'app.kubernetes.io/version': template.text('.Chart.AppVersion'),
  };
  const write = (object: KubeObject): string => {
    const labels = { ...object.metadata.labels, ...releaseLabels };
    const labelled = { ...object, metadata: { ...object.metadata, labels } };
    // Through JSON, because YAML would write what is shared as an anchor.
    return template.fill(toYaml(JSON.parse(JSON.stringify(labelled)) as KubeObject));
  };

  const templates = new Map<string, string[]>();
  for (const object of operatorObjects(all)) {
    // Helm makes the namespace, with --create-namespace, and never deletes it.
    if (object.kind === 'Namespace') continue;
    const condition = options.find(({ without }) => !without.has(identity(object)))?.condition;
    const text = write(object);
    const path = `templates/${fileOf(object)}.yaml`;
    templates.set(path, [
      ...(templates.get(path) ?? []),
      condition === undefined ? text : guarded(condition, text),
    ]);
  }
  const crd = write({
    ...customResourceDefinition,
    metadata: {
      ...customResourceDefinition.metadata,
      annotations: template.block(`include "${OPERATOR_NAME}.crdAnnotations" . | fromYaml`),
    },
  });
  return new Map([
    ['Chart.yaml', chartYaml(version)],
    ['values.yaml', valuesYaml()],
    ['values.schema.json', valuesSchema()],
    ['README.md', readme()],
    ['.helmignore', '*.swp\n*.bak\n*~\n.git/\n'],
    ['templates/_helpers.tpl', helpers],
    ['templates/NOTES.txt', notes],
    ['templates/crd.yaml', guarded('.Values.crds.install', crd)],
    ...[...templates].map(([path, texts]) => [path, texts.join('---\n')] as const),
  ]);
}

const chartYaml = (version: string): string => `apiVersion: v2
name: ${OPERATOR_NAME}
description: Serves vision-language models on GPUs. One custom resource a model, scaled on the depth of its queue.
type: application
version: ${version}
appVersion: ${version}
kubeVersion: ">=1.30.0-0"
keywords:
  - inference
  - llm
  - gpu
  - operator
`;

const helpers = `{{- define "${OPERATOR_NAME}.chart" -}}
{{- printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* A digest names one image for ever; a tag may move. */ -}}
{{- define "${OPERATOR_NAME}.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (.image.tag | default .chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "${OPERATOR_NAME}.crdAnnotations" -}}
{{- if .Values.crds.keep -}}
helm.sh/resource-policy: keep
{{- end -}}
{{- end -}}
`;

const notes = `The operator of NVLMDeployments is installed in namespace {{ .Release.Namespace }}.

Wait until it is ready:

    kubectl -n {{ .Release.Namespace }} rollout status deployment/${OPERATOR_NAME}

Serve a model, and watch it become Ready:

    kubectl apply -f examples/small-one-gpu.yaml
    kubectl get nvlm --watch
{{- if eq .Values.metricsApi "none" }}

Queue depth is not served to the HorizontalPodAutoscaler (metricsApi: none): the operator scales by itself.
{{- end }}
{{- if not .Values.crds.install }}

The CRD is not part of this release (crds.install: false): apply that of this version yourself, before the operator.
{{- else if not .Values.crds.keep }}

WARNING: uninstalling this release deletes the CRD and with it every NVLMDeployment of the cluster (crds.keep: false).
{{- end }}
`;

const readme = (): string => `# nvlm-operator

The operator of NVLMDeployments: its rights, two replicas, their Services, and the CRD. Generated from the charts in TypeScript by \`node cdk8s.ts\`; change those.

    helm install nvlm-operator charts/nvlm-operator --namespace nvlm-system --create-namespace
    helm upgrade nvlm-operator charts/nvlm-operator --namespace nvlm-system --reset-then-reuse-values
    helm uninstall nvlm-operator --namespace nvlm-system

One release a cluster: the CRD and the metrics API are the cluster's. The CRD is a template, so that an upgrade brings its changes; uninstalling leaves it and every NVLMDeployment, whose pods go on serving
(\`crds.keep\`). Installed with \`kubectl apply -f charts/install.yaml\` before? \`helm install --take-ownership\` takes over what is there.

${valuesTable()}
`;
