import assert from 'node:assert/strict';
import { createServer as createHttpServer, type RequestListener, type Server } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { describe, type TestContext, test } from 'node:test';
import { KubeConfig } from '@kubernetes/client-node';
import { connectKube, type KubeClient } from '#operator/kube/client.ts';
import { KubeError } from '#operator/kube/errors.ts';
import { createAuthority } from '../../../scripts/cluster/pki.ts';

async function start(
  context: TestContext,
  listener: RequestListener,
  isSecure = false,
): Promise<{ client: KubeClient; connections: () => number }> {
  const authority = await createAuthority('127.0.0.1');
  const pair = { cert: authority.certificatePem, key: authority.keyPem };
  const server: Server = isSecure ? createHttpsServer(pair, listener) : createHttpServer(listener);
  let connections = 0;
  server.on('connection', () => connections++);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  context.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const config = new KubeConfig();
  config.loadFromClusterAndUser(
    {
      name: 'test',
      server: `${isSecure ? 'https' : 'http'}://127.0.0.1:${port}`,
      skipTLSVerify: true,
    },
    { name: 'user' },
  );
  return { client: connectKube(config), connections: () => connections };
}

describe('a client of the API server', () => {
  test('makes its calls over connections that it keeps: each handshake costs more than a call', async (context) => {
    const { client, connections } = await start(context, (_, response) => response.end('{}'), true);
    for (let i = 0; i < 20; i++) await client.request({ method: 'GET', path: '/api' });
    assert.equal(connections(), 1);
    await Promise.all(
      Array.from({ length: 5 }, () => client.request({ method: 'GET', path: '/api' })),
    );
    assert.ok(connections() <= 5, `${connections()} connections`);
  });

  for (const isSecure of [false, true]) {
    test(`asks again where a kept connection was closed as it wrote, over ${isSecure ? 'TLS' : 'TCP'}`, async (context) => {
      const methods: string[] = [];
      const { client, connections } = await start(
        context,
        (request, response) => {
          methods.push(String(request.method));
          if (methods.length % 2 === 0) request.socket.destroy();
          else response.end('{}');
        },
        isSecure,
      );
      const path = '/api/v1/namespaces/n/pods/p';
      await client.request({ method: 'GET', path });
      await client.request({ method: 'DELETE', path });
      assert.deepEqual(methods, ['GET', 'DELETE', 'DELETE']);
      assert.equal(connections(), 2);
      // The object may have been made before the connection broke; a second one would be one too many.
      await assert.rejects(
        client.request({ method: 'POST', path: '/api/v1/namespaces/n/pods', body: {} }),
        (error) => error instanceof KubeError && error.code === 'KUBE_UNREACHABLE',
      );
      assert.deepEqual(methods, ['GET', 'DELETE', 'DELETE', 'POST']);
    });
  }
});
