/** Health, metrics and the wake signal over plain HTTP. */
import fastify, { type FastifyInstance } from 'fastify';
import { ANNOTATIONS } from '#charts/labels.ts';
import type { KubeClient } from './kube/client.ts';
import { isNotFound } from './kube/errors.ts';
import { objectPath } from './kube/resource.ts';
import type { OperatorMetrics } from './metrics.ts';
import { NVLM_RESOURCE } from './nvlm/context.ts';

export interface HttpOptions {
  readonly metrics: OperatorMetrics;
  readonly client: KubeClient;
  /** What is not well; an empty list is healthy. */
  readonly notAlive: () => readonly string[];
  readonly notReady: () => readonly string[];
}

/** Not listening yet. */
export function createHttp({ metrics, client, notAlive, notReady }: HttpOptions): FastifyInstance {
  const app = fastify({ logger: false, bodyLimit: 4096 });
  const health = (path: string, read: () => readonly string[]): void => {
    app.get(path, async (_request, reply) => {
      const problems = read();
      return reply
        .code(problems.length === 0 ? 200 : 503)
        .send({ status: problems.length === 0 ? 'ok' : 'failing', problems });
    });
  };
  health('/healthz', notAlive);
  health('/readyz', notReady);
  app.get('/metrics', async (_request, reply) =>
    reply.type(metrics.registry.contentType).send(await metrics.registry.metrics()),
  );
  // The signal becomes an annotation: whichever replica leads sees it, also after a restart.
  app.post<{ Params: { namespace: string; name: string } }>(
    '/wake/:namespace/:name',
    async ({ params: { namespace, name } }, reply) => {
      try {
        await client.request({
          method: 'PATCH',
          path: objectPath(NVLM_RESOURCE, name, encodeURIComponent(namespace)),
          query: { fieldManager: 'nvlm-operator-wake' },
          contentType: 'application/merge-patch+json',
          body: { metadata: { annotations: { [ANNOTATIONS.wake]: new Date().toISOString() } } },
        });
        return reply.code(202).send({ status: 'waking' });
      } catch (error) {
        if (!isNotFound(error)) throw error;
        return reply.code(404).send({
          error: {
            code: 'deployment_not_found',
            message: `No NVLMDeployment ${namespace}/${name}`,
          },
        });
      }
    },
  );
  return app;
}
