import assert from 'node:assert/strict';
import { Agent } from 'node:https';
import { after, before, beforeEach, describe, test } from 'node:test';
import { Authorizer } from '#operator/metrics-api/authorize.ts';
import {
  makeServingCertificate,
  type ServingCertificate,
} from '#operator/metrics-api/certificates.ts';
import { type FrontProxyConfig, readFrontProxyConfig } from '#operator/metrics-api/front-proxy.ts';
import { MetricsServer, type MetricsSource } from '#operator/metrics-api/server.ts';
import type { MetricSample } from '#operator/metrics-api/values.ts';
import { createAuthority, issueCertificate, type KeyPair } from '../../../scripts/cluster/pki.ts';
import { FakeKube, refuse } from '../../support/fake-kube/server.ts';
import { type HttpsRequest, https } from '../../support/https.ts';

const custom = '/apis/custom.metrics.k8s.io/v1beta2';
const resource = 'nvlmdeployments.serving.nvlm.dev';
const ofChat = `${custom}/namespaces/team/${resource}/chat/queue_depth`;
const ofPods = `${custom}/namespaces/team/pods/*/queue_depth`;
const external = '/apis/external.metrics.k8s.io/v1beta1';
const at = new Date('2026-11-22T10:00:00.900Z');

const sample = (kind: string, apiVersion: string, name: string, value: number): MetricSample => ({
  object: { apiVersion, kind, namespace: 'team', name },
  metric: 'queue_depth',
  value,
  at,
  windowSeconds: 15,
});
const chat = sample('NVLMDeployment', 'serving.nvlm.dev/v1alpha1', 'chat', 42);
const pods = [
  { labels: { app: 'chat', tier: 'a' }, sample: sample('Pod', 'v1', 'chat-0', 2) },
  { labels: { app: 'chat', tier: 'b' }, sample: sample('Pod', 'v1', 'chat-1', 0) },
  { labels: { app: 'other' }, sample: sample('Pod', 'v1', 'other-0', 9) },
];
const source: MetricsSource = {
  served: [
    { resource, metric: 'queue_depth' },
    { resource: 'pods', metric: 'queue_depth' },
  ],
  sampleOf: (namespace, of, name, metric) =>
    namespace === 'team' && of === resource && name === 'chat' && metric === 'queue_depth'
      ? chat
      : undefined,
  samplesOf: (namespace, of, matches, metric) =>
    namespace === 'team' && of === 'pods' && metric === 'queue_depth'
      ? pods.filter(({ labels }) => matches(labels as never)).map((pod) => pod.sample)
      : [],
};

describe('the metrics API', () => {
  let kube: FakeKube;
  let server: MetricsServer;
  let port: number;
  let serving: ServingCertificate;
  let authority: KeyPair;
  let proxy: KeyPair;
  let config: FrontProxyConfig;
  let mayRead: (spec: { user: string; groups: string[] }) => boolean;
  const errors: unknown[] = [];

  const configOf = (of: KeyPair, names = ['front-proxy-client']): FrontProxyConfig =>
    readFrontProxyConfig({
      'requestheader-client-ca-file': of.certificatePem,
      'requestheader-allowed-names': JSON.stringify(names),
      'requestheader-username-headers': '["X-Remote-User"]',
      'requestheader-group-headers': '["X-Remote-Group"]',
      'requestheader-extra-headers-prefix': '["X-Remote-Extra-"]',
    }) as FrontProxyConfig;

  before(async () => {
    kube = new FakeKube();
    const client = await kube.start();
    [authority, serving] = await Promise.all([
      createAuthority('front-proxy-ca'),
      makeServingCertificate({ hosts: ['m.n.svc'], now: new Date() }),
    ]);
    proxy = await issueCertificate(authority, { commonName: 'front-proxy-client' });
    config = configOf(authority);
    const authorizer = new Authorizer({ client, allowedForMs: 0, deniedForMs: 0 });
    server = new MetricsServer(
      { source, authorizer, onError: (error) => errors.push(error) },
      serving,
    );
    port = await server.listen('127.0.0.1', 0);
  });
  beforeEach(() => {
    mayRead = () => true;
    errors.length = 0;
    server.update(serving, config);
    kube.misbehave = ({ path, body, response }) => {
      if (!path.endsWith('/subjectaccessreviews')) return false;
      const { spec } = body as { spec: { user: string; groups: string[] } };
      response.writeHead(201, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ status: { allowed: mayRead(spec) } }));
      return true;
    };
  });
  after(async () => {
    await server.close();
    await kube.stop();
  });

  const hpa = {
    'X-Remote-User': 'system:serviceaccount:kube-system:horizontal-pod-autoscaler',
    'X-Remote-Group': ['system:serviceaccounts', 'system:authenticated'],
  };
  const ask = (path: string, more: Partial<HttpsRequest> = {}) =>
    https({ port, path, client: proxy, headers: hpa, ...more });
  const isStatus = (
    answer: Awaited<ReturnType<typeof ask>>,
    code: number,
    reason: string,
    message: RegExp,
  ): void => {
    assert.equal(answer.code, code, answer.text);
    assert.equal(answer.type, 'application/json');
    const { kind, apiVersion, status, ...told } = answer.body;
    assert.deepEqual(
      { kind, apiVersion, status },
      { kind: 'Status', apiVersion: 'v1', status: 'Failure' },
    );
    assert.deepEqual([told.code, told.reason], [code, reason]);
    assert.match(told.message, message);
  };

  describe('answers', () => {
    test('the depth of a deployment in v1beta2: a list of exactly one', async () => {
      const { code, body } = await ask(ofChat);
      assert.equal(code, 200);
      assert.deepEqual(body, {
        kind: 'MetricValueList',
        apiVersion: 'custom.metrics.k8s.io/v1beta2',
        metadata: {},
        items: [
          {
            describedObject: {
              apiVersion: 'serving.nvlm.dev/v1alpha1',
              kind: 'NVLMDeployment',
              namespace: 'team',
              name: 'chat',
            },
            metric: { name: 'queue_depth', selector: null },
            timestamp: '2026-11-22T10:00:00Z',
            windowSeconds: 15,
            value: '42',
          },
        ],
      });
    });

    test('the same in v1beta1, which names metric and window otherwise', async () => {
      const { body } = await ask(ofChat.replace('v1beta2', 'v1beta1'));
      assert.equal(body.apiVersion, 'custom.metrics.k8s.io/v1beta1');
      const [item] = body.items;
      assert.deepEqual(Object.keys(item).sort(), [
        'describedObject',
        'metricName',
        'timestamp',
        'value',
        'window',
      ]);
      assert.deepEqual([item.metricName, item.window, item.value], ['queue_depth', 15, '42']);
    });

    test('every pod that a selector picks, 0 too', async () => {
      const values = async (selector: string) => {
        const { body } = await ask(`${ofPods}?labelSelector=${encodeURIComponent(selector)}`);
        return body.items.map((item: { describedObject: { name: string }; value: string }) => [
          item.describedObject.name,
          item.value,
        ]);
      };
      assert.deepEqual(await values('app=chat'), [
        ['chat-0', '2'],
        ['chat-1', '0'],
      ]);
      assert.deepEqual(await values('app in (chat, other),tier!=a'), [
        ['chat-1', '0'],
        ['other-0', '9'],
      ]);
      assert.deepEqual(await values('app=nobody'), []);
      isStatus(await ask(`${ofPods}?labelSelector=a%20b`), 400, 'BadRequest', /label selector/);
    });

    test('discovery with static names, never an empty list', async () => {
      const group = await ask('/apis/custom.metrics.k8s.io');
      assert.equal(group.body.kind, 'APIGroup');
      assert.equal(group.body.preferredVersion.groupVersion, 'custom.metrics.k8s.io/v1beta2');
      assert.deepEqual(
        group.body.versions.map(({ version }: { version: string }) => version),
        ['v1beta2', 'v1beta1'],
      );
      const all = await ask('/apis');
      assert.equal(all.body.kind, 'APIGroupList');
      assert.equal(all.body.groups.length, 2);
      for (const path of [custom, `${custom}/`, custom.replace('v1beta2', 'v1beta1')]) {
        const { body } = await ask(path);
        assert.equal(body.kind, 'APIResourceList');
        assert.equal(body.groupVersion, path.slice('/apis/'.length).replace(/\/$/, ''));
        assert.deepEqual(
          body.resources.map(({ name }: { name: string }) => name),
          [`${resource}/queue_depth`, 'pods/queue_depth'],
        );
        assert.ok(body.resources.every((one: { verbs: string[] }) => one.verbs.join() === 'get'));
      }
    });

    test('plain discovery to who would rather have the aggregated document', async () => {
      const accept =
        'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json';
      const { body, type } = await ask('/apis', { headers: { ...hpa, accept } });
      assert.equal(type, 'application/json');
      assert.equal(body.kind, 'APIGroupList');
    });

    test('the external API, by the label of the deployment', async () => {
      const path = `${external}/namespaces/team/queue_depth?labelSelector=deployment%3Dchat`;
      const { code, body } = await ask(path);
      assert.equal(code, 200);
      assert.deepEqual(body, {
        kind: 'ExternalMetricValueList',
        apiVersion: 'external.metrics.k8s.io/v1beta1',
        metadata: {},
        items: [
          {
            metricName: 'queue_depth',
            metricLabels: { deployment: 'chat' },
            timestamp: '2026-11-22T10:00:00Z',
            // As the Go type of this API spells it.
            window: 15,
            value: '42',
          },
        ],
      });
      const { body: list } = await ask(external);
      assert.ok(list.resources.length > 0);
      const names = list.resources.map(({ name }: { name: string }) => name);
      assert.equal(new Set(names).size, names.length, `each metric once: ${names}`);
      isStatus(
        await ask(`${external}/namespaces/team/queue_depth`),
        400,
        'BadRequest',
        /label deployment/,
      );
      isStatus(await ask(path.replace('chat', 'ghost')), 404, 'NotFound', /team\/ghost/);
      isStatus(await ask(path.replace('queue_depth', 'else')), 404, 'NotFound', /else/);
    });
  });

  describe('refuses', () => {
    test('with 404 what is not there: objects, metrics, resources, namespaces, versions, groups', async () => {
      for (const path of [
        ofChat.replace('/chat/', '/ghost/'),
        ofChat.replace('queue_depth', 'tokens'),
        ofChat.replace(resource, 'deployments.apps'),
        ofChat.replace('/team/', '/other/'),
        ofChat.replace('v1beta2', 'v1'),
        ofChat.replace('custom', 'my'),
        `${ofChat}/more`,
        `${custom}/namespaces/team/${resource}`,
        `${custom}/nodes/n/queue_depth`,
        '/',
        '/healthz',
        '/openapi/v2',
        '/apis/apps/v1',
      ]) {
        isStatus(await ask(path), 404, 'NotFound', /./);
      }
    });

    test('with 401 who has no certificate of the front proxy, whatever the headers say', async () => {
      const forged = { 'X-Remote-User': 'admin', 'X-Remote-Group': 'system:masters' };
      const rogue = await createAuthority('front-proxy-ca');
      const wrong = await issueCertificate(rogue, { commonName: 'front-proxy-client' });
      const otherName = await issueCertificate(authority, { commonName: 'kubelet' });
      const asServer = await issueCertificate(authority, {
        commonName: 'front-proxy-client',
        hosts: ['front-proxy-client'],
      });
      for (const path of [ofChat, custom, '/apis']) {
        const none = await https({ port, path, headers: forged });
        isStatus(none, 401, 'Unauthorized', /no client certificate/);
        isStatus(
          await ask(path, { client: wrong, headers: forged }),
          401,
          'Unauthorized',
          /not of the front-proxy authority/,
        );
        isStatus(
          await ask(path, { client: otherName, headers: forged }),
          401,
          'Unauthorized',
          /kubelet is not among/,
        );
        isStatus(
          await ask(path, { client: asServer, headers: forged }),
          401,
          'Unauthorized',
          /not of the front-proxy authority/,
        );
        isStatus(await ask(path, { headers: {} }), 401, 'Unauthorized', /named no user/);
      }
      assert.equal(errors.length, 0);
    });

    test('with 403 whom the API server does not allow it, and says who and what', async () => {
      mayRead = ({ user }) => user !== 'jane';
      const headers = { 'X-Remote-User': 'jane', 'X-Remote-Group': 'dev' };
      isStatus(await ask(ofChat, { headers }), 403, 'Forbidden', /user jane may not read .*chat/);
      assert.equal((await ask(custom, { headers })).code, 200, 'discovery is for everybody');
      const review = kube.requests.at(-1)?.body as { spec: { resourceAttributes: object } };
      assert.deepEqual(review.spec.resourceAttributes, {
        group: 'custom.metrics.k8s.io',
        version: 'v1beta2',
        namespace: 'team',
        resource,
        name: 'chat',
        subresource: 'queue_depth',
        verb: 'get',
      });
    });

    test('a group whose name holds a comma is one group, and makes nobody a master', async () => {
      mayRead = () => false;
      const headers = { 'X-Remote-User': 'a,b', 'X-Remote-Group': ['dev,system:masters', 'x'] };
      assert.equal((await ask(ofChat, { headers })).code, 403);
      const { spec } = kube.requests.at(-1)!.body as { spec: { user: string; groups: string[] } };
      assert.equal(spec.user, 'a,b');
      assert.deepEqual(spec.groups, ['dev,system:masters', 'x']);
    });

    test('the API server’s own aggregator is let in without a question', async () => {
      const asked = kube.requests.length;
      const headers = {
        'X-Remote-User': 'system:kube-aggregator',
        'X-Remote-Group': 'system:masters',
      };
      assert.equal((await ask(ofChat, { headers })).code, 200);
      assert.equal(kube.requests.length, asked);
    });

    test('everything but reading, with 405', async () => {
      for (const method of ['POST', 'DELETE', 'PUT']) {
        isStatus(await ask(ofChat, { method }), 405, 'MethodNotAllowed', /only read/);
      }
    });

    test('an address that is none with 400, and it is no trouble of ours', async () => {
      isStatus(
        await ask(`${custom}/namespaces/%zz/pods/*/queue_depth`),
        400,
        'BadRequest',
        /address/,
      );
      isStatus(await https({ port, path: '//', headers: {} }), 400, 'BadRequest', /address/);
      assert.deepEqual(errors, []);
    });

    test('with 500 when the API server cannot be asked, and reports it', async () => {
      kube.misbehave = ({ response }) => {
        refuse(response, 500, 'InternalError', 'etcd');
        return true;
      };
      isStatus(await ask(ofChat), 500, 'InternalError', /etcd/);
      assert.equal(errors.length, 1);
    });
  });

  describe('while certificates change', () => {
    test('serves the new certificate to new connections, and keeps the old connections', async () => {
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      const verified = { agent, trusted: serving.authorityPem, serverName: 'm.n.svc' };
      assert.equal((await ask(ofChat, verified)).code, 200);
      const renewed = await makeServingCertificate({ hosts: ['m.n.svc'], now: new Date() });
      server.update(renewed, config);
      assert.equal((await ask(ofChat, verified)).code, 200, 'an open connection goes on');
      agent.destroy();
      const fresh = { serverName: 'm.n.svc' };
      await assert.rejects(ask(ofChat, { ...fresh, trusted: serving.authorityPem }));
      assert.equal((await ask(ofChat, { ...fresh, trusted: renewed.authorityPem })).code, 200);
    });

    test('a new front-proxy authority is believed at once, the old one no more, and both while both are in the bundle', async () => {
      const next = await createAuthority('front-proxy-ca-2');
      const nextProxy = await issueCertificate(next, { commonName: 'front-proxy-client' });
      assert.equal((await ask(ofChat, { client: nextProxy })).code, 401);
      const both = { ...config, authority: `${config.authority}\n${next.certificatePem}` };
      server.update(serving, both);
      assert.equal((await ask(ofChat, { client: nextProxy })).code, 200);
      assert.equal((await ask(ofChat)).code, 200);
      server.update(serving, configOf(next));
      assert.equal((await ask(ofChat, { client: nextProxy })).code, 200);
      assert.equal((await ask(ofChat)).code, 401);
    });

    test('an authority that is believed no more is refused on a connection that it opened, and on its resumed session', async () => {
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      const resuming = new Agent({ keepAlive: false });
      assert.equal((await ask(ofChat, { agent })).code, 200);
      assert.equal((await ask(ofChat, { agent: resuming })).code, 200);
      server.update(serving, configOf(await createAuthority('front-proxy-ca-3')));
      const kept = await ask(ofChat, { agent }).catch(() => ({ code: 401 }));
      assert.equal(kept.code, 401);
      assert.equal((await ask(ofChat, { agent: resuming })).code, 401);
      agent.destroy();
    });

    test('nobody is believed while the cluster has no front proxy', async () => {
      server.update(serving, undefined);
      isStatus(await ask(ofChat), 401, 'Unauthorized', /no front proxy/);
    });
  });
});
