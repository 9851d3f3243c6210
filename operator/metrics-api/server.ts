/** custom.metrics.k8s.io and external.metrics.k8s.io over TLS: who asks is proven by the front proxy, what he may is asked of the API server. */

import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import type { Authorizer, ResourceAccess } from './authorize.ts';
import { authenticate, type FrontProxyConfig } from './front-proxy.ts';
import { parseSelector } from './selector.ts';
import {
  apiGroup,
  apiResourceList,
  CUSTOM_GROUP,
  type CustomVersion,
  customMetricList,
  EXTERNAL_GROUP,
  externalMetricList,
  failureStatus,
  type MetricSample,
  type ServedMetric,
} from './values.ts';

export interface MetricsSource {
  /** Whatever exists at the moment: names of metrics do not come and go. */
  readonly served: readonly ServedMetric[];
  /** Undefined when there is no such object or metric. */
  sampleOf(
    namespace: string,
    resource: string,
    name: string,
    metric: string,
  ): MetricSample | undefined;
  samplesOf(
    namespace: string,
    resource: string,
    matches: (labels: Readonly<Record<string, string>>) => boolean,
    metric: string,
  ): readonly MetricSample[];
}

export interface MetricsServerOptions {
  readonly source: MetricsSource;
  readonly authorizer: Authorizer;
  readonly onError: (error: unknown) => void;
}

export interface TlsMaterial {
  readonly certificatePem: string;
  readonly keyPem: string;
}

interface Answer {
  readonly code: number;
  readonly body: object;
}

const groups: Readonly<Record<string, readonly string[]>> = {
  [CUSTOM_GROUP]: ['v1beta2', 'v1beta1'],
  [EXTERNAL_GROUP]: ['v1beta1'],
};
const fail = (code: number, reason: string, message: string): Answer => ({
  code,
  body: failureStatus(code, reason, message),
});
const notFound = (path: string): Answer =>
  fail(404, 'NotFound', `the metrics API of NVLM serves nothing at ${path}`);

export class MetricsServer {
  readonly #options: MetricsServerOptions;
  readonly #server: Server;
  #frontProxy: FrontProxyConfig | undefined;
  /** Connections opened under the present front-proxy authority. */
  #believed = new WeakSet<Socket>();

  constructor(options: MetricsServerOptions, tls: TlsMaterial) {
    this.#options = options;
    this.#server = createServer({
      cert: tls.certificatePem,
      key: tls.keyPem,
      requestCert: true,
      // Refused per route, with a Status: the TLS layer could not say why.
      rejectUnauthorized: false,
      minVersion: 'TLSv1.2',
    });
    this.#server.on('secureConnection', (socket) => void this.#believed.add(socket));
    this.#server.on('request', (request, response) => void this.#handle(request, response));
  }

  /**
   * From now on, for new connections. Those that were opened under another front-proxy authority end, after the answer that they
   * wait for: whom it vouched for may not be believed any more.
   */
  update(tls: TlsMaterial, frontProxy: FrontProxyConfig | undefined): void {
    const isOtherAuthority = frontProxy?.authority !== this.#frontProxy?.authority;
    this.#frontProxy = frontProxy;
    this.#server.setSecureContext({
      cert: tls.certificatePem,
      key: tls.keyPem,
      minVersion: 'TLSv1.2',
      ...(frontProxy !== undefined && { ca: frontProxy.authority }),
    });
    if (isOtherAuthority) {
      this.#believed = new WeakSet();
      this.#server.closeIdleConnections();
    }
  }

  listen(host: string, port: number): Promise<number> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(port, host, () => resolve((this.#server.address() as AddressInfo).port));
    });
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    let answer: Answer;
    try {
      answer = await this.#answer(request);
    } catch (error) {
      this.#options.onError(error);
      answer = fail(500, 'InternalError', `the metrics API failed: ${String(error)}`);
    }
    const body = JSON.stringify(answer.body);
    response.writeHead(answer.code, {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(body),
      ...(!this.#believed.has(request.socket) && { connection: 'close' }),
    });
    response.end(body);
  }

  async #answer(request: IncomingMessage): Promise<Answer> {
    const url = readAddress(request.url ?? '/');
    if (url === undefined) return fail(400, 'BadRequest', `${request.url} is no address`);
    const path = url.pathname.replace(/\/$/, '');
    const { socket, headersDistinct } = request;
    const user = authenticate(socket as TLSSocket, headersDistinct, this.#frontProxy);
    if ('refusal' in user) return fail(401, 'Unauthorized', `not authenticated: ${user.refusal}`);
    if (request.method !== 'GET') return fail(405, 'MethodNotAllowed', 'metrics are only read');
    const [, root, group = '', version = '', ...rest] = path.split('/');
    if (root !== 'apis' || (group !== '' && groups[group] === undefined)) return notFound(path);
    if (version !== '' && !groups[group]?.includes(version)) return notFound(path);
    // What is served is no secret, and the API server's aggregator asks for it as a user without any rights.
    if (rest.length === 0) return this.#discover(group, version);
    const access = accessOf(group, version, rest);
    if (access === undefined) return notFound(path);
    if (!(await this.#options.authorizer.isAllowed(user, access))) {
      return fail(403, 'Forbidden', `user ${user.name} may not read ${path}`);
    }
    return group === CUSTOM_GROUP
      ? this.#custom(version as CustomVersion, access, url)
      : this.#external(access, url);
  }

  #discover(group: string, version: string): Answer {
    if (group === '') {
      const listed = Object.keys(groups).map(apiGroup);
      return { code: 200, body: { kind: 'APIGroupList', apiVersion: 'v1', groups: listed } };
    }
    if (version === '') return { code: 200, body: apiGroup(group) };
    return { code: 200, body: apiResourceList(group, version, this.#options.source.served) };
  }

  #custom(version: CustomVersion, access: ResourceAccess, url: URL): Answer {
    const { source } = this.#options;
    const { namespace = '', resource, name = '', subresource: metric = '' } = access;
    if (name === '*') {
      const selector = url.searchParams.get('labelSelector') ?? '';
      let matches: ReturnType<typeof parseSelector>;
      try {
        matches = parseSelector(selector);
      } catch (error) {
        return fail(400, 'BadRequest', (error as Error).message);
      }
      const samples = source.samplesOf(namespace, resource, matches, metric);
      return { code: 200, body: customMetricList(version, samples) };
    }
    const sample = source.sampleOf(namespace, resource, name, metric);
    if (sample === undefined) {
      return fail(404, 'NotFound', `no metric ${metric} of ${resource} ${namespace}/${name}`);
    }
    return { code: 200, body: customMetricList(version, [sample]) };
  }

  #external({ namespace = '', resource: metric }: ResourceAccess, url: URL): Answer {
    const { source } = this.#options;
    const served = source.served.find((one) => one.metric === metric && one.resource !== 'pods');
    if (served === undefined) return fail(404, 'NotFound', `no external metric ${metric}`);
    const name = /(?:^|,)deployment==?([^,]+)/.exec(
      url.searchParams.get('labelSelector') ?? '',
    )?.[1];
    if (name === undefined) {
      return fail(400, 'BadRequest', 'select one NVLMDeployment by the label deployment');
    }
    const sample = source.sampleOf(namespace, served.resource, name, metric);
    if (sample === undefined)
      return fail(404, 'NotFound', `no NVLMDeployment ${namespace}/${name}`);
    return { code: 200, body: externalMetricList([sample]) };
  }
}

/** Undefined for what cannot be read as one, bad percent-encoding among it. */
function readAddress(text: string): URL | undefined {
  try {
    const url = new URL(text, 'https://metrics');
    decodeURIComponent(url.pathname);
    return url;
  } catch {
    return undefined;
  }
}

/** `namespaces/NS/RESOURCE/NAME/METRIC`, or for external metrics `namespaces/NS/METRIC`. */
function accessOf(
  group: string,
  version: string,
  parts: readonly string[],
): ResourceAccess | undefined {
  const [scope, namespace, resource, name, metric, ...more] = parts.map(decodeURIComponent);
  if (scope !== 'namespaces' || namespace === undefined || resource === undefined) return undefined;
  if (group === EXTERNAL_GROUP) {
    return name === undefined ? { group, version, namespace, resource } : undefined;
  }
  if (name === undefined || metric === undefined || more.length > 0) return undefined;
  return { group, version, namespace, resource, name, subresource: metric };
}
