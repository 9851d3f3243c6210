import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ModelError } from '#engine/model/errors.ts';
import { buildProgram, buildVision } from '#engine/model/registry.ts';
import type { Op, Program, WeightSource } from '#kernels/program.ts';
import { storageBytes } from '#kernels/storage.ts';
import { validateRanks } from '#kernels/validate-ranks.ts';
import { planMemory } from '#sizing/memory.ts';
import { readModelShape } from '#sizing/model-shape.ts';
import { checkpointOf, config, publishedShapes, VALID_IDS } from '../../support/nvlm-d-72b.ts';

type Dummies = 'zero' | 'not zero';

/** The programs of all ranks, language model and vision encoder. */
function build(tensor: number, dummies: Dummies) {
  const checkpoint = checkpointOf(publishedShapes(), dummies);
  const ranks = Array.from({ length: tensor }, (_, index) => ({ index, count: tensor }));
  return {
    language: ranks.map(
      (rank) => buildProgram(checkpoint, { validTokenCount: VALID_IDS, rank }).program,
    ),
    vision: ranks.map((rank) => buildVision(checkpoint, rank)!.program),
  };
}

type Interval = readonly [begin: number, end: number];
interface Slice {
  readonly rows?: Interval;
  readonly columns?: Interval;
}

/** Name of the checkpoint's tensor, and the part of it that a weight is. */
function partOf({ name, shape }: WeightSource): [string, Slice] {
  const match = /^(.*?)\[(:|\d+:\d+)(?:, (\d+:\d+))?\]$/.exec(name);
  if (!match) return [name, {}];
  const interval = (text: string | undefined): Interval | undefined =>
    text && text !== ':' ? (text.split(':').map(Number) as [number, number]) : undefined;
  const [rows, columns] = [interval(match[2]), interval(match[3])];
  if (rows) assert.equal(shape[0], rows[1] - rows[0], name);
  if (columns) assert.equal(shape[1], columns[1] - columns[0], name);
  return [match[1]!, { ...(rows && { rows }), ...(columns && { columns }) }];
}

/**
 * What rank r of N has of a tensor, by the table of tensor parallelism: heads, intermediate sizes and vocabulary are divided, rows of
 * what makes them and columns of what takes them; norms and layer scales are on every rank; biases of what is summed on the first.
 */
function expectedSlices(name: string, r: number, N: number, dummies: Dummies): Slice[] {
  const part = (total: number): Interval => [(r * total) / N, ((r + 1) * total) / N];
  const first = r === 0 ? [{}] : [];
  const kind = name.replace(/^.*layers\.\d+\./, '');
  // 32 stored heads; of the 25 real ones the first 25 mod N ranks have one more.
  const real: Interval = [
    r * Math.floor(25 / N) + Math.min(r, 25 % N),
    (r + 1) * Math.floor(25 / N) + Math.min(r + 1, 25 % N),
  ];
  const [from, to] = dummies === 'zero' ? real : part(32);
  const visionHeads: Interval = [from * 128, to * 128];
  switch (kind) {
    case 'language_model.model.embed_tokens.weight':
    case 'language_model.lm_head.weight':
      return [{ rows: part(152_064) }];
    case 'self_attn.q_proj.weight':
    case 'self_attn.q_proj.bias':
      return [{ rows: part(8192) }];
    case 'self_attn.k_proj.weight':
    case 'self_attn.k_proj.bias':
    case 'self_attn.v_proj.weight':
    case 'self_attn.v_proj.bias': {
      // More ranks than the 8 heads: N / 8 ranks share one.
      const head = Math.floor((r * 8) / N);
      return [{ rows: N <= 8 ? part(1024) : [head * 128, (head + 1) * 128] }];
    }
    case 'self_attn.o_proj.weight':
      return [{ columns: part(8192) }];
    case 'mlp.gate_proj.weight':
    case 'mlp.up_proj.weight':
      return [{ rows: part(29_568) }];
    case 'mlp.down_proj.weight':
      return [{ columns: part(29_568) }];
    case 'attn.qkv.weight':
      return [0, 4096, 8192].map((third) => ({
        rows: [third + visionHeads[0], third + visionHeads[1]],
      }));
    case 'attn.q_norm.weight':
    case 'attn.k_norm.weight':
      return [{ rows: visionHeads }];
    case 'attn.proj.weight':
      return [{ columns: visionHeads }];
    case 'mlp.fc1.weight':
    case 'mlp.fc1.bias':
      return [{ rows: part(12_800) }];
    case 'mlp.fc2.weight':
      return [{ columns: part(12_800) }];
    case 'mlp1.1.weight':
      return [{ rows: part(29_568) }];
    case 'mlp1.3.weight':
      return [{ columns: part(29_568) }];
    case 'attn.proj.bias':
    case 'mlp.fc2.bias':
      return first;
    default:
      return [{}];
  }
}

/** A part that is the whole is written as such. */
function normalised(slice: Slice, shape: readonly number[]): Slice {
  const isAll = (interval: Interval | undefined, size: number | undefined): boolean =>
    interval !== undefined && interval[0] === 0 && interval[1] === size;
  return {
    ...(slice.rows && !isAll(slice.rows, shape[0]) && { rows: slice.rows }),
    ...(slice.columns && !isAll(slice.columns, shape[1]) && { columns: slice.columns }),
  };
}

/** How often each stretch of an axis is in the slices: [begin, end, times]. */
function coverage(slices: readonly Slice[], axis: 'rows' | 'columns', size: number) {
  const bounds = slices.flatMap((slice) => [...(slice[axis] ?? [0, size])]);
  const cuts = [...new Set([0, size, ...bounds])].sort((a, b) => a - b);
  const stretches: [number, number, number][] = [];
  for (let i = 0; i + 1 < cuts.length; i++) {
    const [begin, end] = [cuts[i]!, cuts[i + 1]!];
    const times = slices.filter(
      ({ [axis]: part = [0, size] }) => part[0] <= begin && end <= part[1],
    );
    const last = stretches.at(-1);
    if (last && last[2] === times.length) last[1] = end;
    else stretches.push([begin, end, times.length]);
  }
  return stretches;
}

/** Times that the ranks together have a tensor. */
function copiesOf(name: string, N: number): number {
  const kind = name.replace(/^.*layers\.\d+\./, '');
  if (/norm\d?\.weight$/.test(kind) && !/[qk]_norm/.test(kind)) return N;
  if (/^ls\d$|^mlp1\.0\.|patch_embedding/.test(kind.replace(/^vision_model\.embeddings\./, '')))
    return N;
  if (/[kv]_proj/.test(kind)) return Math.max(1, N / 8);
  return 1;
}

/** Rows or columns of dummy heads that are left out. */
const withoutDummies = (name: string): Interval[] | undefined => {
  if (name.endsWith('attn.qkv.weight'))
    return [
      [3200, 4096],
      [7296, 8192],
      [11_392, 12_288],
    ];
  return /attn\.(q_norm|k_norm|proj)\.weight$/.test(name) ? [[3200, 4096]] : undefined;
};

// Class and position embeddings are added into one table when the program is recorded.
const POSITIONS = 'vision_model.embeddings.positions';
const isTable = (name: string): boolean =>
  /embeddings\.(class_embedding|position_embedding)$/.test(name);

for (const dummies of ['zero', 'not zero'] as const)
  for (const tensor of [1, 2, 4, 8, 16])
    test(`NVLM-D-72B on ${tensor} ranks, dummy heads ${dummies}: every tensor is divided as published, and all of it is there`, () => {
      const shapes = publishedShapes();
      const programs = build(tensor, dummies);
      const slices = new Map<string, Slice[]>([...shapes.keys()].map((name) => [name, []]));
      for (let rank = 0; rank < tensor; rank++) {
        const held = new Map<string, Slice[]>();
        for (const weight of [programs.language, programs.vision].flatMap(
          (all) => all[rank]!.weights,
        )) {
          const [name, slice] = partOf(weight);
          if (name === POSITIONS) {
            assert.deepEqual([weight.type, weight.shape], ['f32', [1025, 3200]]);
            continue;
          }
          held.set(name, [...(held.get(name) ?? []), slice]);
          const known = slices.get(name);
          assert.ok(known, `${name} is no tensor of the checkpoint`);
          known.push(slice);
        }
        for (const [name, shape] of shapes) {
          if (isTable(name)) continue;
          assert.deepEqual(
            held.get(name) ?? [],
            expectedSlices(name, rank, tensor, dummies).map((one) => normalised(one, shape)),
            `${name} on rank ${rank}`,
          );
        }
      }
      let elements = 0;
      for (const [name, shape] of shapes) {
        const isByColumns = slices.get(name)!.some(({ columns }) => columns);
        const size = shape[isByColumns ? 1 : 0]!;
        const all = shape.reduce((product, length) => product * length, 1);
        if (isTable(name)) {
          elements += all;
          continue;
        }
        const found = coverage(slices.get(name)!, isByColumns ? 'columns' : 'rows', size);
        const dropped = (dummies === 'zero' && withoutDummies(name)) || [];
        assert.deepEqual(
          found.filter(([, , times]) => times === 0).map(([begin, end]) => [begin, end]),
          dropped,
          `${name} lacks`,
        );
        for (const [begin, end, times] of found) {
          if (times === 0) continue;
          assert.equal(times, copiesOf(name, tensor), `${name} ${begin}:${end}`);
          elements += (all / size) * (end - begin);
        }
      }
      // 79.38 billion as published; seven heads of 45 layers less without the dummies.
      const perHead = 128 * (4 * 3200 + 2);
      assert.equal(
        elements,
        79_379_593_344 - (dummies === 'zero' ? 45 * 7 * perHead : 0),
        'parameters, each once',
      );
    });

const countOps = (program: Program): Partial<Record<Op['op'], number>> =>
  Object.fromEntries(
    [...Map.groupBy(program.ops, ({ op }) => op)].map(([op, all]) => [op, all.length]),
  );

for (const tensor of [2, 4, 8])
  test(`NVLM-D-72B on ${tensor} ranks: the programs are valid, alike, and talk at two places of a layer`, () => {
    const { language, vision } = build(tensor, 'zero');
    validateRanks(language);
    validateRanks(vision);
    for (const [index, program] of language.entries()) {
      assert.deepEqual(program.rank, { index, count: tensor });
      assert.equal(program.heads, 64 / tensor);
      assert.deepEqual(program.cache, { layers: 80, kvHeads: 8 / tensor, headSize: 128 });
      const { allReduce, allGather, sample } = countOps(program);
      // The embedding, and attention and MLP of each layer.
      assert.deepEqual([allReduce, allGather, sample], [1 + 160, 1, index === 0 ? 1 : undefined]);
      const widths = program.tensors.map(({ name, width }) => [name, width]);
      assert.deepEqual(widths, [
        ['hidden', 8192],
        ['normed', 8192],
        ['qkv', (80 * 128) / tensor],
        ['attended', 8192 / tensor],
        ['gated', 29_568 / tensor],
        ['imageEmbeddings', 8192],
        ['lastHidden', 8192],
        ['lastNormed', 8192],
        ['lastAttended', 8192 / tensor],
        ['lastGated', 29_568 / tensor],
        ['logitsPart', 152_064 / tensor],
        ['logits', 152_064],
      ]);
    }
    assert.deepEqual(
      vision.map(({ heads }) => heads),
      { 2: [13, 12], 4: [7, 6, 6, 6], 8: [4, 3, 3, 3, 3, 3, 3, 3] }[tensor],
    );
    // Attention, MLP and the squares of the head norms of each layer, and the projector.
    for (const program of vision) assert.equal(countOps(program).allReduce, 45 * 3 + 1);
  });

for (const tensor of [1, 2, 4, 8])
  test(`NVLM-D-72B on ${tensor} ranks: npm run plan counts the bytes of the fullest rank and of its cache`, () => {
    const plan = planMemory(readModelShape(config), {
      tensor,
      pipeline: 1,
      gpuMemoryBytes: 2 ** 38,
      dtype: 'auto',
      maxSequences: 64,
      maxBatchedTokens: 8192,
    });
    const bytesOf = ({ language, vision }: ReturnType<typeof build>): number[] =>
      language.map(({ weights }, rank) =>
        [...weights, ...vision[rank]!.weights].reduce(
          (sum, { type, shape }) => sum + storageBytes(type, shape),
          0,
        ),
      );
    const stored = bytesOf(build(tensor, 'not zero'));
    assert.equal(stored[0], plan.weights);
    assert.equal(Math.max(...stored), stored[0]);
    // The plan cannot know that dummy heads are zero: an engine that leaves them out holds fewer heads on its first rank.
    const programs = build(tensor, 'zero');
    const [first] = bytesOf(programs) as [number];
    const spared = 32 / tensor - Math.ceil(25 / tensor);
    assert.equal(plan.weights - first, 2 * 45 * spared * 128 * (4 * 3200 + 2));
    const { cache } = programs.language[0]!;
    assert.equal(plan.kvBytesPerToken, 2 * 2 * cache.layers * cache.kvHeads * cache.headSize);
  });

test('NVLM-D-72B is refused on ranks that its layers cannot be divided between, with the numbers', () => {
  const refusal = (tensor: number, dummies: Dummies): string => {
    try {
      build(tensor, dummies);
    } catch (error) {
      assert.ok(error instanceof ModelError);
      assert.equal(error.code, 'MODEL_SPLIT_UNSUPPORTED');
      return error.message;
    }
    return assert.fail('nothing was refused');
  };
  assert.match(refusal(3, 'zero'), /tensor 3 .*does not divide the 64 attention heads/);
  assert.match(refusal(32, 'zero'), /heads of the vision encoder: 25; set it to at most 25/);
});
