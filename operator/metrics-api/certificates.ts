/** Serving certificates of our own making: an authority and a certificate of it, in memory as PEM. */
import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';

x509.cryptoProvider.set(webcrypto as never);

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const dayMs = 86_400_000;
/** Clocks of other machines may be behind. */
const backdateMs = 5 * 60_000;

export interface ServingCertificate {
  readonly authorityPem: string;
  readonly certificatePem: string;
  readonly keyPem: string;
  readonly notAfter: Date;
}

export interface CertificateOptions {
  /** DNS names of the Service. */
  readonly hosts: readonly string[];
  readonly now: Date;
  readonly validDays?: number;
}

async function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  return keys as webcrypto.CryptoKeyPair;
}

/** A new authority, used once and then forgotten, and a certificate of it. */
export async function makeServingCertificate({
  hosts,
  now,
  validDays = 90,
}: CertificateOptions): Promise<ServingCertificate> {
  const validity = {
    notBefore: new Date(now.getTime() - backdateMs),
    notAfter: new Date(now.getTime() + validDays * dayMs),
  };
  const authorityKeys = await newKeys();
  const authority = await x509.X509CertificateGenerator.createSelfSigned({
    name: [{ CN: ['nvlm-operator-ca'] }],
    keys: authorityKeys,
    signingAlgorithm: algorithm,
    ...validity,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
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

/** Whether a stored certificate still serves: for these hosts, and with a third of its life left. Broken PEM does not. */
export function isUsable(
  stored: Pick<ServingCertificate, 'certificatePem'>,
  hosts: readonly string[],
  now: Date,
): boolean {
  try {
    const certificate = new x509.X509Certificate(stored.certificatePem);
    const names =
      certificate.getExtension(x509.SubjectAlternativeNameExtension)?.names.toJSON() ?? [];
    const served = new Set(names.map(({ value }) => value));
    const life = certificate.notAfter.getTime() - certificate.notBefore.getTime();
    const left = certificate.notAfter.getTime() - now.getTime();
    return hosts.every((host) => served.has(host)) && left > life / 3;
  } catch {
    return false;
  }
}
