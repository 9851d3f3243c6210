/** HTTPS requests of tests, with client certificates and header lines as they are given. */
import { Agent, request } from 'node:https';
import type { KeyPair } from '../../scripts/cluster/pki.ts';

export interface HttpsRequest {
  readonly port: number;
  readonly path: string;
  readonly method?: string;
  /** PEM; the server is not verified without. */
  readonly trusted?: string;
  /** Name that the server's certificate must have. */
  readonly serverName?: string;
  readonly client?: KeyPair;
  /** A list is sent as one line each. */
  readonly headers?: Readonly<Record<string, string | string[]>>;
  /** Keeps its connections where it is given. */
  readonly agent?: Agent;
}

export interface HttpsAnswer {
  readonly code: number;
  readonly type: string;
  readonly text: string;
  /** Decoded JSON. */
  // biome-ignore lint/suspicious/noExplicitAny: tests look into answers of many shapes
  readonly body: any;
}

export function https(options: HttpsRequest): Promise<HttpsAnswer> {
  const { port, path, method = 'GET', trusted, serverName, client, headers = {}, agent } = options;
  return new Promise((resolve, reject) => {
    const call = request(
      {
        host: '127.0.0.1',
        port,
        path,
        method,
        headers,
        agent: agent ?? new Agent({ keepAlive: false, maxCachedSessions: 0 }),
        ...(trusted === undefined ? { rejectUnauthorized: false } : { ca: trusted }),
        ...(serverName !== undefined && { servername: serverName }),
        ...(client && { cert: client.certificatePem, key: client.keyPem }),
      },
      (response) => {
        let text = '';
        response.setEncoding('utf8');
        response.on('data', (chunk: string) => (text += chunk));
        response.on('error', reject);
        response.on('end', () =>
          resolve({
            code: response.statusCode ?? 0,
            type: response.headers['content-type'] ?? '',
            text,
            get body() {
              return JSON.parse(text);
            },
          }),
        );
      },
    );
    call.on('error', reject);
    call.end();
  });
}
