/**
 * Who asks: the API server proxies with a client certificate of its front-proxy authority and puts the user into headers. Without that
 * certificate the headers are anybody's claim. The authority and the names come from a ConfigMap of kube-system and are watched,
 * because they rotate.
 */
import type { IncomingHttpHeaders } from 'node:http';
import type { TLSSocket } from 'node:tls';

export interface FrontProxyConfig {
  /** PEM of the authorities. */
  readonly authority: string;
  /** Common names that may proxy; empty: every certificate of the authority. */
  readonly allowedNames: readonly string[];
  readonly usernameHeaders: readonly string[];
  readonly groupHeaders: readonly string[];
  readonly extraHeaderPrefixes: readonly string[];
}

export interface User {
  readonly name: string;
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
    groupHeaders: lower('requestheader-group-headers'),
    extraHeaderPrefixes: lower('requestheader-extra-headers-prefix'),
  };
}

/** The user that the front proxy vouches for, or why nobody is vouched for. */
export function authenticate(
  socket: TLSSocket,
  headers: IncomingHttpHeaders,
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
    names.map((name) => valuesOf(headers, name)[0]).find((value) => value !== undefined);
  const name = first(config.usernameHeaders);
  if (name === undefined) return { refusal: 'the front proxy named no user' };
  const extra: Record<string, string[]> = {};
  for (const header of Object.keys(headers)) {
    const prefix = config.extraHeaderPrefixes.find((candidate) => header.startsWith(candidate));
    if (prefix !== undefined) {
      extra[decodeURIComponent(header.slice(prefix.length))] = valuesOf(headers, header);
    }
  }
  return {
    name,
    groups: config.groupHeaders.flatMap((header) => valuesOf(headers, header)),
    extra,
  };
}

/** Node joins repeated headers by commas, and names of groups hold none. */
function valuesOf(headers: IncomingHttpHeaders, name: string): string[] {
  const value = headers[name];
  if (value === undefined) return [];
  return (Array.isArray(value) ? value : value.split(',')).map((part) => part.trim());
}
