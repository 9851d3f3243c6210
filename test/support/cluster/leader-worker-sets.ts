/** The real LeaderWorkerSet controller beside a test cluster: its CRDs, its process, and its webhooks reached at loopback. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Yaml } from 'cdk8s';
import type { KubeObject, ResourceType } from '#operator/kube/resource.ts';
import { applyCrd, type ControlPlane } from '../../../scripts/cluster/control-plane.ts';
import { leaderWorkerSetManifests } from '../../../scripts/cluster/lws.mjs';
import { issueCertificate } from '../../../scripts/cluster/pki.ts';
import {
  type Child,
  eventually,
  freePorts,
  startChild,
} from '../../../scripts/cluster/processes.ts';

interface Webhook {
  readonly clientConfig: { readonly service: { readonly path: string } };
  readonly rules: readonly { readonly resources: readonly string[] }[];
}
type WebhookConfiguration = KubeObject & { readonly webhooks: readonly Webhook[] };

/** The CRDs alone: the kind is served, and nobody acts on it. */
export async function applyLeaderWorkerSetCrds({ client }: ControlPlane): Promise<void> {
  const { crds } = await leaderWorkerSetManifests();
  // Not by the Kubernetes library, which renames fields of the kinds that it knows.
  for (const crd of crds.flatMap((path) => Yaml.load(path) as KubeObject[]))
    await applyCrd(client, crd);
}

/** CRDs, controller and webhooks. The caller stops the process, before the control plane. */
export async function startLeaderWorkerSets(plane: ControlPlane): Promise<Child> {
  await applyLeaderWorkerSetCrds(plane);
  const { client, folder, pki, programs, kubeconfig } = plane;
  const [port = 0, healthPort = 0] = await freePorts(2);
  const certificates = join(folder, 'pki/lws');
  mkdirSync(certificates);
  const pair = await issueCertificate(pki.authority, {
    commonName: 'lws-webhook',
    hosts: ['localhost', '127.0.0.1'],
  });
  writeFileSync(join(certificates, 'tls.crt'), pair.certificatePem);
  writeFileSync(join(certificates, 'tls.key'), pair.keyPem, { mode: 0o600 });
  const config = join(folder, 'lws.json');
  const health = `127.0.0.1:${healthPort}`;
  writeFileSync(
    config,
    JSON.stringify({
      apiVersion: 'config.lws.x-k8s.io/v1alpha1',
      kind: 'Configuration',
      leaderElection: { leaderElect: false },
      internalCertManagement: { enable: false },
      webhook: { host: '127.0.0.1', port, certDir: certificates },
      metrics: { bindAddress: '0' },
      health: { healthProbeBindAddress: health },
    }),
  );
  // Before the controller, as an installation has them: a pod that no webhook saw lacks labels that the controller needs.
  await applyWebhooks(plane, `https://127.0.0.1:${port}`);
  const child = startChild(
    'lws',
    join(programs, 'lws'),
    [`--config=${config}`, '--metrics-bind-address=0', `--health-probe-bind-address=${health}`],
    { logFile: join(folder, 'log/lws.log'), env: { KUBECONFIG: kubeconfig } },
  );
  await eventually(
    'the LeaderWorkerSet controller is ready',
    async () => (await fetch(`http://${health}/readyz`)).ok,
    { timeoutMs: 60_000, explain: () => child.tail() },
  );
  await eventually(
    'its webhook answers',
    () =>
      client.request({
        method: 'POST',
        path: '/apis/leaderworkerset.x-k8s.io/v1/namespaces/default/leaderworkersets',
        query: { dryRun: 'All' },
        body: {
          apiVersion: 'leaderworkerset.x-k8s.io/v1',
          kind: 'LeaderWorkerSet',
          metadata: { name: 'probe' },
          spec: {
            leaderWorkerTemplate: {
              workerTemplate: { spec: { containers: [{ name: 'probe', image: 'probe' }] } },
            },
          },
        },
      }),
    { timeoutMs: 60_000, explain: () => child.tail() },
  );
  return child;
}

async function applyWebhooks({ client, pki }: ControlPlane, base: string): Promise<void> {
  const { webhooks } = await leaderWorkerSetManifests();
  const caBundle = Buffer.from(pki.authority.certificatePem).toString('base64');
  for (const configuration of Yaml.load(webhooks) as WebhookConfiguration[]) {
    const { kind } = configuration;
    const type: ResourceType = {
      group: 'admissionregistration.k8s.io',
      version: 'v1',
      kind,
      plural: `${kind.toLowerCase()}s`,
      namespaced: false,
    };
    const object = {
      ...configuration,
      metadata: { name: `lws-${configuration.metadata.name}` },
      webhooks: configuration.webhooks.map((webhook) => ({
        ...webhook,
        clientConfig: { url: `${base}${webhook.clientConfig.service.path}`, caBundle },
        // As its installation has it: only its own pods are asked about.
        ...(webhook.rules[0]?.resources[0] === 'pods' && {
          objectSelector: {
            matchExpressions: [{ key: 'leaderworkerset.sigs.k8s.io/name', operator: 'Exists' }],
          },
        }),
      })),
    };
    await client.apply(type, object, { fieldManager: 'test', force: true });
  }
}
