/** `npm run operator`: reads options, connects, competes for the lease, and reconciles while it leads. */
import pino from 'pino';
import { connectQueue, createWatched, scrapeTargets } from './controllers.ts';
import { registerGauges } from './gauges.ts';
import { createHttp } from './http.ts';
import { connectKube, loadKubeConfig, WRITING_VERBS } from './kube/client.ts';
import { pause, systemClock } from './kube/clock.ts';
import { ConcurrencyLimit } from './kube/concurrency-limit.ts';
import { OptionalKinds } from './kube/discovery.ts';
import { Expectations } from './kube/expectations.ts';
import { defaultIdentity, LeaseElection } from './kube/lease.ts';
import { WorkQueue } from './kube/queue.ts';
import { RESOURCES } from './kube/resource.ts';
import { ServerTime } from './kube/server-time.ts';
import { OperatorMetrics } from './metrics.ts';
import type { ControllerContext, MetricsState } from './nvlm/context.ts';
import { NVLMController } from './nvlm/controller.ts';
import { OptionError, operatorHelp, readOperatorOptions } from './options.ts';
import { createQueueMetrics } from './queue-metrics.ts';
import { DepthBook } from './scaling/depth.ts';
import { runScraper } from './scaling/scraper.ts';
import { serveMetrics, withdrawMetrics } from './serve-metrics.ts';

function readOptions() {
  try {
    const options = readOperatorOptions(process.argv.slice(2), process.env);
    if (options !== 'help') return options;
    console.log(operatorHelp());
    process.exit(0);
  } catch (error) {
    if (!(error instanceof OptionError)) throw error;
    console.error(error.message);
    process.exit(2);
  }
}

/** For the events that are on their way when the operator ends. */
const flushMs = 2000;

/** Engines whose figures decide nothing that are asked in a second: more than 500 are not asked in every round of two seconds. */
const restPerSecond = 250;

/** Of its time that the only worker works where the API server has too much to do. */
const leastShare = 0.5;

const options = readOptions();
const logger = pino({ level: options.logLevel, base: { component: 'operator' } });
const metrics = new OperatorMetrics();
const serverTime = new ServerTime();
const now = (): Date => serverTime.now();
const pace = new ConcurrencyLimit({ min: leastShare, max: options.workers });
const client = connectKube(
  loadKubeConfig(options.kubeconfig),
  (verb, code, seconds) => {
    metrics.observeCall(verb, code, seconds);
    if (code === '429' || code === 'KUBE_TIMEOUT') pace.refused();
    else if (WRITING_VERBS.has(verb) && code.startsWith('2')) pace.observe(verb, seconds);
  },
  serverTime,
);
const identity = defaultIdentity();
const depths = new DepthBook();
const watched = createWatched({
  client,
  namespace: options.watchNamespace,
  metrics,
  onListenerError: (error) => logger.error({ err: error }, 'a change could not be handled'),
});
const reconcileAll = (): void => {
  for (const { metadata } of watched.deployments.list()) {
    queue.add(`${metadata.namespace}/${metadata.name}`, 'background');
  }
};
const optionalKinds = new OptionalKinds({
  client,
  kinds: watched.optionalKinds,
  onChange: ({ kind }, isAvailable) => {
    logger.info({ kind }, isAvailable ? 'the cluster serves it' : 'the cluster serves it no more');
    reconcileAll();
  },
  onError: ({ kind }, error) => logger.warn({ kind, err: error }, 'it could not be looked for'),
});

let metricsState: MetricsState =
  options.metricsApi === 'none'
    ? { status: 'off', message: 'The operator runs with --metrics-api none, and scales by itself' }
    : { status: 'unreachable', message: 'The operator has not looked at the metrics API yet' };
/** A first answer who serves the metrics API, or that it cannot be had: without one an HPA would be made beside a foreign provider. */
const { promise: metricsLooked, resolve: markMetricsLooked } = Promise.withResolvers<void>();
if (options.metricsApi === 'none') markMetricsLooked();
/** The API server words an outage anew again and again; statuses are not written for each. */
const retoldAfterMs = 60_000;
let toldAt = Number.NEGATIVE_INFINITY;
const onMetricsState = (state: MetricsState): void => {
  const isOther = state.status !== metricsState.status;
  const isReworded = state.message !== metricsState.message;
  metricsState = state;
  markMetricsLooked();
  if (!isOther && !(isReworded && performance.now() - toldAt > retoldAfterMs)) return;
  toldAt = performance.now();
  logger.info(state, 'metrics API');
  reconcileAll();
};
const context: ControllerContext = {
  client,
  deployments: watched.deployments,
  pods: watched.pods,
  describePods: watched.describePods,
  endpointSlices: watched.endpointSlices,
  describeTimeoutMs: options.describeTimeout,
  children: watched.children,
  expectations: new Expectations(),
  depths,
  metricsState: () => metricsState,
  engineImage: options.engineImage,
  imagePullPolicy: options.imagePullPolicy,
  queueMetricsApi: options.metricsApi === 'external' ? 'external' : 'custom',
  operatorNamespace: options.namespace,
  get available() {
    return {
      podMonitor: optionalKinds.isAvailable(RESOURCES.podMonitor),
      leaderWorkerSet: optionalKinds.isAvailable(RESOURCES.leaderWorkerSet),
    };
  },
  identity,
  now,
  random: Math.random,
  log: (level, message, fields) => logger[level](fields, message),
};
const controller = new NVLMController(context);
const queue = new WorkQueue({
  workers: () => pace.limit,
  restMs: (busyMs) => pace.restMs(busyMs),
  work: (key, fence) => controller.reconcile(key, fence),
  hooks: {
    ...metrics.queueHooks,
    onStart: (key, waited, active) => {
      metrics.queueHooks.onStart?.(key, waited, active);
      pace.use(active);
    },
    onRetry: (key, failures, delayMs) => {
      metrics.queueHooks.onRetry?.(key, failures, delayMs);
      logger.warn(
        { key, failures, delayMs: Math.round(delayMs) },
        'a reconcile failed; it is tried again',
      );
    },
    onEnd: (key, seconds, error) => {
      metrics.queueHooks.onEnd?.(key, seconds, error);
      if (error !== undefined) logger.error({ key, err: error }, 'reconcile');
    },
  },
});
connectQueue(watched, queue);

const election = new LeaseElection({
  client,
  name: 'nvlm-operator',
  namespace: options.namespace,
  identity,
  durationSeconds: options.leaseDuration / 1000,
  wallClock: now,
  onError: (error) => logger.warn({ err: error }, 'the lease could not be taken or renewed'),
});

const isLeader = (): boolean => election.isLeader || !options.leaderElection;

const stop = new AbortController();
for (const signal of ['SIGTERM', 'SIGINT'] as const) {
  process.once(signal, () => {
    logger.info({ signal }, 'stopping');
    stop.abort();
  });
}

registerGauges(metrics, { isLeader, serverTime, pace, queue, watched, optionalKinds, depths });

const http = createHttp({
  metrics,
  client,
  notAlive: () => [],
  notReady: () =>
    watched.reflectors
      .filter(({ reflector }) => !reflector.hasSynced)
      .map(({ resource }) => `${resource} are not listed yet`),
});
const address = await http.listen({ host: options.host, port: options.port });
logger.info({ address, identity }, `listening on ${address}`);

const watching = watched.reflectors.map(({ reflector }) => reflector.run(stop.signal));
const discovering = optionalKinds.run(stop.signal);
const scraping = runScraper(
  {
    book: depths,
    targets: () => scrapeTargets(watched),
    periodMs: options.scrapePeriod,
    timeoutMs: options.scrapeTimeout,
    restPerSecond,
    onRound: (deployments) => {
      for (const key of deployments) queue.add(key, 'background');
    },
  },
  stop.signal,
);
const serving =
  options.metricsApi === 'none'
    ? Promise.resolve()
    : serveMetrics(
        {
          client,
          source: createQueueMetrics(watched, depths, now),
          api: options.metricsApi,
          namespace: options.namespace,
          serviceName: options.metricsService,
          servicePort: options.metricsServicePort,
          host: options.host,
          port: options.metricsPort,
          isLeader,
          now,
          certificateMs: Math.max(options.metricsCertificateLifetime, 30_000),
          onState: onMetricsState,
          onError: (error) => {
            markMetricsLooked();
            logger.warn({ err: error }, 'the metrics API is in trouble');
          },
        },
        stop.signal,
        (port) => logger.info({ port }, 'the metrics API listens'),
      );
const withdrawing = withdrawMetrics(
  {
    client,
    api: options.metricsApi,
    namespace: options.namespace,
    serviceName: options.metricsService,
    isLeader,
    onError: (error) => logger.warn({ err: error }, 'an APIService of ours could not be removed'),
  },
  stop.signal,
);
const lead = async (fence: AbortSignal): Promise<void> => {
  const lists = watched.reflectors.map(({ reflector }) => reflector.synced);
  const synced = Promise.all([...lists, optionalKinds.looked, metricsLooked]);
  await Promise.race([synced, new Promise((resolve) => fence.addEventListener('abort', resolve))]);
  if (fence.aborted) return;
  logger.info({ identity }, 'leading');
  await queue.run(fence);
  logger.info({ identity }, 'leading no more');
};
await (options.leaderElection ? election.run(lead, stop.signal) : lead(stop.signal));
await Promise.all([...watching, discovering, scraping, serving, withdrawing]);
const patience = new AbortController();
await Promise.race([controller.flush(), pause(systemClock, flushMs, patience.signal)]);
patience.abort();
await http.close();
