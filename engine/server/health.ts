/** Is the process alive, is it able to decode, what are its figures. */
import type { FastifyInstance } from 'fastify';
import { NvlmError } from '#engine/protocol/errors.ts';
import { GREEDY } from '#engine/scheduler/request.ts';
import type { ServerContext } from './context.ts';

/** Proves that tokens are still decoded: by the step loop's own progress while busy, by one token of its own while idle. */
class ReadyProof {
  readonly #context: ServerContext;
  #provenAt = Number.NEGATIVE_INFINITY;
  #proving: Promise<void> | undefined;

  constructor(context: ServerContext) {
    this.#context = context;
  }

  /** Throws NvlmError 'not_ready' with the reason. */
  async check(): Promise<void> {
    const { engine, options, isClosing } = this.#context;
    if (isClosing()) throw new NvlmError('not_ready', 'the server is stopping');
    const { running, waiting, lastStepAt } = engine.stats();
    const now = performance.now();
    if (running + waiting > 0 && now - lastStepAt < options.readyStallMs) return;
    if (now - this.#provenAt < options.readyProofMs) return;
    this.#proving ??= this.#prove().finally(() => {
      this.#proving = undefined;
    });
    await this.#proving;
  }

  async #prove(): Promise<void> {
    const { engine, tokenizer, options } = this.#context;
    const abort = AbortSignal.timeout(options.readyStallMs);
    try {
      const stream = engine.submit(
        {
          id: 'ready',
          promptIds: Int32Array.from(tokenizer.encode('ready')),
          maxTokens: 1,
          minTokens: 0,
          eosTokenIds: [],
          stopTokenIds: [],
          sampling: GREEDY,
          promptLogprobs: -1,
          priority: 0,
          cacheSalt: undefined,
          // An idle engine would look busy to who scales it to zero.
          isProbe: true,
        },
        abort,
      );
      for await (const event of stream) {
        if (event.type === 'token') this.#provenAt = performance.now();
        if (event.type === 'error') throw event.error;
      }
    } catch (cause) {
      throw new NvlmError('not_ready', 'the engine refused to decode a token', { cause });
    }
    if (performance.now() - this.#provenAt > options.readyStallMs) {
      throw new NvlmError(
        'not_ready',
        `the engine decoded no token within ${options.readyStallMs} ms`,
      );
    }
  }
}

/** Where a process that runs at all answers. */
export const ALIVE_PATHS: readonly string[] = ['/healthz', '/health', '/ping'];

export function registerHealth(app: FastifyInstance, context: ServerContext): void {
  const proof = new ReadyProof(context);
  const alive = async () => ({ status: 'ok' });
  for (const path of ALIVE_PATHS) app.get(path, alive);
  app.get('/readyz', async () => {
    await proof.check();
    return { status: 'ready' };
  });
  app.get('/load', async () => ({ server_load: context.metrics.inFlight }));
  app.get('/metrics', async (_request, reply) => {
    const { registry } = context.metrics;
    return reply.type(registry.contentType).send(await registry.metrics());
  });
}
