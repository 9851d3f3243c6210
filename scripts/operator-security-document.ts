/** docs/operator-security.md: what the operator may do, from the rules that are installed, with the reason of each. */
import { operatorAccess } from '#charts/operator-objects.ts';

interface Rule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
  readonly resourceNames?: readonly string[];
}
interface Access {
  readonly kind: string;
  readonly metadata: { readonly name: string; readonly namespace?: string };
  readonly rules?: readonly Rule[];
  readonly roleRef?: { readonly kind: string; readonly name: string };
  readonly subjects?: readonly { readonly name: string; readonly namespace: string }[];
}

/** Role, group and resources -> why; a test fails where one is missing or left over. */
const reasons: Readonly<Record<string, string>> = {
  'nvlm-operator serving.nvlm.dev nvlmdeployments':
    'Reads them; `patch` sets the finalizer and the wake annotation.',
  'nvlm-operator serving.nvlm.dev nvlmdeployments/status':
    'Writes the status, and nothing else can by this right.',
  'nvlm-operator serving.nvlm.dev nvlmdeployments/scale':
    'Between 0 and 1 replica, and where no HPA can read the queue depth.',
  'nvlm-operator serving.nvlm.dev nvlmdeployments/finalizers':
    'Lets children name their NVLMDeployment as owner that blocks its deletion, where the cluster checks that.',
  'nvlm-operator core pods,services':
    'Engine pods and the Service before them. `delete`: pods that have drained, and pods of older revisions.',
  'nvlm-operator discovery.k8s.io endpointslices':
    'Reads whether the Service of an NVLMDeployment leads to an engine.',
  'nvlm-operator networking.k8s.io networkpolicies': 'One for each NVLMDeployment.',
  'nvlm-operator policy poddisruptionbudgets': 'One for each NVLMDeployment.',
  'nvlm-operator batch jobs': 'The Job that reads the model’s configuration.',
  'nvlm-operator autoscaling horizontalpodautoscalers':
    'One for each NVLMDeployment with autoscaling.',
  'nvlm-operator monitoring.coreos.com podmonitors':
    'Where the cluster has the Prometheus operator.',
  'nvlm-operator leaderworkerset.x-k8s.io leaderworkersets':
    'Replicas of several pods, where the cluster has LeaderWorkerSet.',
  'nvlm-operator events.k8s.io events': 'Tells what it did, for `kubectl describe`.',
  'nvlm-operator apiregistration.k8s.io apiservices named':
    'Registers its own metrics API, and takes it away under another `--metrics-api`; the names are fixed, and a foreign provider is not touched.',
  'nvlm-operator apiregistration.k8s.io apiservices': '`create` cannot be limited to names.',
  'nvlm-operator rbac.authorization.k8s.io clusterroles named':
    'Reads its own role, which owns the APIServices: they go with the installation.',
  'nvlm-operator coordination.k8s.io leases':
    '`create` cannot be limited to names; in its own namespace only.',
  'nvlm-operator coordination.k8s.io leases named': 'Its election.',
  'nvlm-operator core secrets': '`create` cannot be limited to names; in its own namespace only.',
  'nvlm-operator core secrets named':
    'The serving certificate of the metrics API, that all replicas share. No other Secret can be read.',
  'nvlm-operator-hpa custom.metrics.k8s.io *': 'The HPA controller reads the queue depth.',
  'nvlm-operator-hpa external.metrics.k8s.io *': 'The same with `--metrics-api external`.',
  'nvlm-operator-hpa serving.nvlm.dev nvlmdeployments/scale':
    'The HPA controller writes `spec.replicas`.',
  'nvlm-operator-view serving.nvlm.dev nvlmdeployments':
    'Added to the role `view` that people have.',
  'nvlm-operator-edit serving.nvlm.dev nvlmdeployments,nvlmdeployments/scale':
    'Added to the roles `edit` and `admin`.',
};

const keyOf = (role: string, { apiGroups, resources, resourceNames }: Rule): string =>
  [role, apiGroups[0] || 'core', resources.join(','), ...(resourceNames ? ['named'] : [])].join(
    ' ',
  );
const code = (words: readonly string[]): string => words.map((word) => `\`${word}\``).join(', ');

/** Throws where a rule has no reason written down, or a reason no rule. */
export function operatorSecurityMarkdown(): string {
  const objects = operatorAccess({ namespace: 'nvlm-system' }) as unknown as readonly Access[];
  const used = new Set<string>();
  const rows = objects.flatMap(({ kind, metadata, rules = [] }) =>
    rules.map((rule) => {
      const key = keyOf(metadata.name, rule);
      const reason = reasons[key];
      if (reason === undefined) throw new Error(`No reason is written down for the rule ${key}`);
      used.add(key);
      const scope = kind === 'Role' ? `in \`${metadata.namespace}\`` : 'cluster';
      const names = rule.resourceNames ? ` only ${code(rule.resourceNames)}` : '';
      return `| \`${metadata.name}\` | ${scope} | \`${rule.apiGroups[0] || 'core'}\` | ${code(rule.resources)}${names} | ${code(rule.verbs)} | ${reason} |`;
    }),
  );
  const left = Object.keys(reasons).filter((key) => !used.has(key));
  if (left.length > 0) throw new Error(`Reasons without a rule: ${left}`);
  const bindings = objects
    .filter(({ roleRef }) => roleRef !== undefined)
    .map(({ metadata, roleRef, subjects = [] }) => {
      const who = subjects.map(({ namespace, name }) => `${namespace}/${name}`);
      const where = metadata.namespace === undefined ? 'cluster' : `in \`${metadata.namespace}\``;
      return `| ${code(who)} | ${roleRef?.kind} \`${roleRef?.name}\` | ${where} |`;
    });
  return `# What the operator may do, and how it is protected

Generated from \`charts/operator-objects.ts\` by \`node scripts/documents.ts\`. The tests on a real control plane run the operator under exactly these rights.

## Rights

| role | where | API group | resources | verbs | why |
|---|---|---|---|---|---|
${rows.join('\n')}

| who | gets | where |
|---|---|---|
${bindings.join('\n')}

\`system:auth-delegator\` lets the operator ask the API server what a reader of metrics may do, \`extension-apiserver-authentication-reader\` lets it read which authority the API server's front proxy has. With \`--watch-namespace\` the
ClusterRole may be bound in that namespace alone, besides the cluster-scoped kinds.

Who may create NVLMDeployments in a namespace runs pods there with an image and a pod template of their choice: give it to people who may create pods.

## Its pods

User 65532, read-only root, no capabilities, no privilege escalation, the runtime's seccomp profile, memory limited; two replicas on different nodes where there are two, a PodDisruptionBudget, priority \`system-cluster-critical\`.
Every write carries the leader's fence: a replica that lost the Lease has its writes cut, also those on their way.

## Its metrics API

The API server proxies readers with a client certificate of its front-proxy authority. The operator takes no request without one: the chain is verified against the authority in \`kube-system/extension-apiserver-authentication\`, the
name against the allowed names there, both read again every five seconds; connections opened under an authority that was replaced end. Only then are the headers with user and groups believed, each line as one value. What that user
may read the API server says, by a SubjectAccessReview that is remembered for ten seconds (five when refused). Discovery needs the certificate, no right.

The serving certificate (ECDSA P-256) is the operator's own, valid for \`--metrics-certificate-lifetime\` (90 days) and renewed with a third of that left; each has an authority of its own whose key is thrown away. A renewed one is
served once the APIServices trust its authority beside the one before. To renew it by hand, delete the Secret \`nvlm-operator-metrics-tls\`; nobody is interrupted. TLS 1.2 and newer.

Plain HTTP on \`--port\`: health, metrics, and \`POST /wake/<namespace>/<name>\`, which can start one replica of a deployment that sleeps and nothing else. Keep it inside the cluster by a NetworkPolicy where namespaces are not trusted.

## The engine's pods

User 65532, read-only root, no capabilities, no service account token. Their NetworkPolicy lets in the engine's port and lets out DNS and HTTPS. API keys come from a Secret of the namespace (\`auth.apiKeysSecretRef\`): an engine that
is to have keys and finds none does not start. Without the field everybody who reaches the Service may use the engine. TLS for clients is an ingress's.

## What goes on when the operator is down

Pods serve, Services lead to them, the HPA keeps the last number of replicas. What stops: drains, rollouts, repairs, scaling, 0 to 1.
`;
}
