/** Certificates of a cluster: made in memory, written where the control plane reads them. */
import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { join } from 'node:path';
import * as x509 from '@peculiar/x509';

x509.cryptoProvider.set(webcrypto as never);

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
const day = 86_400_000;

export interface KeyPair {
  readonly certificate: x509.X509Certificate;
  readonly keys: webcrypto.CryptoKeyPair;
  readonly certificatePem: string;
  readonly keyPem: string;
}

const newKeys = (): Promise<webcrypto.CryptoKeyPair> =>
  webcrypto.subtle.generateKey(algorithm, true, [
    'sign',
    'verify',
  ]) as Promise<webcrypto.CryptoKeyPair>;

async function pemOf(kind: 'pkcs8' | 'spki', key: webcrypto.CryptoKey): Promise<string> {
  const der = await webcrypto.subtle.exportKey(kind, key);
  return x509.PemConverter.encode(der, kind === 'pkcs8' ? 'PRIVATE KEY' : 'PUBLIC KEY');
}

const validity = () => ({
  notBefore: new Date(Date.now() - day),
  notAfter: new Date(Date.now() + 365 * day),
});

export async function createAuthority(commonName: string): Promise<KeyPair> {
  const keys = await newKeys();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: [{ CN: [commonName] }],
    keys,
    signingAlgorithm: algorithm,
    ...validity(),
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(
        x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign,
        true,
      ),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return {
    certificate,
    keys,
    certificatePem: certificate.toString('pem'),
    keyPem: await pemOf('pkcs8', keys.privateKey),
  };
}

export interface CertificateRequest {
  readonly commonName: string;
  readonly organization?: string;
  /** Names and addresses of a server; a client's certificate when absent. */
  readonly hosts?: readonly string[];
}

export async function issueCertificate(
  authority: KeyPair,
  { commonName, organization, hosts }: CertificateRequest,
): Promise<KeyPair> {
  const keys = await newKeys();
  const usage = hosts ? x509.ExtendedKeyUsage.serverAuth : x509.ExtendedKeyUsage.clientAuth;
  const names = (hosts ?? []).map((value) => ({
    type: isIP(value) ? ('ip' as const) : ('dns' as const),
    value,
  }));
  const certificate = await x509.X509CertificateGenerator.create({
    subject: [{ CN: [commonName] }, ...(organization ? [{ O: [organization] }] : [])],
    issuer: authority.certificate.subject,
    publicKey: keys.publicKey,
    signingKey: authority.keys.privateKey,
    signingAlgorithm: algorithm,
    ...validity(),
    extensions: [
      new x509.BasicConstraintsExtension(false),
      new x509.ExtendedKeyUsageExtension([usage]),
      ...(names.length > 0 ? [new x509.SubjectAlternativeNameExtension(names)] : []),
    ],
  });
  return {
    certificate,
    keys,
    certificatePem: certificate.toString('pem'),
    keyPem: await pemOf('pkcs8', keys.privateKey),
  };
}

/** Files of the control plane, by what they are for. */
export interface ClusterPki {
  readonly folder: string;
  readonly authority: KeyPair;
  readonly frontProxyAuthority: KeyPair;
  /** Path of a certificate; its key is beside it as `.key`. */
  path(name: string): string;
  /** Issues and writes one more. */
  certificate(name: string, request: CertificateRequest): Promise<void>;
  /** Writes a kubeconfig for a user of the cluster's authority; answers its path. */
  kubeconfig(name: string, server: string, user: CertificateRequest): Promise<string>;
  /** A kubeconfig for a bearer token. */
  tokenKubeconfig(name: string, server: string, token: string): string;
}

export async function createPki(
  folder: string,
  serverHosts: readonly string[],
): Promise<ClusterPki> {
  const authority = await createAuthority('kubernetes-ca');
  const frontProxyAuthority = await createAuthority('front-proxy-ca');
  const path = (name: string): string => join(folder, `${name}.crt`);
  const write = (name: string, pair: KeyPair): void => {
    writeFileSync(path(name), pair.certificatePem);
    writeFileSync(join(folder, `${name}.key`), pair.keyPem, { mode: 0o600 });
  };
  write('ca', authority);
  write('front-proxy-ca', frontProxyAuthority);
  write(
    'apiserver',
    await issueCertificate(authority, { commonName: 'kube-apiserver', hosts: serverHosts }),
  );
  write(
    'kubelet-client',
    await issueCertificate(authority, {
      commonName: 'kube-apiserver-kubelet-client',
      organization: 'system:masters',
    }),
  );
  write(
    'front-proxy-client',
    await issueCertificate(frontProxyAuthority, { commonName: 'front-proxy-client' }),
  );
  const signer = await newKeys();
  writeFileSync(join(folder, 'sa.key'), await pemOf('pkcs8', signer.privateKey), { mode: 0o600 });
  writeFileSync(join(folder, 'sa.pub'), await pemOf('spki', signer.publicKey));

  const base64 = (text: string): string => Buffer.from(text).toString('base64');
  const writeConfig = (name: string, server: string, user: object): string => {
    const file = join(folder, `${name}.kubeconfig`);
    const cluster = { server, 'certificate-authority-data': base64(authority.certificatePem) };
    const config = {
      apiVersion: 'v1',
      kind: 'Config',
      'current-context': 'nvlm',
      clusters: [{ name: 'nvlm', cluster }],
      users: [{ name: 'nvlm', user }],
      contexts: [{ name: 'nvlm', context: { cluster: 'nvlm', user: 'nvlm' } }],
    };
    writeFileSync(file, JSON.stringify(config, null, 2), { mode: 0o600 });
    return file;
  };
  return {
    folder,
    authority,
    frontProxyAuthority,
    path,
    async certificate(name, request) {
      write(name, await issueCertificate(authority, request));
    },
    async kubeconfig(name, server, user) {
      const pair = await issueCertificate(authority, user);
      return writeConfig(name, server, {
        'client-certificate-data': base64(pair.certificatePem),
        'client-key-data': base64(pair.keyPem),
      });
    },
    tokenKubeconfig: (name, server, token) => writeConfig(name, server, { token }),
  };
}
