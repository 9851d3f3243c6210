import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import type { ProviderState } from '#operator/metrics-api/provider.ts';
import type { MetricsSource } from '#operator/metrics-api/server.ts';
import { serveMetrics, withdrawMetrics } from '#operator/serve-metrics.ts';
import { createAuthority, issueCertificate, type KeyPair } from '../../scripts/cluster/pki.ts';
import { eventually } from '../../scripts/cluster/processes.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { FakeKube, type FakeRequest, refuse } from '../support/fake-kube/server.ts';
import { https } from '../support/https.ts';

const period = 5000;
const day = 86_400_000;
/** Past, so that what is made then and now is valid to a client that looks at the clock. */
const start = Date.now() - 61 * 86_400_000;
const discovery = '/apis/custom.metrics.k8s.io/v1beta2';
const configPath = '/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication';
const registration = '/apis/apiregistration.k8s.io/v1/apiservices/v1beta2.custom.metrics.k8s.io';
const serverName = 'nvlm-operator-metrics.nvlm-system.svc';
const source: MetricsSource = {
  served: [{ resource: 'pods', metric: 'queue_depth' }],
  sampleOf: () => undefined,
  samplesOf: () => [],
};

describe('the metrics API of a running operator', () => {
  let kube: FakeKube;
  let authority: KeyPair;
  let proxy: KeyPair;
  let nowMs: number;
  let stop: AbortController;
  let running: { clock: FakeClock; port: number; states: ProviderState[]; ended: Promise<void> }[];
  let errors: unknown[];

  const answer = (): boolean => false;
  const refuseAll = ({ response }: FakeRequest): boolean => {
    refuse(response, 503, 'ServiceUnavailable');
    return true;
  };
  const trust = (of: KeyPair): void => {
    kube.put(configPath, {
      data: {
        'requestheader-client-ca-file': of.certificatePem,
        'requestheader-allowed-names': '["front-proxy-client"]',
        'requestheader-username-headers': '["X-Remote-User"]',
      },
    });
  };
  beforeEach(async () => {
    kube = new FakeKube();
    nowMs = start;
    stop = new AbortController();
    running = [];
    errors = [];
    authority = await createAuthority('front-proxy');
    proxy = await issueCertificate(authority, { commonName: 'front-proxy-client' });
    trust(authority);
  });
  afterEach(async () => {
    stop.abort();
    await Promise.all(running.map(({ ended }) => ended));
    await kube.stop();
  });

  const until = (what: string, check: () => boolean): Promise<boolean> =>
    eventually(what, check, { timeoutMs: 10_000, intervalMs: 10, explain: () => String(errors) });
  /** A replica; its rounds are made by `round`. */
  const startReplica = async (isLeader: boolean) => {
    const clock = new FakeClock();
    const replica = { clock, port: 0, states: [] as ProviderState[], ended: Promise.resolve() };
    replica.ended = serveMetrics(
      {
        client: await kube.start(),
        source,
        api: 'custom',
        namespace: 'nvlm-system',
        serviceName: 'nvlm-operator-metrics',
        servicePort: 443,
        host: '127.0.0.1',
        port: 0,
        isLeader: () => isLeader,
        onState: (state) => replica.states.push(state as ProviderState),
        onError: (error) => errors.push(error),
        periodMs: period,
        clock,
        now: () => new Date(nowMs),
      },
      stop.signal,
      (port) => {
        replica.port = port;
      },
    );
    running.push(replica);
    await until('the first round ends', () => clock.timerCount === 1);
    return replica;
  };
  const round = async ({ clock }: { clock: FakeClock }): Promise<void> => {
    clock.advance(period);
    await until('a round ends', () => clock.timerCount === 1);
  };
  /** As the API server asks: with its proxy's certificate, believing what is registered. */
  const ask = async (port: number, client = proxy): Promise<number> => {
    const { spec } = kube.read(registration) as unknown as { spec: { caBundle: string } };
    const trusted = Buffer.from(spec.caBundle, 'base64').toString();
    const headers = { 'X-Remote-User': 'system:kube-aggregator' };
    const answer = await https({ port, path: discovery, client, trusted, serverName, headers });
    return answer.code;
  };

  test('is believed by the API server at every moment of a renewal, at the leader and at the other replica', async () => {
    const leader = await startReplica(true);
    const other = await startReplica(false);
    const check = async (when: string): Promise<void> => {
      for (const { port } of [leader, other]) assert.equal(await ask(port), 200, when);
    };
    await check('at first');
    const before = kube.read(registration);
    nowMs = start + 61 * day;
    for (const [replica, when] of [
      [other, 'the one that does not lead renews first'],
      [other, 'and looks again before the leader has registered it'],
      [leader, 'the leader registers it'],
      [other, 'the other serves it'],
      [leader, 'the leader serves it'],
      [other, 'after all'],
    ] as const) {
      await round(replica);
      await check(when);
    }
    assert.notDeepEqual(kube.read(registration)?.spec, before?.spec, 'it was renewed');
    const writes = kube.count('patch');
    await round(leader);
    assert.equal(kube.count('patch'), writes, 'and is left alone after that');
    assert.deepEqual(errors, []);
  });

  test('is believed at every moment also when somebody deletes the Secret to have it made anew', async () => {
    const leader = await startReplica(true);
    const other = await startReplica(false);
    const before = kube.read(registration);
    kube.remove('/api/v1/namespaces/nvlm-system/secrets/nvlm-operator-metrics-tls');
    for (const replica of [other, leader, other, leader]) {
      await round(replica);
      for (const { port } of [leader, other]) assert.equal(await ask(port), 200);
    }
    assert.notDeepEqual(kube.read(registration)?.spec, before?.spec);
  });

  test('follows the front proxy’s authority in the ConfigMap', async () => {
    const leader = await startReplica(true);
    const next = await createAuthority('front-proxy-2');
    const nextProxy = await issueCertificate(next, { commonName: 'front-proxy-client' });
    assert.equal(await ask(leader.port, nextProxy), 401);
    trust(next);
    await round(leader);
    assert.equal(await ask(leader.port, nextProxy), 200);
    assert.equal(await ask(leader.port), 401);
    kube.remove(configPath);
    await round(leader);
    assert.equal(await ask(leader.port, nextProxy), 401);
  });

  test('goes on with what it knows while the API server does not answer, or answers nonsense', async () => {
    const leader = await startReplica(true);
    kube.misbehave = refuseAll;
    await round(leader);
    kube.misbehave = answer;
    kube.put(configPath, {
      data: { 'requestheader-client-ca-file': 'x', 'requestheader-allowed-names': '[' },
    });
    await round(leader);
    assert.equal(errors.length, 2);
    assert.equal(await ask(leader.port), 200);
  });

  test('waits for an API server that is down at the start', async () => {
    kube.misbehave = refuseAll;
    const leader = await startReplica(true);
    assert.equal(leader.port, 0);
    kube.misbehave = answer;
    await round(leader);
    await until('it listens', () => leader.port > 0);
    assert.equal(await ask(leader.port), 200);
  });

  test('is taken away by the leader of operators that serve another one or none, and only by the leader', async () => {
    await startReplica(true);
    assert.ok(kube.read(registration));
    let leads = false;
    const clock = new FakeClock();
    const ended = withdrawMetrics(
      {
        client: await kube.start(),
        api: 'none',
        namespace: 'nvlm-system',
        serviceName: 'nvlm-operator-metrics',
        isLeader: () => leads,
        onError: (error) => errors.push(error),
        clock,
      },
      stop.signal,
    );
    running.push({ clock, port: 0, states: [], ended });
    await until('it has looked', () => clock.timerCount === 1);
    assert.ok(kube.read(registration), 'another operator leads');
    leads = true;
    clock.advance(2000);
    await until('both are gone', () => kube.read(registration) === undefined);
    await until('it rests', () => clock.timerCount === 1);
    assert.equal(kube.count('delete'), 2);
    assert.deepEqual(errors, []);
  });

  test('is not registered by a replica that does not lead, which still tells who serves', async () => {
    const other = await startReplica(false);
    assert.equal(kube.count('patch'), 0);
    assert.equal(other.states.at(-1)?.status, 'unreachable');
    kube.put(registration, { spec: { service: { name: 'adapter', namespace: 'monitoring' } } });
    await round(other);
    assert.equal(other.states.at(-1)?.status, 'foreign');
  });
});
