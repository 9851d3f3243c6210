/** `npm run demo`: the default model behind the chat page on the next free port, with one working example per way in. */
import { spawn } from 'node:child_process';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';

const firstPort = 8000;

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', () => resolve(false));
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)));
  });
}

async function nextFreePort(): Promise<number> {
  for (let port = firstPort; port < firstPort + 100; port++) if (await isFree(port)) return port;
  return 0;
}

function examples(url: string, model: string): string {
  return `
  Chat in the browser     ${url}/

  curl                    curl -N ${url}/v1/chat/completions -H 'content-type: application/json' \\
                            -d '{"model": "${model}", "stream": true, "messages": [{"role": "user", "content": "Why is the sky blue?"}]}'

  OpenAI SDK              import OpenAI from 'openai';
                          const client = new OpenAI({ baseURL: '${url}/v1', apiKey: 'none' });
                          const response = await client.responses.create({ model: '${model}', input: 'Why is the sky blue?' });
                          console.log(response.output_text);

  WebSocket               const socket = new WebSocket('${url.replace(/^http/, 'ws')}/v1/responses');
                          socket.onopen = () => socket.send(JSON.stringify({ type: 'response.create', model: '${model}', input: 'Why is the sky blue?' }));
                          socket.onmessage = ({ data }) => { const event = JSON.parse(data); if (event.delta) console.log(event.delta); };

  Pictures                drop one on the page, such as those in models/nano/examples

  Stop with Ctrl-C.
`;
}

const given = process.argv.slice(2);
const isGiven = (name: string): boolean =>
  given.some((argument) => argument === name || argument.startsWith(`${name}=`));
const port = isGiven('--port') ? [] : ['--port', String(await nextFreePort())];
// The default model is small and wanders at temperature 1; its GGUF file does not say what its makers recommend.
const isDefaultModel = !isGiven('--model') && process.env.NVLM_MODEL === undefined;
const sampling =
  isDefaultModel && !isGiven('--default-temperature') && !isGiven('--default-top-p')
    ? ['--default-temperature', '0.2', '--default-top-p', '0.9']
    : [];
const server = spawn(
  process.execPath,
  [join(import.meta.dirname, '../main.ts'), ...port, ...sampling, ...given],
  // The channel carries nothing: its end tells the engine that this process is gone, however it went.
  { stdio: ['ignore', 'pipe', 'inherit', 'ipc'] },
);
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.on(signal, () => server.kill(signal));
server.on('close', (code) => process.exit(code ?? 1));

for await (const line of createInterface({ input: server.stdout as Readable })) {
  const url = /^listening on (http:\/\/\S+)/.exec(line)?.[1];
  if (url === undefined) {
    console.log(line);
    continue;
  }
  const models = (await (await fetch(`${url}/v1/models`)).json()) as { data: { id: string }[] };
  console.log(line);
  console.log(examples(url, models.data[0]?.id ?? 'default'));
}
