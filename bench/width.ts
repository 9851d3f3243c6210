/**
 * One InternViT layer and two decoder layers at NVLM-D-72B's widths, with random bf16 weights, through the engine's own model
 * files on the cpu backend: time beside PyTorch's on the same machine, in turn, and the error against a float64 oracle.
 */
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { buildProgram, buildVision } from '#engine/model/registry.ts';
import { visionLoadOptions, visionStep } from '#engine/model/vision.ts';
import type { LoadedProgram, Runner } from '#kernels/backend.ts';
import { createCpuBackend } from '#kernels/cpu.ts';
import type { StepInputs } from '#kernels/step.ts';
import { createRandom } from '../test/support/random.ts';
import { stepOf } from '../test/support/steps.ts';
import type { PythonWorker } from './peers/pytorch.ts';
import { startPython, torchVersion } from './peers/pytorch.ts';
import type { BenchResult } from './result.ts';
import type { Spread } from './statistics.ts';
import { figure, figureWithSpread, median, spread } from './statistics.ts';
import {
  languageConfig,
  layersCheckpoint,
  section,
  size,
  visionConfig,
} from './width/checkpoint.ts';

const tiles = 7;
const prompt = 512;
const sequences = 16;
const blockSize = 32;
/** Of the files in the cache: raise it when the weights, the inputs or the oracle change. */
const filesVersion = 1;

/** `id` is how layers.py knows it. */
export const widthWorks = [
  { id: 'vision', name: `InternViT layer, ${tiles} tiles of 1,025 tokens` },
  { id: 'prefill', name: `2 decoder layers, prefill of ${prompt} tokens` },
  { id: 'decode 1', name: `2 decoder layers, decode, batch 1 at ${prompt}` },
  { id: 'decode 16', name: `2 decoder layers, decode, batch ${sequences} at ${prompt}` },
] as const;
type WidthWork = (typeof widthWorks)[number];
type Work = WidthWork['id'];
const dtypes = ['bfloat16', 'float32'] as const;

interface Failure {
  readonly max: number;
  readonly rms: number;
}

/** One half of the model in memory. */
interface Half {
  readonly description: string;
  /** Seconds of one step; the first call of 'decode' fills the cache before. */
  time(work: Work): Promise<number>;
  /** The residual stream after the layers, (rows, width). */
  result(work: Work): Promise<Float32Array>;
  close(): Promise<void>;
}

function halfOf(
  loaded: LoadedProgram,
  runner: Runner,
  description: string,
  parts: {
    step: (work: Work) => StepInputs;
    tensor: number;
    prepare: (work: Work) => Promise<void>;
  },
): Half {
  return {
    description,
    time: async (work) => {
      await parts.prepare(work);
      const step = parts.step(work);
      const startedAt = performance.now();
      await runner.run(step);
      return (performance.now() - startedAt) / 1000;
    },
    result: async (work) => {
      await parts.prepare(work);
      const { tensors } = await runner.run({ ...parts.step(work), wantTensors: [parts.tensor] });
      return tensors?.[0] as Float32Array;
    },
    close: async () => {
      await runner.close();
      await loaded.close();
    },
  };
}

const tileSize = 448;

/** Normal pixels, the same in every run. */
function tilePixels(): Float32Array[] {
  const random = createRandom(3);
  const normals = Float32Array.from({ length: 2 ** 16 }, () => random.normal());
  return Array.from({ length: tiles }, () =>
    Float32Array.from(
      { length: 3 * tileSize * tileSize },
      () => normals[random.integer(0, 2 ** 16 - 1)] as number,
    ),
  );
}

async function loadVision(directory: string, threads: number, isa?: string): Promise<Half> {
  const vision = buildVision(layersCheckpoint('vision', directory));
  if (vision === undefined) throw new Error('The published config is of a model without vision.');
  const backend = createCpuBackend({ isa });
  const loaded = await backend.load(vision.program, visionLoadOptions(vision, tiles, 'auto'));
  const step = visionStep(vision, tilePixels());
  const patches = join(directory, 'patches.f32');
  if (!existsSync(patches)) {
    writeFileSync(`${patches}.new`, step.inputRows as Float32Array);
    renameSync(`${patches}.new`, patches);
  }
  return halfOf(
    loaded,
    loaded.createRunner({ threads }),
    `${loaded.computeType} on ${backend.describe().isa}`,
    {
      step: () => step,
      tensor: vision.encoded,
      prepare: async () => {},
    },
  );
}

const promptIds = Array.from({ length: prompt }, (_, i) => (i * 7919 + 17) % 256);
const nextIds = Array.from({ length: sequences }, (_, i) => (i * 31 + 5) % 256);

async function loadLanguage(directory: string, threads: number, isa?: string): Promise<Half> {
  const checkpoint = layersCheckpoint('language', directory);
  const { program } = buildProgram(checkpoint, { validTokenCount: 256, maxModelLength: 1024 });
  const prefix = Array.from({ length: prompt / blockSize }, (_, i) => i);
  const backend = createCpuBackend({ isa });
  const loaded = await backend.load(program, {
    cache: { blockSize, blockCount: prefix.length + sequences },
    computeType: 'auto',
    maxTokens: prompt,
    maxSequences: sequences,
    maxPositions: 1024,
  });
  const runner = loaded.createRunner({ threads });
  const prefill = stepOf([{ tokenIds: promptIds, cachedLength: 0, blocks: prefix }], blockSize);
  // All sequences share the prefix's blocks, as after a hit in the prefix cache; each has a block for its new token.
  const decode = (count: number) =>
    stepOf(
      nextIds.slice(0, count).map((id, s) => ({
        tokenIds: [id],
        cachedLength: prompt,
        blocks: [...prefix, prefix.length + s],
      })),
      blockSize,
    );
  let hasPrefix = false;
  return halfOf(loaded, runner, `${loaded.computeType} on ${backend.describe().isa}`, {
    step: (work) => (work === 'prefill' ? prefill : decode(Number(work.split(' ')[1]))),
    tensor: program.tensors.findIndex(({ name }) => name === 'hidden'),
    prepare: async (work) => {
      if (work !== 'prefill' && !hasPrefix) await runner.run(prefill);
      hasPrefix = true;
    },
  });
}

function errorOf(actual: Float32Array, path: string): Failure {
  const bytes = readFileSync(path);
  const expected = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  if (expected.length !== actual.length)
    throw new Error(`${path} has ${expected.length} values, the engine gave ${actual.length}.`);
  let max = 0;
  let squares = 0;
  for (let i = 0; i < actual.length; i++) {
    const difference = Math.abs((actual[i] as number) - (expected[i] as number));
    if (!(difference <= max)) max = difference;
    squares += difference * difference;
  }
  return { max, rms: Math.sqrt(squares / actual.length) };
}

/** What layers.py needs to know of the works. */
function describeWorks(threads: number): string {
  const vision = section(visionConfig, 'vision_config');
  const language = languageConfig;
  const patch = size(vision, 'patch_size');
  return JSON.stringify({
    threads,
    vision: {
      tiles,
      hidden: vision.hidden_size,
      heads: vision.num_attention_heads,
      headSize: size(vision, 'hidden_size') / size(vision, 'num_attention_heads'),
      grid: size(vision, 'image_size') / patch,
      patchWidth: 3 * patch * patch,
      eps: vision.layer_norm_eps,
    },
    language: {
      layers: language.num_hidden_layers,
      heads: language.num_attention_heads,
      kvHeads: language.num_key_value_heads,
      headSize: size(language, 'hidden_size') / size(language, 'num_attention_heads'),
      theta: language.rope_theta,
      eps: language.rms_norm_eps,
      prompt,
      promptIds,
      nextIds,
    },
  });
}

/** Seconds of one linear of 512 rows, 8192 by 8192. */
interface Speeds {
  readonly bfloat16: number;
  readonly float32: number;
}

interface Samples {
  readonly ours: number[];
  readonly theirs: Readonly<Record<(typeof dtypes)[number], number[]>>;
}

export async function widthBench(
  options: {
    readonly works: readonly WidthWork[];
    readonly rounds: number;
    readonly threads: number;
    readonly isa: string | undefined;
    readonly python: string;
    readonly cacheDirectory: string;
  },
  progress: (fraction: number, note: string) => void,
): Promise<BenchResult> {
  const { rounds, threads, isa } = options;
  const directory = join(options.cacheDirectory, 'bench', `width-${filesVersion}`);
  mkdirSync(directory, { recursive: true });
  const samples = new Map<Work, Samples>(
    widthWorks.map(({ id }) => [id, { ours: [], theirs: { bfloat16: [], float32: [] } }]),
  );
  const errors = new Map<string, Failure>();
  let description = '';
  let torch: Readonly<Record<string, unknown>> = {};
  let probe: Speeds = { bfloat16: Number.NaN, float32: Number.NaN };
  let finished = 0;
  const total = options.works.length * 3 * (1 + rounds);
  const advance = (note: string) => progress(finished++ / total, note);

  const measure = async (half: Half, worker: PythonWorker, own: readonly Work[]) => {
    for (const work of own) {
      const oracle = join(directory, `oracle-${work.replace(' ', '-')}.f32`);
      advance(`${work}: oracle`);
      if (!existsSync(oracle)) {
        await worker.ask({ op: 'oracle', work, output: `${oracle}.new` });
        renameSync(`${oracle}.new`, oracle);
      }
      errors.set(`${work} ours`, errorOf(await half.result(work), oracle));
    }
    const speeds = (await worker.ask({ op: 'probe' })) as unknown as Speeds;
    probe = speeds;
    // Without instructions for bf16 a step of many rows takes PyTorch minutes, and the probe tells that it is not the better type.
    const typesOf = (work: Work) =>
      work.startsWith('decode') || speeds.bfloat16 < 3 * speeds.float32
        ? dtypes
        : dtypes.filter((dtype) => dtype !== 'bfloat16');
    for (const work of own)
      for (const dtype of typesOf(work)) {
        advance(`${work}: error of PyTorch ${dtype}`);
        const { max, rms } = await worker.ask({ op: 'error', work, dtype });
        errors.set(`${work} ${dtype}`, { max: Number(max), rms: Number(rms) });
      }
    // What the errors were taken from has warmed up all of it.
    for (let round = 0; round < rounds; round++)
      for (const work of own) {
        advance(`${work}: ours`);
        samples.get(work)?.ours.push(await half.time(work));
        for (const dtype of typesOf(work)) {
          advance(`${work}: PyTorch ${dtype}`);
          const { seconds } = await worker.ask({ op: 'time', work, dtype });
          samples.get(work)?.theirs[dtype].push(Number(seconds));
        }
      }
  };
  const script = join(import.meta.dirname, 'width/layers.py');
  const chosen = options.works.map(({ id }) => id);
  for (const [load, own] of [
    [loadVision, chosen.filter((id) => id === 'vision')],
    [loadLanguage, chosen.filter((id) => id !== 'vision')],
  ] as const) {
    if (own.length === 0) continue;
    const half = await load(directory, threads, isa);
    description = half.description;
    const worker = startPython(options.python, [script, directory, describeWorks(threads)]);
    try {
      torch = await worker.ask({ op: 'describe' });
      await measure(half, worker, own);
    } finally {
      await worker.close();
      await half.close();
    }
  }
  return report(
    options.works,
    samples,
    errors,
    `${description}, ${threads} threads`,
    { torch, probe },
    rounds,
  );
}

function report(
  works: readonly WidthWork[],
  samples: ReadonlyMap<Work, Samples>,
  errors: ReadonlyMap<string, Failure>,
  description: string,
  { torch, probe }: { torch: Readonly<Record<string, unknown>>; probe: Speeds },
  rounds: number,
): BenchResult {
  const milliseconds = (seconds: readonly number[]): Spread =>
    seconds.length === 0
      ? { median: Number.NaN, min: 0, max: 0 }
      : spread(seconds.map((s) => s * 1000));
  /** Of each round, the time of PyTorch's better type over ours; better by its median. */
  const ratios = ({ ours, theirs }: Samples): Spread => {
    const better =
      median(theirs.bfloat16) < median(theirs.float32) ? theirs.bfloat16 : theirs.float32;
    return spread(ours.map((own, round) => (better[round] as number) / own));
  };
  const error = (name: string) => {
    const { max, rms } = errors.get(name) ?? { max: Number.NaN, rms: Number.NaN };
    return `${figure(max)} (${figure(rms)})`;
  };
  const of = (work: Work) => samples.get(work) as Samples;
  return {
    name: 'width',
    tables: [
      {
        title: 'Milliseconds per step at the widths of NVLM-D-72B',
        columns: ['work', 'ours', 'PyTorch bf16', 'PyTorch fp32', 'better of theirs / ours'],
        rows: works.map(({ id: work, name }) => [
          name,
          figureWithSpread(milliseconds(of(work).ours)),
          ...dtypes.map((dtype) => figureWithSpread(milliseconds(of(work).theirs[dtype]))),
          `${figureWithSpread(ratios(of(work)))}x`,
        ]),
        note: `Median of ${rounds} rounds (range), in turn; PyTorch runs many rows in fp32 only where one linear of 512 rows takes it three times as long in bf16: here ${figure(probe.bfloat16 * 1000)} ms, and ${figure(probe.float32 * 1000)} ms in fp32. Ours: ${description}. PyTorch ${torchVersion} (${String(torch.version)}, kernels for ${String(torch.capability)}), ${String(torch.threads)} threads, eager.`,
      },
      {
        title: 'Error of the residual stream against float64: largest (root mean square)',
        columns: ['work', 'ours', 'PyTorch bf16', 'PyTorch fp32'],
        rows: works.map(({ id: work, name }) => [
          name,
          error(`${work} ours`),
          ...dtypes.map((dtype) => error(`${work} ${dtype}`)),
        ]),
        note: 'The weights are bf16 for all. Ours rounds the inputs of each linear and the cache to bf16 and keeps the residual stream in fp32.',
      },
    ],
    charts: [
      {
        name: 'width',
        kind: 'bar',
        title: 'Milliseconds per step at the widths of NVLM-D-72B',
        unit: 'ms',
        labels: works.map(({ name }) => name),
        series: [
          { name: 'ours', values: works.map(({ id }) => milliseconds(of(id).ours).median) },
          ...dtypes.map((dtype) => ({
            name: `PyTorch ${dtype}`,
            values: works.map(({ id }) => milliseconds(of(id).theirs[dtype]).median),
          })),
        ],
      },
    ],
    figures: { probe, seconds: Object.fromEntries(samples), errors: Object.fromEntries(errors) },
  };
}
