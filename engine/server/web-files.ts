/** The chat page: a handful of files, under a policy that lets nothing else run. */
import { readFile } from 'node:fs/promises';
import { extname, join } from 'node:path';
import type { FastifyInstance, FastifyReply } from 'fastify';
import { NvlmError } from '#engine/protocol/errors.ts';
import type { ServerOptions } from './options.ts';

const CONTENT_TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
};

const POLICY =
  "default-src 'self'; connect-src 'self'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; " +
  "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'";

export function registerWebFiles(
  app: FastifyInstance,
  web: NonNullable<ServerOptions['web']>,
): void {
  const send = async (reply: FastifyReply, path: string): Promise<FastifyReply> => {
    const bytes = await readFile(path);
    return reply
      .type(CONTENT_TYPES[extname(path).replace('.mjs', '.js')] ?? 'application/octet-stream')
      .headers({
        'content-security-policy': POLICY,
        'x-content-type-options': 'nosniff',
        'referrer-policy': 'no-referrer',
        'cache-control': 'no-cache',
      })
      .send(bytes);
  };
  const sendFirst = async (reply: FastifyReply, name: string): Promise<FastifyReply> => {
    for (const directory of web.directories) {
      try {
        return await send(reply, join(directory, name));
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      }
    }
    throw new NvlmError('route_not_found', `there is no file ${name}`);
  };
  app.get('/', (_request, reply) => sendFirst(reply, 'index.html'));
  for (const [route, path] of Object.entries(web.vendor)) {
    app.get(route, (_request, reply) => send(reply, path));
  }
  // The name is one plain segment: no path can lead out of the folders, no source file is served.
  app.get('/assets/:name', (request, reply) => {
    const { name } = request.params as { name: string };
    if (!/^[\w-]+\.(js|css|svg|png)$/.test(name)) {
      throw new NvlmError('route_not_found', `there is no file ${name.slice(0, 64)}`);
    }
    return sendFirst(reply, name);
  });
}
