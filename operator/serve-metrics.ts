/** Runs the metrics API: certificate, front-proxy authority and registration are looked after again and again. */
import { FIELD_MANAGER, OPERATOR_NAME } from '#charts/labels.ts';
import type { KubeClient } from './kube/client.ts';
import { type Clock, pause, systemClock } from './kube/clock.ts';
import { isNotFound } from './kube/errors.ts';
import { type KubeObject, objectPath, RESOURCES } from './kube/resource.ts';
import { Authorizer } from './metrics-api/authorize.ts';
import { type FrontProxyConfig, readFrontProxyConfig } from './metrics-api/front-proxy.ts';
import {
  firstCertificate,
  isTrusted,
  type Material,
  obtainMaterial,
} from './metrics-api/material.ts';
import {
  inspect,
  METRICS_APIS,
  register,
  registeredAuthorities,
  withdraw,
} from './metrics-api/provider.ts';
import { MetricsServer, type MetricsSource } from './metrics-api/server.ts';
import type { MetricsState } from './nvlm/context.ts';

export interface ServeMetricsOptions {
  readonly client: KubeClient;
  readonly source: MetricsSource;
  readonly api: 'custom' | 'external';
  readonly namespace: string;
  readonly serviceName: string;
  readonly servicePort: number;
  readonly host: string;
  readonly port: number;
  /** Only the leader registers; all replicas answer. */
  readonly isLeader: () => boolean;
  readonly onState: (state: MetricsState) => void;
  readonly onError: (error: unknown) => void;
  /** How long a serving certificate of our making is valid; 90 days when absent. */
  readonly certificateMs?: number;
  readonly periodMs?: number;
  readonly clock?: Clock;
  /** The wall clock, for certificates. */
  readonly now?: () => Date;
}

/** Until `signal` aborts. `listening` is told the port. Rejects when the port cannot be had. */
export async function serveMetrics(
  options: ServeMetricsOptions,
  signal: AbortSignal,
  listening: (port: number) => void,
): Promise<void> {
  const { client, source, api, namespace, serviceName, servicePort, periodMs = 5000 } = options;
  const { clock = systemClock, now = () => new Date(), certificateMs, onState, onError } = options;
  const hosts = [
    `${serviceName}.${namespace}.svc`,
    `${serviceName}.${namespace}.svc.cluster.local`,
  ];
  /** What callers are given at present. */
  let served: Material | undefined;
  const material = () =>
    obtainMaterial({
      client,
      namespace,
      secretName: `${serviceName}-tls`,
      hosts,
      now,
      ...(certificateMs !== undefined && { validMs: certificateMs }),
      ...(served !== undefined && { believedAuthority: firstCertificate(served.authorityBundle) }),
    });
  const provider = {
    client,
    ...METRICS_APIS[api],
    service: { name: serviceName, namespace, port: servicePort },
    fieldManager: FIELD_MANAGER,
    ownerRole: OPERATOR_NAME,
  };
  let server: MetricsServer | undefined;
  while (!signal.aborted) {
    try {
      const current = await material();
      if (server === undefined) {
        const authorizer = new Authorizer({ client, clock });
        server = new MetricsServer({ source, authorizer, onError }, current);
        listening(await server.listen(options.host, options.port));
      }
      // A renewed certificate waits until the API server trusts its authority beside the old one: until then callers refuse it.
      const authorities = await registeredAuthorities(provider);
      const isBelieved = authorities.every((trusted) => isTrusted(current, trusted));
      if (isBelieved || served === undefined) served = current;
      server.update(served, await readFrontProxy(client));
      if (options.isLeader()) onState(await register(provider, current.authorityBundle, signal));
      else onState(await inspect(provider));
    } catch (error) {
      if (!signal.aborted) onError(error);
      if (server === undefined && !(error instanceof Error && error.name === 'KubeError'))
        throw error;
    }
    await pause(clock, periodMs, signal);
  }
  await server?.close();
}

export interface WithdrawMetricsOptions
  extends Pick<
    ServeMetricsOptions,
    'client' | 'namespace' | 'serviceName' | 'isLeader' | 'onError' | 'periodMs' | 'clock'
  > {
  /** What this operator serves. */
  readonly api: ServeMetricsOptions['api'] | 'none';
}

/** Until `signal` aborts, the leader takes away what an operator with another `--metrics-api` has registered. */
export async function withdrawMetrics(
  options: WithdrawMetricsOptions,
  signal: AbortSignal,
): Promise<void> {
  const { client, namespace, serviceName, api, isLeader, onError } = options;
  const { periodMs = 30_000, clock = systemClock } = options;
  const service = { name: serviceName, namespace };
  const unserved = Object.entries(METRICS_APIS).filter(([name]) => name !== api);
  while (!signal.aborted) {
    try {
      if (isLeader()) {
        for (const [, unwanted] of unserved) {
          await withdraw({ client, service, ...unwanted }, signal);
        }
      }
    } catch (error) {
      if (!signal.aborted) onError(error);
    }
    // Soon for who is about to lead, seldom after that.
    await pause(clock, isLeader() ? periodMs : Math.min(periodMs, 2000), signal);
  }
}

async function readFrontProxy(client: KubeClient): Promise<FrontProxyConfig | undefined> {
  const path = objectPath(RESOURCES.configMap, 'extension-apiserver-authentication', 'kube-system');
  try {
    const map = (await client.request({ method: 'GET', path })) as KubeObject & {
      readonly data?: Readonly<Record<string, string>>;
    };
    return readFrontProxyConfig(map.data);
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}
