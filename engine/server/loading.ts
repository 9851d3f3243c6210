/** The address of an engine whose model is still on its way: alive, not ready, and how far it is. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { NvlmError } from '#engine/protocol/errors.ts';
import { ALIVE_PATHS } from './health.ts';
import { errorBody } from './http-errors.ts';

export interface LoadProgress {
  /** `downloading` and `extracting` come before the files are on the disk, what follows reads them. */
  readonly phase: string;
  /** 0 to 1 of the phase; undefined when its size is not known. */
  readonly fraction: number | undefined;
}

const metric = 'nvlm_load_fraction';

export class LoadingServer {
  readonly #server: Server;
  #progress: LoadProgress = { phase: 'waiting', fraction: undefined };

  constructor() {
    this.#server = createServer((request, response) => this.#answer(request, response));
  }

  /** Rejects when the address cannot be had, with the code of the system. */
  listen(host: string, port: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(port, host, () => resolve());
    });
  }

  report(progress: LoadProgress): void {
    this.#progress = progress;
  }

  /** Leaves the address to the server that answers requests. */
  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const path = (request.url ?? '/').replace(/\?.*$/, '');
    const { phase, fraction } = this.#progress;
    response.setHeader('connection', 'close');
    if (path === '/metrics') {
      const label = phase.replace(/[\\"\n]/g, ' ');
      response.setHeader('content-type', 'text/plain; version=0.0.4; charset=utf-8');
      response.end(
        `# HELP ${metric} How far the loading of the model is, 0 to 1 of its phase.\n# TYPE ${metric} gauge\n${metric}{phase="${label}"} ${fraction ?? 0}\n`,
      );
      return;
    }
    response.setHeader('content-type', 'application/json');
    if (ALIVE_PATHS.includes(path)) {
      response.end(JSON.stringify({ status: 'ok' }));
      return;
    }
    const percent = fraction === undefined ? '' : `, ${Math.floor(fraction * 100)} %`;
    const error = new NvlmError('not_ready', `the model is being loaded: ${phase}${percent}`);
    response.writeHead(error.status, { 'retry-after': '1' });
    response.end(JSON.stringify({ error: errorBody(error) }));
  }
}
