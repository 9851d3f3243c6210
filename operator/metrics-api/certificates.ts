/** Serving certificates of our own making: an authority and a certificate of it, in memory as PEM. */
import 'reflect-metadata';
import { createPrivateKey, webcrypto, X509Certificate } from 'node:crypto';
import * as x509 from '@peculiar/x509';

x509.cryptoProvider.set(webcrypto as never);

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const dayMs = 86_400_000;
/** Clocks of other machines may be behind ours by so much. */
const backdateMs = 60 * 60_000;

export interface ServingCertificate {
  readonly authorityPem: string;
  readonly certificatePem: string;
  readonly keyPem: string;
  readonly notAfter: Date;
}

/** As a Secret keeps it. */
export interface StoredCertificate {
  readonly certificatePem: string;
  readonly keyPem: string;
  /** PEM: its authority first. */
  readonly authorityBundle: string;
}

export interface CertificateOptions {
  /** DNS names of the Service. */
  readonly hosts: readonly string[];
  readonly now: Date;
  /** How long it is valid from now on; 90 days when absent. */
  readonly validMs?: number;
}

async function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  return keys as webcrypto.CryptoKeyPair;
}

/** A new authority, used once and then forgotten, and a certificate of it. */
export async function makeServingCertificate({
  hosts,
  now,
  validMs = 90 * dayMs,
}: CertificateOptions): Promise<ServingCertificate> {
  const validity = {
    notBefore: new Date(now.getTime() - backdateMs),
    notAfter: new Date(now.getTime() + validMs),
  };
  const authorityKeys = await newKeys();
  const authority = await x509.X509CertificateGenerator.createSelfSigned({
    // Of its own name: OpenSSL tries one authority of a name, and a bundle holds the one before beside it.
    name: [{ CN: [`nvlm-operator-ca@${Math.floor(now.getTime() / 1000)}`] }],
    keys: authorityKeys,
    signingAlgorithm: algorithm,
    ...validity,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
      await x509.SubjectKeyIdentifierExtension.create(authorityKeys.publicKey),
    ],
  });
  const keys = await newKeys();
  const certificate = await x509.X509CertificateGenerator.create({
    subject: [{ CN: [hosts[0] ?? 'nvlm-operator'] }],
    issuer: authority.subject,
    publicKey: keys.publicKey,
    signingKey: authorityKeys.privateKey,
    signingAlgorithm: algorithm,
    ...validity,
    extensions: [
      new x509.BasicConstraintsExtension(false),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      await x509.AuthorityKeyIdentifierExtension.create(authorityKeys.publicKey),
      new x509.SubjectAlternativeNameExtension(hosts.map((value) => ({ type: 'dns', value }))),
    ],
  });
  const key = await webcrypto.subtle.exportKey('pkcs8', keys.privateKey);
  return {
    authorityPem: authority.toString('pem'),
    certificatePem: certificate.toString('pem'),
    keyPem: x509.PemConverter.encode(key, 'PRIVATE KEY'),
    notAfter: validity.notAfter,
  };
}

/**
 * Whether a stored certificate serves: for these hosts, valid now and with a third of its life left, with its key, and signed by the
 * first authority of the bundle. What is broken does not.
 */
export function isUsable(
  { certificatePem, keyPem, authorityBundle }: StoredCertificate,
  hosts: readonly string[],
  now: Date,
): boolean {
  try {
    const certificate = new X509Certificate(certificatePem);
    const authority = new X509Certificate(authorityBundle);
    const startMs = Date.parse(certificate.validFrom);
    const endMs = Date.parse(certificate.validTo);
    const lifeMs = endMs - startMs - backdateMs;
    return (
      hosts.every((host) => certificate.checkHost(host, { wildcards: false }) !== undefined) &&
      now.getTime() >= startMs &&
      endMs - now.getTime() > lifeMs / 3 &&
      certificate.checkPrivateKey(createPrivateKey(keyPem)) &&
      certificate.verify(authority.publicKey)
    );
  } catch {
    return false;
  }
}
