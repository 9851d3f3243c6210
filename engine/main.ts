/** `npm run serve`: reads flags and environment, builds the parts, listens, and ends cleanly on a signal. */
import { readFileSync } from 'node:fs';
import { availableParallelism, homedir } from 'node:os';
import { join } from 'node:path';
import pino from 'pino';
import { startStep } from '../scripts/progress.mjs';
import { OptionError, readServeOptions, serveHelp } from './options.ts';
import { createServer } from './server/app.ts';
import { LoadingServer } from './server/loading.ts';
import { defaultServerOptions } from './server/options.ts';
import type { LoadedModel } from './start.ts';
import { loadModel } from './start.ts';
import { isChatTemplateName, NAMED_CHAT_TEMPLATES } from './tokenizer/named-chat-templates.ts';

const root = join(import.meta.dirname, '..');
const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
  version: string;
};

/** Ends the process with what went wrong on one line, and its code where it has one. */
function fail(error: unknown): never {
  const { code, message } = error as { code?: string; message: string };
  console.error(code === undefined ? message : `${code}: ${message}`);
  process.exit(1);
}

function readOptions() {
  try {
    const options = readServeOptions(process.argv.slice(2), process.env);
    if (options !== 'help') return options;
    console.log(serveHelp());
    process.exit(0);
  } catch (error) {
    if (!(error instanceof OptionError)) throw error;
    console.error(error.message);
    process.exit(2);
  }
}

const options = readOptions();

if (options.tensor > 1 || options.pipeline > 1) {
  fail({
    code: 'PARALLELISM_UNSUPPORTED',
    message: `--tensor ${options.tensor} --pipeline ${options.pipeline} need accelerators; the cpu backend of this build takes 1 and 1.`,
  });
}

// Started by a process that wants it no longer than itself, such as the terminal chat: also while the model loads.
let endsWithParent = (): void => process.exit(0);
process.once('disconnect', () => endsWithParent());

function keysOfFile(file: string): readonly string[] {
  const refuse = (what: string): never =>
    fail({
      code: 'API_KEYS_MISSING',
      message: `--api-keys-file ${file} ${what}; write one key per line, or leave the option out to let everybody in.`,
    });
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    return refuse(`cannot be read: ${(error as Error).message}`);
  }
  const keys = text
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '');
  // Without a key everybody would be let in.
  return keys.length > 0 ? keys : refuse('has no key in it');
}

const apiKeys: readonly string[] = [
  ...(options.apiKey ?? []),
  ...(options.apiKeysFile === undefined ? [] : keysOfFile(options.apiKeysFile)),
];

/** Jinja source of --chat-template. */
function chatTemplate(): string | undefined {
  const { chatTemplate: choice } = options;
  if (choice === undefined) return undefined;
  if (isChatTemplateName(choice)) return NAMED_CHAT_TEMPLATES[choice];
  try {
    return readFileSync(choice, 'utf8');
  } catch (error) {
    return fail({
      code: 'CHAT_TEMPLATE_UNREADABLE',
      message: `--chat-template ${choice} cannot be read: ${(error as Error).message}; pass the path of a Jinja file, or one of ${Object.keys(NAMED_CHAT_TEMPLATES).join(', ')}.`,
    });
  }
}

function failToListen(error: unknown): never {
  const { code } = error as { code?: string };
  return fail(
    code === 'EADDRINUSE'
      ? new Error(
          `Port ${options.port} of ${options.host} is in use; stop what listens there, or pass --port 0 for a free one.`,
        )
      : error,
  );
}

/** Nobody can know a port that is not chosen yet. */
const loading = options.port === 0 ? undefined : new LoadingServer();
await loading?.listen(options.host, options.port).catch(failToListen);

async function load(): Promise<LoadedModel> {
  const bar = startStep(`Load ${options.model}`);
  try {
    const model = await loadModel({
      model: options.model,
      dtype: options.dtype,
      isa: options.isa,
      threads: options.threads,
      cacheDirectory:
        options.cacheDirectory ??
        join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'nvlm'),
      hubEndpoint: options.hfEndpoint,
      hubToken: options.hfToken,
      maxSequences: options.maxSequences,
      maxBatchedTokens: options.maxBatchedTokens,
      maxModelLength: options.maxModelLength,
      blockSize: options.blockSize,
      kvCacheMemory: options.kvCacheMemory,
      kvCacheDtype: options.kvCacheDtype,
      chatTemplate: chatTemplate(),
      imageLimits: {
        maxBytes: options.maxImageBytes,
        maxPixels: options.maxImagePixels,
        maxImages: options.maxImages,
        maxTiles: options.maxImageTiles,
      },
      imageFetching: {
        allowedHosts: options.imageUrlHosts,
        timeoutMs: options.imageFetchTimeout,
      },
      onProgress: (fraction, note) => {
        bar.update(fraction, note);
        loading?.report({ phase: note, fraction });
      },
    });
    bar.done(model.description);
    return model;
  } catch (error) {
    bar.fail('failed');
    return fail(error);
  }
}

const model = await load();
const engine = model.startEngine({
  mode: options.batchMode,
  maxSequences: options.maxSequences,
  workers: options.workerThreads ?? availableParallelism(),
  maxQueuedRequests: options.maxQueuedRequests,
  queueTimeoutMs: options.queueTimeout,
  prefixCaching: options.prefixCaching,
  staticWindowMs: options.staticWindow,
  slowReaderTimeoutMs: options.slowReaderTimeout,
});
const { generationDefaults: defaults } = model.checkpoint;
const server = createServer({
  engine,
  tokenizer: model.tokenizer,
  chatTemplate: model.chatTemplate,
  images: model.images,
  model: {
    name: options.servedModelName ?? model.name,
    aliases: [options.model],
    createdAt: Math.floor(Date.now() / 1000),
    eosTokenIds: model.checkpoint.eosTokenIds,
    defaults: {
      temperature: options.defaultTemperature ?? defaults.temperature ?? 1,
      topK: defaults.topK ?? 0,
      topP: options.defaultTopP ?? defaults.topP ?? 1,
      minP: 0,
      repetitionPenalty: defaults.repetitionPenalty ?? 1,
    },
    version,
  },
  logger: pino({ level: options.logLevel }, pino.destination(2)),
  options: {
    ...defaultServerOptions,
    host: options.host,
    port: options.port,
    apiKeys,
    corsOrigins: options.corsOrigin,
    maxBodyBytes: options.maxBodyBytes,
    maxFrameBytes: options.maxFrameBytes,
    maxSockets: options.maxSockets,
    maxBufferedBytes: options.maxBufferedBytes,
    slowReaderTimeoutMs: options.slowReaderTimeout,
    socketIdleTimeoutMs: options.socketIdleTimeout,
    maxStoredBytes: options.responseStoreBytes,
    maxStoredResponses: options.responseStoreCount,
    maxStoredAgeMs: options.responseStoreAge,
    web: {
      directories: [join(root, 'web'), join(root, 'web/dist')],
      vendor: {
        '/assets/vendor/marked.js': join(root, 'node_modules/marked/lib/marked.esm.js'),
        '/assets/vendor/dompurify.js': join(root, 'node_modules/dompurify/dist/purify.es.mjs'),
      },
    },
  },
});

let isStopping = false;
async function stop(): Promise<void> {
  if (isStopping) return;
  isStopping = true;
  await server.close(options.shutdownTimeout);
  await model.close();
  process.exit(0);
}
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const)
  process.on(signal, () => void stop());
endsWithParent = () => void stop();

await loading?.close();
const { url } = await server.listen().catch(failToListen);
console.log(`listening on ${url}`);
