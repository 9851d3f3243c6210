import assert from 'node:assert/strict';
import { X509Certificate } from 'node:crypto';
import { afterEach, beforeEach, test } from 'node:test';
import type { KubeClient } from '#operator/kube/client.ts';
import { isTrusted, obtainMaterial } from '#operator/metrics-api/material.ts';
import { FakeKube } from '../../support/fake-kube/server.ts';

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

test('a clock that is minutes behind finds the certificate valid already', async () => {
  const { certificatePem } = await obtain(start);
  const { validFrom } = new X509Certificate(certificatePem);
  assert.ok(Date.parse(validFrom) <= start.getTime() - 4 * 60_000, validFrom);
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
  server.put(secretPath, { data: { 'tls.crt': 'bm9uZQ==' } });
  const again = await obtain(start);
  assert.equal(new X509Certificate(again.certificatePem).checkHost('m.n.svc'), 'm.n.svc');
});
