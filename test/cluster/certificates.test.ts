import assert from 'node:assert/strict';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { objectPath, RESOURCES } from '#operator/kube/resource.ts';
import { createAuthority, issueCertificate } from '../../scripts/cluster/pki.ts';
import { eventually, SETUP_MS } from '../../scripts/cluster/processes.ts';
import { Deployments, FAST_SCALING } from '../support/cluster/deployments.ts';
import { NAMESPACE, startTestCluster, type TestCluster } from '../support/cluster/operator.ts';
import { noCluster } from '../support/cluster/requirements.ts';

const metricPath =
  '/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/nvlmdeployments.serving.nvlm.dev/chat/queue_depth';

interface Conditioned {
  readonly spec: { readonly caBundle?: string };
  readonly status?: {
    readonly conditions?: readonly {
      type: string;
      status: string;
      reason?: string;
      message?: string;
    }[];
  };
}

describe('certificates that change under a real HPA controller', {
  skip: noCluster(),
  timeout: 600_000,
}, () => {
  let cluster: TestCluster;
  let deployments: Deployments;

  before(async () => {
    cluster = await startTestCluster();
    await cluster.startOperator({ args: ['--metrics-certificate-lifetime=60s'] });
    deployments = new Deployments(cluster.client);
    await deployments.create('chat', {
      autoscaling: { maxReplicas: 8, targetQueueDepth: 4, behavior: FAST_SCALING },
    });
    await deployments.untilReady('chat', { timeoutMs: SETUP_MS });
    await follows(8);
  });
  after(() => cluster?.stop());

  const read = async (path: string): Promise<Conditioned> =>
    (await cluster.client.request({ method: 'GET', path })) as Conditioned;
  const registration = (version: string): Promise<Conditioned> =>
    read(objectPath(RESOURCES.apiService, `${version}.custom.metrics.k8s.io`));
  const caBundle = async (): Promise<string> => (await registration('v1beta2')).spec.caBundle ?? '';
  const condition = ({ status }: Conditioned, type: string) =>
    status?.conditions?.find((one) => one.type === type);

  /** The HPA reads a queue of so many and scales to it: the whole way works. */
  const follows = async (waiting: number): Promise<void> => {
    cluster.engines.setTotal('chat', waiting);
    const wanted = Math.ceil(waiting / 4);
    await deployments.until(
      'chat',
      `has ${wanted} replicas`,
      ({ spec }) => spec.replicas === wanted,
      {
        timeoutMs: 60_000,
        explain: async () => (await cluster.kubectl('describe', 'hpa', 'chat')).output,
      },
    );
  };

  /** Looks again and again, as long as `during` runs, whether anybody notices; answers what was noticed. */
  const noticed = async (during: () => Promise<void>): Promise<string[]> => {
    const found: string[] = [];
    let isOver = false;
    const watching = (async () => {
      while (!isOver) {
        for (const version of ['v1beta2', 'v1beta1']) {
          const available = condition(await registration(version), 'Available');
          if (available?.status !== 'True') found.push(`${version}: ${JSON.stringify(available)}`);
        }
        const hpa = await read(objectPath(RESOURCES.horizontalPodAutoscaler, 'chat', 'default'));
        const active = condition(hpa, 'ScalingActive');
        if (active?.status !== 'True') found.push(`HPA: ${JSON.stringify(active)}`);
        const { code, output } = await cluster.kubectl('get', '--raw', metricPath);
        if (code !== 0) found.push(output);
        await sleep(200);
      }
    })();
    try {
      await during();
    } finally {
      isOver = true;
      await watching;
    }
    return found;
  };

  test('the serving certificate and its authority are renewed twice: nobody notices, and the HPA goes on', async () => {
    const seen = new Set([await caBundle()]);
    const problems = await noticed(async () => {
      await eventually(
        'two renewals',
        async () => {
          seen.add(await caBundle());
          return seen.size >= 3;
        },
        { timeoutMs: 150_000, intervalMs: 1000 },
      );
      // Until the last one is served, and longer than the first was valid.
      await sleep(12_000);
      await follows(24);
    });
    assert.deepEqual(problems, []);
  });

  test('a Secret that is deleted is made anew, and nobody notices', async () => {
    const before = await caBundle();
    const path = objectPath(RESOURCES.secret, 'nvlm-operator-metrics-tls', NAMESPACE);
    const problems = await noticed(async () => {
      await cluster.client.request({ method: 'DELETE', path });
      await eventually(
        'another authority is registered',
        async () => (await caBundle()) !== before,
      );
      await sleep(12_000);
      await follows(8);
    });
    assert.deepEqual(problems, []);
  });

  test('the authority of the API server’s front proxy is changed as administrators do: nobody notices', async () => {
    const { pki } = cluster.plane;
    const path = objectPath(
      RESOURCES.configMap,
      'extension-apiserver-authentication',
      'kube-system',
    );
    const trusted = async (): Promise<string> => {
      const { data } = (await read(path)) as unknown as { data: Record<string, string> };
      return data['requestheader-client-ca-file'] ?? '';
    };
    const write = (file: string, text: string): void => {
      writeFileSync(`${file}.new`, text);
      renameSync(`${file}.new`, file);
    };
    const next = await createAuthority('front-proxy-ca-2');
    const nextClient = await issueCertificate(next, { commonName: 'front-proxy-client' });
    const file = pki.path('front-proxy-ca');
    const problems = await noticed(async () => {
      write(file, `${readFileSync(file, 'utf8').trim()}\n${next.certificatePem}`);
      await eventually(
        'the API server publishes both authorities',
        async () => (await trusted()).includes(next.certificatePem.trim()),
        { timeoutMs: 120_000 },
      );
      // A look of the operator.
      await sleep(7000);
      write(join(pki.folder, 'front-proxy-client.key'), nextClient.keyPem);
      write(pki.path('front-proxy-client'), nextClient.certificatePem);
      await sleep(10_000);
      await follows(16);
    });
    assert.deepEqual(problems, []);
  });

  test('an authority that is replaced at once, without a time of both, is followed within seconds', async () => {
    const { pki } = cluster.plane;
    const next = await createAuthority('front-proxy-ca-3');
    const nextClient = await issueCertificate(next, { commonName: 'front-proxy-client' });
    writeFileSync(join(pki.folder, 'front-proxy-client.key'), nextClient.keyPem);
    writeFileSync(pki.path('front-proxy-client'), nextClient.certificatePem);
    writeFileSync(pki.path('front-proxy-ca'), next.certificatePem);
    await cluster.plane.restart('kube-apiserver');
    await eventually(
      'the metric is read again',
      async () => {
        const { code, output } = await cluster.kubectl('get', '--raw', metricPath);
        if (code !== 0) throw new Error(output);
        return true;
      },
      { timeoutMs: 60_000 },
    );
    await follows(4);
  });
});
