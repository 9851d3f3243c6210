/**
 * Who asks: the API server proxies with a client certificate of its front-proxy authority and puts the user into headers. Without that
 * certificate the headers are anybody's claim. The authority and the names come from a ConfigMap of kube-system and are watched,
 * because they rotate.
 */
import type { TLSSocket } from 'node:tls';

export interface FrontProxyConfig {
  /** PEM of the authorities. */
  readonly authority: string;
  /** Common names that may proxy; empty: every certificate of the authority. */
  readonly allowedNames: readonly string[];
  readonly usernameHeaders: readonly string[];
  /** Of Kubernetes 1.33 and newer. */
  readonly uidHeaders: readonly string[];
  readonly groupHeaders: readonly string[];
  readonly extraHeaderPrefixes: readonly string[];
}

/** Values of each header, lower-case name to list, as `IncomingMessage.headersDistinct` has them. */
export type DistinctHeaders = Readonly<Record<string, readonly string[] | undefined>>;

export interface User {
  readonly name: string;
  readonly uid?: string;
  readonly groups: readonly string[];
  readonly extra: Readonly<Record<string, readonly string[]>>;
}

/** Of `kube-system/extension-apiserver-authentication`; undefined when the cluster does not aggregate. Throws SyntaxError on a broken list. */
export function readFrontProxyConfig(
  data: Readonly<Record<string, string>> | undefined,
): FrontProxyConfig | undefined {
  const authority = data?.['requestheader-client-ca-file'];
  if (data === undefined || authority === undefined) return undefined;
  const list = (name: string): string[] =>
    data[name] === undefined ? [] : (JSON.parse(data[name]) as string[]);
  const lower = (name: string): string[] => list(name).map((header) => header.toLowerCase());
  return {
    authority,
    allowedNames: list('requestheader-allowed-names'),
    usernameHeaders: lower('requestheader-username-headers'),
    uidHeaders: lower('requestheader-uid-headers'),
    groupHeaders: lower('requestheader-group-headers'),
    extraHeaderPrefixes: lower('requestheader-extra-headers-prefix'),
  };
}

/**
 * The user that the front proxy vouches for, or why nobody is vouched for. Each header line is one value: a name or group may hold
 * commas, and split there would be other people's.
 */
export function authenticate(
  socket: Pick<TLSSocket, 'getPeerCertificate' | 'authorized' | 'authorizationError'>,
  headers: DistinctHeaders,
  config: FrontProxyConfig | undefined,
): User | { readonly refusal: string } {
  if (config === undefined) return { refusal: 'this cluster has no front proxy configured' };
  const certificate = socket.getPeerCertificate();
  if (certificate.subject === undefined) return { refusal: 'no client certificate' };
  if (!socket.authorized) {
    return {
      refusal: `the client certificate is not of the front-proxy authority: ${socket.authorizationError}`,
    };
  }
  const commonName = String(certificate.subject.CN);
  if (config.allowedNames.length > 0 && !config.allowedNames.includes(commonName)) {
    return { refusal: `${commonName} is not among the allowed front-proxy names` };
  }
  const first = (names: readonly string[]): string | undefined =>
    names.map((name) => headers[name]?.[0]).find((value) => value !== undefined && value !== '');
  const name = first(config.usernameHeaders);
  if (name === undefined) return { refusal: 'the front proxy named no user' };
  const uid = first(config.uidHeaders);
  const extra: Record<string, string[]> = {};
  for (const prefix of config.extraHeaderPrefixes) {
    for (const [header, values = []] of Object.entries(headers)) {
      if (!header.startsWith(prefix)) continue;
      const key = unescapeKey(header.slice(prefix.length));
      extra[key] = [...(extra[key] ?? []), ...values];
    }
  }
  return {
    name,
    ...(uid !== undefined && { uid }),
    groups: config.groupHeaders.flatMap((header) => headers[header] ?? []),
    extra,
  };
}

/** As it is where it is not percent-encoded: the API server of old did not encode. */
function unescapeKey(key: string): string {
  try {
    return decodeURIComponent(key);
  } catch {
    return key;
  }
}
