/** The serving certificate in a Secret that all replicas share: made by the first that finds none that serves, renewed in time. */
import type { KubeClient } from '../kube/client.ts';
import { isConflict, isNotFound } from '../kube/errors.ts';
import { collectionPath, type KubeObject, objectPath, RESOURCES } from '../kube/resource.ts';
import { isUsable, makeServingCertificate } from './certificates.ts';
import type { TlsMaterial } from './server.ts';

export interface MaterialOptions {
  readonly client: KubeClient;
  readonly namespace: string;
  readonly secretName: string;
  readonly hosts: readonly string[];
  readonly now: () => Date;
  /** Of certificates that are made; 90 days when absent. */
  readonly validMs?: number;
  /** PEM of the authority that callers believe at present, for a Secret that was deleted or broken. */
  readonly believedAuthority?: string;
}

export interface Material extends TlsMaterial {
  /** PEM: the present authority, and the one before it, so that replicas that did not change yet are still believed. */
  readonly authorityBundle: string;
}

type Secret = KubeObject & { readonly data?: Readonly<Record<string, string>> };
const decode = (value: string | undefined): string =>
  Buffer.from(value ?? '', 'base64').toString('utf8');
const encode = (value: string): string => Buffer.from(value).toString('base64');

/** Reads the Secret, or makes it, or renews what is in it. Throws KubeError. */
export async function obtainMaterial(options: MaterialOptions): Promise<Material> {
  const { client, namespace, secretName, hosts, now, validMs, believedAuthority } = options;
  const path = objectPath(RESOURCES.secret, secretName, namespace);
  for (let attempt = 0; ; attempt++) {
    const found = await client
      .request({ method: 'GET', path })
      .then((secret) => secret as Secret)
      .catch((error: unknown) => {
        if (isNotFound(error)) return undefined;
        throw error;
      });
    const stored = readMaterial(found);
    if (isUsable(stored, hosts, now())) return stored;
    const made = await makeServingCertificate({
      hosts,
      now: now(),
      ...(validMs !== undefined && { validMs }),
    });
    const before = firstCertificate(stored.authorityBundle) || (believedAuthority ?? '');
    const bundle = [made.authorityPem, before].join('\n').trim();
    const data = {
      'tls.crt': encode(made.certificatePem),
      'tls.key': encode(made.keyPem),
      'ca.crt': encode(bundle),
    };
    const secret = {
      apiVersion: 'v1',
      kind: 'Secret',
      type: 'kubernetes.io/tls',
      metadata: { ...found?.metadata, name: secretName, namespace },
      data,
    };
    try {
      await (found === undefined
        ? client.request({
            method: 'POST',
            path: collectionPath(RESOURCES.secret, namespace),
            body: secret,
          })
        : client.request({ method: 'PUT', path, body: secret }));
      return { ...made, authorityBundle: bundle };
    } catch (error) {
      // Another replica was faster: take what it made.
      if (!isConflict(error) || attempt >= 5) throw error;
    }
  }
}

function readMaterial(secret: Secret | undefined): Material {
  return {
    certificatePem: decode(secret?.data?.['tls.crt']),
    keyPem: decode(secret?.data?.['tls.key']),
    authorityBundle: decode(secret?.data?.['ca.crt']),
  };
}

/** Whether who trusts `authorities` (PEM) believes the certificate of `material`. */
export const isTrusted = ({ authorityBundle }: Material, authorities: string): boolean => {
  const authority = firstCertificate(authorityBundle);
  return authority !== '' && authorities.includes(authority);
};

/** PEM of the authority that a bundle begins with; empty where there is none. */
export const firstCertificate = (bundle: string): string =>
  /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/.exec(bundle)?.[0] ?? '';
