/** Speed per op and instruction-set path, beside what this machine's memory and arithmetic units were measured to give. */
import { availableIsas, createCpuBackend, measurePeak } from '#kernels/cpu.ts';
import type { ComputeType, StorageType } from '#kernels/program.ts';
import { createRandom } from '../test/support/random.ts';
import { greedySampling, stepOf } from '../test/support/steps.ts';
import { ProgramRecorder } from '../test/support/tiny-program.ts';
import { randomWeight } from '../test/support/weights.ts';
import type { BenchResult } from './result.ts';
import { figure, median } from './statistics.ts';

interface Case {
  readonly name: string;
  readonly computeType: ComputeType;
  readonly storage: StorageType;
  readonly kind: 'linear' | 'attention' | 'rmsNorm' | 'sample';
  /** Tokens of the step. */
  readonly rows: number;
  /** Keys already in the cache. */
  readonly depth: number;
}

const width = 2048;
const heads = 16;
const kvHeads = 4;
const headSize = 128;
const blockSize = 32;

const linears: readonly (readonly [ComputeType, StorageType])[] = [
  ['float32', 'f32'],
  ['bfloat16', 'bf16'],
  ['int8', 'q8_0'],
  ['int4', 'q4_1'],
];
const cases: readonly Case[] = [
  ...linears.flatMap(([computeType, storage]) =>
    [1, 16, 512].map((rows) => ({
      name: `linear ${computeType}, ${rows} rows`,
      kind: 'linear' as const,
      computeType,
      storage,
      rows,
      depth: 0,
    })),
  ),
  {
    name: 'attention prefill 512',
    kind: 'attention',
    computeType: 'bfloat16',
    storage: 'bf16',
    rows: 512,
    depth: 0,
  },
  {
    name: 'attention decode at 4k',
    kind: 'attention',
    computeType: 'bfloat16',
    storage: 'bf16',
    rows: 1,
    depth: 4095,
  },
  {
    name: 'rmsNorm, 512 rows',
    kind: 'rmsNorm',
    computeType: 'bfloat16',
    storage: 'bf16',
    rows: 512,
    depth: 0,
  },
];

/** Bytes and floating-point operations of one op of a case. */
function work({ kind, rows, depth, storage }: Case): {
  readonly bytes: number;
  readonly operations: number;
} {
  const bitsPerWeight = { f32: 32, bf16: 16, q8_0: 9, q4_1: 5 }[
    storage as 'f32' | 'bf16' | 'q8_0' | 'q4_1'
  ];
  if (kind === 'linear')
    return { bytes: (width * width * bitsPerWeight) / 8, operations: 2 * rows * width * width };
  if (kind === 'attention') {
    const keys = depth + rows;
    const pairs = rows === 1 ? keys : (rows * (rows + 1)) / 2;
    return { bytes: keys * kvHeads * headSize * 2 * 2, operations: 4 * pairs * heads * headSize };
  }
  return { bytes: rows * width * 4 * 2, operations: 4 * rows * width };
}

/** Copies of the op, so that one step takes milliseconds and streamed weights do not stay in a cache. */
const copiesOf = (test: Case): number =>
  test.kind === 'linear' ? (test.rows === 1 ? 48 : test.rows === 16 ? 24 : 4) : 24;

function program(test: Case) {
  const random = createRandom(7);
  const record = new ProgramRecorder();
  const embedding = record.weight(randomWeight(random, 'embedding', 'f32', [64, width], 1));
  const qkvWidth = (heads + 2 * kvHeads) * headSize;
  const x = record.tensor('x', width);
  const out = record.tensor('out', width);
  const qkv = record.tensor('qkv', qkvWidth);
  record.op({ op: 'embedding', weight: embedding, out: x });
  const copies = copiesOf(test);
  const source = randomWeight(random, 'w', test.storage, [width, width], 0.02);
  const norm = record.weight(randomWeight(random, 'norm', 'f32', [width], 1));
  if (test.kind === 'attention') {
    const weight = record.weight(randomWeight(random, 'qkv', 'bf16', [qkvWidth, width], 0.02));
    record.op({ op: 'linear', x, weights: [weight], epilogue: 'none', out: qkv });
    record.op({
      op: 'ropeAndCache',
      qkv,
      layer: 0,
      rope: { inverseFrequencies: new Float32Array(headSize / 2), magnitude: 1 },
    });
  }
  for (let copy = 0; copy < copies; copy++) {
    if (test.kind === 'linear') {
      const weight = record.weight({ ...source, name: `w${copy}` });
      record.op({ op: 'linear', x, weights: [weight], epilogue: 'none', out });
    } else if (test.kind === 'attention')
      record.op({ op: 'attention', qkv, layer: 0, scale: headSize ** -0.5, out });
    else record.op({ op: 'rmsNorm', x, weight: norm, eps: 1e-6, out });
  }
  const last = record.tensor('last', width, 'logitRows');
  const logits = record.tensor('logits', 64, 'logitRows');
  const head = record.weight(randomWeight(random, 'head', 'f32', [64, width], 0.02));
  record.op({ op: 'gatherRows', x: out, out: last });
  record.op({ op: 'linear', x: last, weights: [head], epilogue: 'none', out: logits });
  record.op({ op: 'sample', logits });
  return {
    name: test.name,
    weights: record.weights,
    tensors: record.tensors,
    ops: record.ops,
    heads,
    cache: { layers: 1, kvHeads, headSize },
    vocabularyRows: 64,
    validTokenCount: 64,
  };
}

/** Median seconds of one op of the case. */
async function time(test: Case, isa: string, threads: number, rounds: number): Promise<number> {
  const backend = createCpuBackend({ isa });
  const blocks = Math.ceil((test.depth + test.rows) / blockSize);
  const loaded = await backend.load(program(test), {
    cache: { blockSize, blockCount: blocks + 1 },
    computeType: test.computeType,
    maxTokens: Math.max(test.rows, 512),
    maxSequences: 1,
    maxPositions: test.depth + test.rows + 512,
  });
  const runner = loaded.createRunner({ threads });
  const table = Array.from({ length: blocks }, (_, i) => i + 1);
  const stepAt = (rows: number, cachedLength: number) =>
    stepOf(
      [{ tokenIds: Array.from({ length: rows }, (_, i) => i % 64), cachedLength, blocks: table }],
      blockSize,
      { sampling: greedySampling(1) },
    );
  try {
    for (let done = 0; done < test.depth; done += 512)
      await runner.run(stepAt(Math.min(512, test.depth - done), done));
    const step = stepAt(test.rows, test.depth);
    const samples: number[] = [];
    for (let round = 0; round <= 2 * rounds; round++) {
      const startedAt = performance.now();
      await runner.run(step);
      if (round > 0) samples.push((performance.now() - startedAt) / 1000);
    }
    return median(samples) / copiesOf(test);
  } finally {
    await runner.close();
    await loaded.close();
  }
}

export async function kernelsBench(
  options: { readonly isa: string | undefined; readonly threads: number; readonly rounds: number },
  progress: (fraction: number, note: string) => void,
): Promise<BenchResult> {
  const isas = availableIsas().filter((isa) =>
    options.isa ? isa === options.isa : isa !== 'amx-emulated',
  );
  progress(0, 'peak');
  const peak = measurePeak(options.threads);
  const seconds = new Map<string, number>();
  let finished = 0;
  for (const isa of isas) {
    for (const test of cases) {
      progress(finished++ / (isas.length * cases.length), `${isa}: ${test.name}`);
      seconds.set(`${isa} ${test.name}`, await time(test, isa, options.threads, options.rounds));
    }
  }
  const peakOf = ({ computeType, kind }: Case) =>
    kind === 'linear'
      ? { float32: peak.float32, bfloat16: peak.bfloat16, int8: peak.int8, int4: peak.int8 }[
          computeType
        ]
      : peak.bfloat16;
  const rows = isas.flatMap((isa) =>
    cases.map((test) => {
      const { bytes, operations } = work(test);
      const time = seconds.get(`${isa} ${test.name}`) ?? Number.NaN;
      const share = Math.max(bytes / time / peak.readBytes, operations / time / peakOf(test));
      return [
        isa,
        test.name,
        figure(time * 1e6),
        figure(bytes / time / 1e9),
        figure(operations / time / 1e12),
        `${Math.round(share * 100)} %`,
      ];
    }),
  );
  return {
    name: 'kernels',
    tables: [
      {
        title: `Ops at width ${width}, ${options.threads} threads`,
        columns: ['path', 'op', 'µs', 'GB/s', 'TFLOP/s', 'share of peak'],
        rows,
        note: `Peaks measured in this run: read ${figure(peak.readBytes / 1e9)} GB/s, fp32 ${figure(peak.float32 / 1e12)}, bf16 ${figure(peak.bfloat16 / 1e12)} TFLOP/s, int8 ${figure(peak.int8 / 1e12)} TOP/s. The share is of the bound that is nearer; weights that fit the last-level cache can exceed the memory's.`,
      },
    ],
    charts: [
      {
        name: 'kernels',
        kind: 'bar',
        title: 'TFLOP/s of linear layers, 512 rows',
        unit: 'TFLOP/s',
        labels: linears.map(([computeType]) => computeType),
        series: isas.map((isa) => ({
          name: isa,
          values: cases
            .filter((test) => test.kind === 'linear' && test.rows === 512)
            .map(
              (test) =>
                work(test).operations / (seconds.get(`${isa} ${test.name}`) ?? Number.NaN) / 1e12,
            ),
        })),
      },
    ],
    figures: Object.fromEntries(seconds),
  };
}
