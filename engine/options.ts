/** The options of the server: one table that reads flags and environment, prints --help and generates docs/options.md. */
import {
  OptionError,
  type OptionTable,
  type OptionValues,
  optional,
  optionLines,
  readOptions,
  required,
} from '#options/table.ts';
import {
  bytes,
  choice,
  duration,
  integer,
  list,
  memory,
  number,
  type OptionType,
  onOff,
  text,
} from '#options/types.ts';
import { checkChatTemplateChoice } from './tokenizer/named-chat-templates.ts';
import { DEFAULT_MODEL_REFERENCE, REFERENCE_FORMS } from './weights/reference.ts';

/** A name of the table of chat templates, or a path. */
const chatTemplate: OptionType<string> = {
  placeholder: 'NAME|FILE',
  read: checkChatTemplateChoice,
};

export { OptionError } from '#options/table.ts';

export const SERVE_OPTIONS = {
  model: required(text, DEFAULT_MODEL_REFERENCE, `Model: ${REFERENCE_FORMS}`),
  'chat-template': optional(
    chatTemplate,
    'How messages become a prompt: chatml, qwen2, qwen2p0, or the path of a Jinja file; default: the template of the checkpoint',
  ),
  'served-model-name': optional(
    text,
    'Name that clients use; default: the last part of the model reference',
  ),
  host: required(text, '127.0.0.1', 'Address to listen on'),
  port: required(integer(0, 65535), '8000', 'Port to listen on; 0 picks a free one'),
  dtype: required(
    choice('auto', 'float32', 'bfloat16', 'int8', 'int4'),
    'auto',
    'Arithmetic of the linear layers; auto keeps what the checkpoint stores',
  ),
  isa: optional(
    choice('amx', 'amx-emulated', 'avx512', 'avx2', 'portable'),
    'Instruction-set path of the kernels; default: the best this CPU has',
  ),
  threads: optional(integer(1, 1024), 'Threads of the decoder; default: all cores'),
  tensor: required(
    integer(1, 16),
    '1',
    'Accelerators that split every layer; the cpu backend runs on one machine and takes 1',
  ),
  pipeline: required(integer(1, 64), '1', 'Stages that split the layers; the cpu backend takes 1'),
  'batch-mode': required(
    choice('Continuous', 'Sequential', 'Static', 'Threads'),
    'Continuous',
    'How requests share steps',
  ),
  'static-window': required(
    duration,
    '50ms',
    'Static: how long the first request of a batch waits for others',
  ),
  'worker-threads': optional(
    integer(1, 256),
    'Threads: workers, one thread each; default: all cores',
  ),
  'max-sequences': required(integer(1, 1024), '64', 'Sequences of one step, at most'),
  'max-batched-tokens': required(
    integer(16, 65536),
    '2048',
    'Tokens of one step, at most; longer prompts are cut into chunks',
  ),
  'max-model-length': optional(
    integer(1, 1 << 24),
    'Prompt and output of one request, in tokens; default: what the model allows',
  ),
  'block-size': required(integer(16, 256), '32', 'Tokens per KV-cache block; a multiple of 16'),
  'kv-cache-memory': required(memory, '30%', 'KV-cache: a size, or a share of the free memory'),
  'kv-cache-dtype': required(
    choice('auto', 'float32', 'bfloat16', 'int8'),
    'auto',
    'What keys and values are kept in; auto: as exact as the dtype, so int8 for int8 and int4',
  ),
  'prefix-caching': required(onOff, 'on', 'Reuse the KV-cache of equal prompt beginnings'),
  'max-queued-requests': required(
    integer(0, 1_000_000),
    '1024',
    'Requests that may wait; one more is answered 429',
  ),
  'queue-timeout': required(duration, '60s', 'Longest wait in the queue; 0 waits for ever'),
  'response-store-bytes': required(
    bytes,
    '128MiB',
    'Memory for past responses (previous_response_id, resume)',
  ),
  'response-store-count': required(integer(0, 1_000_000), '1000', 'Past responses kept, at most'),
  'response-store-age': required(duration, '1h', 'How long past responses are kept'),
  'default-temperature': optional(
    number(0, 2),
    'Temperature of requests that name none; default: what the model recommends, else 1',
  ),
  'default-top-p': optional(
    number(0, 1),
    'Nucleus of requests that name none; default: what the model recommends, else 1',
  ),
  'api-key': optional(
    list,
    'API keys that are accepted, separated by commas; none: no key is asked for',
  ),
  'api-keys-file': optional(text, 'File with one API key per line'),
  'cors-origin': required(list, '', "Origins of other sites' pages that may call; * for all"),
  'max-body-bytes': required(bytes, '16MiB', 'Largest HTTP body; pictures come in base64'),
  'max-frame-bytes': required(bytes, '16MiB', 'Largest WebSocket frame; pictures come in base64'),
  'max-images': required(integer(1, 1024), '16', 'Pictures of one request, at most'),
  'max-image-bytes': required(bytes, '32MiB', 'Largest file of a picture'),
  'max-image-pixels': required(
    integer(1, 1 << 30),
    '67108864',
    'Width times height of a picture, at most; read from its header before anything is decoded',
  ),
  'max-image-tiles': required(
    integer(1, 4096),
    '256',
    'Tiles of all pictures of one request, thumbnails counted, at most',
  ),
  'image-url-hosts': required(
    list,
    '',
    'Hosts that pictures are fetched from over https, *.example.com for all below; none: data URLs only',
  ),
  'image-fetch-timeout': required(duration, '10s', 'How long fetching one picture may take'),
  'max-sockets': required(integer(1, 100_000), '1024', 'WebSockets open at once'),
  'max-buffered-bytes': required(
    bytes,
    '256KiB',
    'Unsent bytes of one stream above which its sequence pauses',
  ),
  'slow-reader-timeout': required(duration, '30s', 'A paused reader is cut off after this'),
  'socket-idle-timeout': required(
    duration,
    '10m',
    'A WebSocket with nothing running is closed after this',
  ),
  'shutdown-timeout': required(
    duration,
    '30s',
    'How long running streams may finish after SIGTERM',
  ),
  'log-level': required(
    choice('fatal', 'error', 'warn', 'info', 'debug', 'silent'),
    'info',
    'Least severe log line that is written',
  ),
  'cache-directory': optional(text, 'Where models are kept; default: $XDG_CACHE_HOME/nvlm'),
  'hf-endpoint': required(
    text,
    'https://huggingface.co',
    'Hub that hf:// references are downloaded from',
  ),
  'hf-token': optional(text, 'Token for private or gated models of the hub'),
} as const satisfies OptionTable;

export type ServeOptions = OptionValues<typeof SERVE_OPTIONS>;

/** Variables of this project that are not options of the server: of its tests, and of the terminal chat. */
const isForeign = (variable: string): boolean =>
  /^NVLM_(?:CHAT_|TEST_|SANITIZE$|API_KEY_FILE$)/.test(variable);

/** Returns 'help' for --help. Throws OptionError. */
export function readServeOptions(
  argv: readonly string[],
  environment: Readonly<Record<string, string | undefined>>,
): ServeOptions | 'help' {
  const read = readOptions(SERVE_OPTIONS, argv, environment, isForeign);
  if (read === 'help') return 'help';
  const { blockSize } = read.values;
  if (blockSize % 16 !== 0) {
    throw new OptionError(`--block-size: expected a multiple of 16, got '${blockSize}'`);
  }
  return read.values;
}

export function serveHelp(): string {
  return `npm run serve -- [options]\n\nServes a model over WebSocket and HTTP. Each option can also be set by its environment variable: NVLM_ and the\nname in capitals, e.g. NVLM_MAX_SEQUENCES. Flags win.\n\n${optionLines(SERVE_OPTIONS)}\n`;
}
