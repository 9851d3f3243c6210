import assert from 'node:assert/strict';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { afterEach, beforeEach, test } from 'node:test';
import type { KubeClient } from '#operator/kube/client.ts';
import { isTrusted, obtainMaterial } from '#operator/metrics-api/material.ts';
import { FakeKube, refuse } from '../../support/fake-kube/server.ts';

const hosts = ['m.n.svc', 'm.n.svc.cluster.local'];
const start = new Date('2026-01-01T00:00:00Z');
const after = (days: number): Date => new Date(start.getTime() + days * 86_400_000);
const secretPath = '/api/v1/namespaces/n/secrets/m-tls';
let server: FakeKube;
let client: KubeClient;

beforeEach(async () => {
  server = new FakeKube();
  client = await server.start();
});
afterEach(() => server.stop());

const obtain = (now: Date, names = hosts) =>
  obtainMaterial({ client, namespace: 'n', secretName: 'm-tls', hosts: names, now: () => now });
const authoritiesOf = (bundle: string): X509Certificate[] =>
  (bundle.match(/-----BEGIN[^-]*-----[^-]*-----END CERTIFICATE-----/g) ?? []).map(
    (pem) => new X509Certificate(pem),
  );

test('replicas that start at once share one certificate, of the authority in the bundle, for the names of the Service', async () => {
  const [first, second] = await Promise.all([obtain(start), obtain(start)]);
  assert.equal(first.certificatePem, second.certificatePem);
  assert.equal(first.keyPem, second.keyPem);
  const certificate = new X509Certificate(first.certificatePem);
  const [authority] = authoritiesOf(first.authorityBundle);
  assert.ok(authority && certificate.verify(authority.publicKey));
  for (const host of hosts) assert.equal(certificate.checkHost(host), host);
});

test('a clock that is half an hour behind finds the certificate valid already', async () => {
  const { certificatePem } = await obtain(start);
  const { validFrom } = new X509Certificate(certificatePem);
  assert.ok(Date.parse(validFrom) <= start.getTime() - 30 * 60_000, validFrom);
});

test('replicas whose clocks are minutes apart agree on one certificate, whoever makes it', async () => {
  for (const minutes of [-20, 20]) {
    const skewed = await obtain(new Date(start.getTime() + minutes * 60_000), [`${minutes}.n.svc`]);
    const other = await obtain(start, [`${minutes}.n.svc`]);
    assert.equal(other.certificatePem, skewed.certificatePem);
  }
});

test('a certificate of a clock that ran days ahead is not valid yet, and is made anew', async () => {
  const early = await obtain(after(10));
  const made = await obtain(start);
  assert.notEqual(made.certificatePem, early.certificatePem);
  assert.ok(Date.parse(new X509Certificate(made.certificatePem).validFrom) <= start.getTime());
});

test('one with a short life is kept for two thirds of it', async () => {
  const options = { client, namespace: 'n', secretName: 'short', hosts, validMs: 30_000 };
  const at = (seconds: number) =>
    obtainMaterial({ ...options, now: () => new Date(start.getTime() + seconds * 1000) });
  const first = await at(0);
  assert.equal((await at(19)).certificatePem, first.certificatePem);
  assert.notEqual((await at(21)).certificatePem, first.certificatePem);
});

test('with a third of its life left it is renewed, and old and new certificate are believed by who trusts the new bundle', async () => {
  const old = await obtain(start);
  assert.equal((await obtain(after(59))).certificatePem, old.certificatePem);
  const renewed = await obtain(after(61));
  assert.notEqual(renewed.certificatePem, old.certificatePem);
  const authorities = authoritiesOf(renewed.authorityBundle);
  for (const { certificatePem } of [old, renewed]) {
    const certificate = new X509Certificate(certificatePem);
    assert.ok(authorities.some((authority) => certificate.verify(authority.publicKey)));
  }
  assert.equal(isTrusted(renewed, old.authorityBundle), false, 'must not be served yet');
  assert.equal(isTrusted(renewed, renewed.authorityBundle), true);
  assert.equal(isTrusted(old, renewed.authorityBundle), true);
});

test('a Secret of other names, or that somebody broke, is made anew', async () => {
  const old = await obtain(start, ['other.n.svc']);
  const made = await obtain(start);
  assert.notEqual(made.certificatePem, old.certificatePem);
  const whole = {
    'tls.crt': made.certificatePem,
    'tls.key': made.keyPem,
    'ca.crt': made.authorityBundle,
  };
  const broken = [
    ...Object.keys(whole).flatMap((name) => [
      { ...whole, [name]: 'none' },
      { ...whole, [name]: '' },
    ]),
    // Each whole, and not of each other.
    { ...whole, 'tls.key': old.keyPem },
    { ...whole, 'ca.crt': old.authorityBundle },
  ];
  for (const data of broken) {
    const encoded = Object.entries(data).map(([name, value]) => [
      name,
      Buffer.from(value).toString('base64'),
    ]);
    server.put(secretPath, { data: Object.fromEntries(encoded) });
    const again = await obtain(start);
    const certificate = new X509Certificate(again.certificatePem);
    const [authority] = authoritiesOf(again.authorityBundle);
    assert.notEqual(again.certificatePem, made.certificatePem);
    assert.equal(certificate.checkHost('m.n.svc'), 'm.n.svc');
    assert.ok(certificate.checkPrivateKey(createPrivateKey(again.keyPem)));
    assert.ok(authority !== undefined && certificate.verify(authority.publicKey));
  }
});

test('what the API server answers otherwise is not taken for a missing Secret', async () => {
  server.misbehave = ({ verb, response }) => {
    if (verb !== 'get') return false;
    refuse(response, 403, 'Forbidden');
    return true;
  };
  await assert.rejects(obtain(start), { code: 'KUBE_STATUS', status: 403 });
  assert.equal(server.count('create'), 0);
});
