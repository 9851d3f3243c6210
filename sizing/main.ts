/** `npm run plan`: whether a model fits, how much of it, and how fast it could be at best. */
import { readFileSync } from 'node:fs';
import {
  OptionError,
  type OptionTable,
  optional,
  optionLines,
  readOptions,
  required,
} from '#options/table.ts';
import { bytes, choice, integer, text } from '#options/types.ts';
import { GPUS, type Gpu } from './gpus.ts';
import { gib, type MemoryPlan, planMemory, splitProblem, UTILIZATION } from './memory.ts';
import { type ModelShape, readModelShape, ShapeError } from './model-shape.ts';
import { type Roofline, roofline } from './roofline.ts';

const OPTIONS = {
  config: optional(text, "The model's config.json; examples/nvlm-d-72b/config.json is one"),
  tensor: required(integer(1, 64), '1', 'GPUs that split every layer'),
  pipeline: required(integer(1, 64), '1', 'Groups of GPUs that split the layers'),
  gpu: required(
    text,
    'a100-80gb',
    `${[...GPUS.keys()].join(', ')}, or NAME=BYTES such as l40s=48GiB`,
  ),
  dtype: required(
    choice('auto', 'float32', 'bfloat16', 'int8', 'int4'),
    'auto',
    'Type of the weights in memory; auto: as stored',
  ),
  'kv-cache-dtype': required(
    choice('auto', 'float32', 'bfloat16', 'int8'),
    'auto',
    'What keys and values are kept in; auto: as exact as the dtype, so int8 for int8 and int4',
  ),
  'max-sequences': required(integer(1, 65536), '64', 'Sequences of one step'),
  'max-batched-tokens': required(integer(1, 2 ** 20), '8192', 'Tokens of one step'),
  'max-model-length': optional(
    integer(1, 2 ** 24),
    'Tokens of prompt and answer; default: the model’s',
  ),
  'prompt-tokens': required(integer(1, 2 ** 24), '1024', 'Prompt that the times are told for'),
} satisfies OptionTable;

const help = `Usage: npm run plan -- --config FILE [options]

Prints what each GPU holds, the largest batch that fits and the least time of prefill and decode. Ends with exit code 1, and the number to change, when it
cannot fit.

${optionLines(OPTIONS)}
`;

function fail(message: string, exitCode: number): never {
  console.error(message);
  process.exit(exitCode);
}

function readGpu(name: string): Gpu {
  const known = GPUS.get(name.toLowerCase());
  if (known !== undefined) return known;
  const [, label, size] = /^([^=]+)=(.+)$/.exec(name) ?? [];
  if (label === undefined || size === undefined) {
    fail(`--gpu: expected ${[...GPUS.keys()].join(', ')} or NAME=BYTES, got '${name}'`, 2);
  }
  try {
    const memoryBytes = bytes.read(size);
    return { name: label, memoryBytes, bytesPerSecond: undefined, flopsPerSecond: undefined };
  } catch (error) {
    fail(`--gpu: ${(error as Error).message}`, 2);
  }
}

function readShape(path: string): ModelShape {
  try {
    return readModelShape(JSON.parse(readFileSync(path, 'utf8')));
  } catch (error) {
    const { message } = error as Error;
    fail(
      error instanceof ShapeError ? `${error.code}: ${path}: ${message}` : `${path}: ${message}`,
      1,
    );
  }
}

function readArguments() {
  try {
    const result = readOptions(OPTIONS, process.argv.slice(2), process.env, () => false);
    if (result !== 'help') return result.values;
    console.log(help);
    process.exit(0);
  } catch (error) {
    if (error instanceof OptionError) fail(error.message, 2);
    throw error;
  }
}

const billions = (parameters: number): string => `${(parameters / 1e9).toFixed(2)} B`;
const share = (part: number, plan: MemoryPlan): string => {
  const width = Math.max(0, Math.min(40, Math.round((40 * part) / (plan.usable / UTILIZATION))));
  return '█'.repeat(width);
};
const seconds = (value: number): string =>
  value < 1 ? `${(value * 1000).toPrecision(3)} ms` : `${value.toPrecision(3)} s`;

function rows(lines: readonly (readonly [string, string, string?])[]): string {
  return lines
    .map(([name, value, rest = '']) =>
      `  ${name.padEnd(26)}${value.padStart(12)}  ${rest}`.trimEnd(),
    )
    .join('\n');
}

function report(
  shape: ModelShape,
  plan: MemoryPlan,
  gpu: Gpu,
  times: Roofline | undefined,
): string {
  const { parameters, vision } = shape;
  const parts =
    vision === undefined
      ? ''
      : ` (language ${billions(parameters.language)}, vision ${billions(parameters.vision)}, projector ${billions(parameters.projector)})`;
  const pieces = [
    `${shape.architecture}: ${billions(parameters.total)} parameters${parts}`,
    '',
    `Each of ${values.tensor * values.pipeline} x ${gpu.name} (tensor ${values.tensor}, pipeline ${values.pipeline}), the fullest:`,
    rows([
      ['memory', gib(gpu.memoryBytes), '░'.repeat(40)],
      ['usable', gib(plan.usable), share(plan.usable, plan)],
      ['weights', gib(plan.weights), share(plan.weights, plan)],
      ['activations', gib(plan.activations), share(plan.activations, plan)],
      ['workspace', gib(plan.workspace), share(plan.workspace, plan)],
      ['left for the KV cache', gib(plan.kvCache), share(plan.kvCache, plan)],
    ]),
    '',
    rows([
      [
        'KV cache per token',
        `${plan.kvBytesPerToken} B`,
        `${plan.kvBytesPerTokenTotal} B over all GPUs`,
      ],
      ['tokens that fit', String(plan.maxCachedTokens)],
      ['largest batch', String(plan.largestBatch), `sequences of ${plan.maxModelLength} tokens`],
    ]),
  ];
  if (times !== undefined) {
    pieces.push(
      '',
      `At best, by rated arithmetic and bandwidth, for prompts of ${values.promptTokens} tokens:`,
      rows([
        ['prefill of one', seconds(times.prefillSeconds)],
        ['a token of one', seconds(times.decodeSeconds)],
        [
          'tokens/s of a batch',
          Math.round(times.batchTokensPerSecond).toLocaleString('en'),
          `${batch} sequences`,
        ],
      ]),
    );
  }
  return pieces.join('\n');
}

const values = readArguments();
if (values.config === undefined) fail(`--config is needed.\n\n${help}`, 2);
const shape = readShape(values.config);
const gpu = readGpu(values.gpu);
const problem = splitProblem(shape, values.tensor, values.pipeline);
if (problem !== undefined) fail(`Does not fit: ${problem}`, 1);
const plan = planMemory(shape, { ...values, gpuMemoryBytes: gpu.memoryBytes });
const batch = Math.max(
  1,
  Math.min(values.maxSequences, Math.floor(plan.maxCachedTokens / values.promptTokens)),
);
const times = plan.fits ? roofline(shape, plan, gpu, { ...values, batch }) : undefined;
console.log(report(shape, plan, gpu, times));
if (!plan.fits) fail(`\nDoes not fit: ${plan.refusal}`, 1);
