import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Op, Program, TensorSpec } from '#kernels/program.ts';
import { createReferenceBackend } from '#kernels/reference/backend.ts';
import { validateProgram } from '#kernels/validate.ts';
import { validateRanks } from '#kernels/validate-ranks.ts';
import { stepOf } from '../support/steps.ts';
import { plainWeight } from '../support/weights.ts';
import { assertClose, BLOCK_SIZE, loadOptions, plainStep, withRunner } from './harness.ts';
import { cpuSubjects } from './subjects.ts';

const WIDTH = 8;
const ROWS = 5;
/** Rows of the vocabulary that each rank has. */
const SHARES = [3, 2];

const embeddingValue = (row: number, column: number): number => 10 * row + column;
const headValue = (row: number, column: number): number => (column === row ? 1 : 0.5);

/** Rank `index` of two: a divided embedding, its sum, a divided head, its logits side by side; rank 0 samples. */
function rankProgram(index: number, changes: Partial<Program> = {}): Program {
  const first = index === 0 ? 0 : SHARES[0]!;
  const rows = SHARES[index]!;
  const values = (of: (row: number, column: number) => number): number[] =>
    Array.from({ length: rows * WIDTH }, (_, i) => of(first + Math.floor(i / WIDTH), i % WIDTH));
  const tensors: TensorSpec[] = [
    { name: 'hidden', rows: 'tokens', width: WIDTH },
    { name: 'last', rows: 'logitRows', width: WIDTH },
    { name: 'part', rows: 'logitRows', width: rows },
    { name: 'logits', rows: 'logitRows', width: ROWS },
  ];
  const ops: Op[] = [
    { op: 'embedding', weight: 0, firstRow: first, out: 0 },
    { op: 'allReduce', x: 0 },
    { op: 'gatherRows', x: 0, out: 1 },
    { op: 'linear', x: 1, weights: [1], epilogue: 'none', out: 2 },
    { op: 'allGather', x: 2, widths: SHARES, out: 3 },
  ];
  return {
    name: 'divided',
    rank: { index, count: 2 },
    weights: [
      plainWeight('table', [rows, WIDTH], values(embeddingValue)),
      plainWeight('head', [rows, WIDTH], values(headValue)),
    ],
    tensors,
    ops: index === 0 ? [...ops, { op: 'sample', logits: 3 }] : ops,
    heads: 1,
    cache: { layers: 1, kvHeads: 1, headSize: 8 },
    vocabularyRows: ROWS,
    validTokenCount: ROWS,
    ...changes,
  };
}

const ranks = (): Program[] => [rankProgram(0), rankProgram(1)];

test('ranks sum what each has, and see the logits of all', async () => {
  const ids = [4, 0, 3, 2];
  const outputs = await withRunner(createReferenceBackend(), ranks(), loadOptions(), (runner) =>
    runner.run(
      stepOf(
        [{ tokenIds: ids, cachedLength: 0, blocks: [0], logitRows: [0, 1, 2, 3] }],
        BLOCK_SIZE,
        {
          wantLogits: true,
          wantTensors: [0],
        },
      ),
    ),
  );
  const hidden = ids.flatMap((id) =>
    Array.from({ length: WIDTH }, (_, column) => embeddingValue(id, column)),
  );
  assert.deepEqual([...outputs.tensors![0]!], hidden);
  const logits = ids.flatMap((_, t) =>
    Array.from({ length: ROWS }, (_, row) =>
      Array.from({ length: WIDTH }, (_, k) => hidden[t * WIDTH + k]! * headValue(row, k)).reduce(
        (sum, value) => sum + value,
      ),
    ),
  );
  assertClose(outputs.logits!, logits, 1e-5, 'logits');
  // The largest column of every embedding that has a row in the head.
  assert.deepEqual([...outputs.tokenIds], [4, 4, 4, 4]);
});

test('a step may name ids that other ranks have, and none beyond the vocabulary', async () => {
  const loaded = await createReferenceBackend().load(ranks(), loadOptions());
  const runner = loaded.createRunner({ threads: 1 });
  const step = (id: number) => ({ ...plainStep(1), tokenIds: Int32Array.of(id) });
  await runner.run(step(ROWS - 1));
  await assert.rejects(runner.run(step(ROWS)), { code: 'KERNEL_INPUT_INVALID' });
  await loaded.close();
});

test('bytes held are those of all ranks', async () => {
  const loaded = await createReferenceBackend().load(ranks(), loadOptions());
  assert.equal(loaded.weightBytes, 4 * 2 * ROWS * WIDTH);
  assert.equal(loaded.cacheBytes, 2 * 2 * 4 * 4 * BLOCK_SIZE * 8);
  await loaded.close();
});

test('norms over the heads of all ranks are those of one rank with all heads', async () => {
  const heads = 3;
  const values = Array.from({ length: 3 * heads * 8 }, (_, i) => Math.sin(1 + i));
  const weights = Array.from({ length: heads * 8 }, (_, i) => 1 + i / 10);
  // Of three heads the last is a dummy that does not count.
  const meanWidth = 2 * 8;
  const eps = 1e-5;
  const program = (own: number[], rank?: Program['rank']): Program => {
    const ofHeads = (all: number[], at: number) =>
      own.flatMap((head) => all.slice(at + 8 * head, at + 8 * head + 8));
    const qkv = [0, 1, 2].flatMap((part) => ofHeads(values, part * heads * 8));
    const real = own.filter((head) => head < 2).length;
    return {
      name: 'norms',
      ...(rank && { rank }),
      weights: [
        plainWeight('qkv', [1, qkv.length], qkv),
        plainWeight('q_norm', [8 * own.length], ofHeads(weights, 0)),
        plainWeight('k_norm', [8 * own.length], ofHeads(weights, 0)),
      ],
      tensors: [
        { name: 'qkv', rows: 'tokens', width: qkv.length },
        { name: 'squares', rows: 'tokens', width: 2 },
      ],
      ops: [
        { op: 'embedding', weight: 0, out: 0 },
        ...(rank
          ? ([
              { op: 'queryKeySquares', qkv: 0, width: 8 * real, out: 1 },
              { op: 'allReduce', x: 1 },
            ] as const)
          : []),
        {
          op: 'queryKeyNorm',
          qkv: 0,
          queryWeight: 1,
          keyWeight: 2,
          meanWidth,
          eps,
          ...(rank && { squares: 1 }),
        },
      ],
      heads: own.length,
      cache: { layers: 1, kvHeads: own.length, headSize: 8 },
      vocabularyRows: 1,
      validTokenCount: 1,
    };
  };
  const run = async (programs: Program | Program[]) => {
    const loaded = await createReferenceBackend().load(programs, loadOptions());
    const outputs = await loaded
      .createRunner({ threads: 1 })
      .run(plainStep(1, { wantTensors: [0] }));
    await loaded.close();
    return outputs.tensors![0]!;
  };
  const whole = await run(program([0, 1, 2]));
  for (const order of [
    [[0], [1, 2]],
    [[0, 1], [2]],
    [[0], [1], [2]],
  ]) {
    const programs = order.map((own, index) => program(own, { index, count: order.length }));
    const first = await run(programs);
    const own = order[0]!;
    const expected = [0, 1, 2].flatMap((part) =>
      own.flatMap((head) => [
        ...whole.subarray((part * heads + head) * 8, (part * heads + head + 1) * 8),
      ]),
    );
    assertClose(first, expected, 1e-6, JSON.stringify(order));
  }
});

const withOps = (index: number, change: (ops: Op[]) => Op[]): Program => {
  const program = rankProgram(index);
  return { ...program, ops: change([...program.ops]) };
};
const replaced = (at: number, op: Op) => (ops: Op[]) => ops.with(at, op);

const refused: readonly (readonly [string, readonly Program[], RegExp])[] = [
  ['no rank', [], /at least one program, received none/],
  ['a rank without the others', [rankProgram(0)], /programs of all 2 ranks, received 1/],
  ['ranks in another order', [rankProgram(1), rankProgram(0)], /rank 0, received rank 1/],
  [
    'a rank of another model',
    [rankProgram(0), rankProgram(1, { vocabularyRows: 6 })],
    /vocabulary 5 of 5, received .*vocabulary 5 of 6/,
  ],
  [
    'a rank that leaves an op out',
    [rankProgram(0), withOps(1, (ops) => ops.toSpliced(1, 1))],
    /5 ops as rank 0, received 4/,
  ],
  [
    'a rank that sums another tensor',
    [rankProgram(0), withOps(1, (ops) => ops.toSpliced(1, 2, ops[2]!, { op: 'allReduce', x: 1 }))],
    /op 1 .*allReduce of tensor 0, hidden \(tokens, 8\) as rank 0, received gatherRows/,
  ],
  [
    'a second rank that samples',
    [rankProgram(0), withOps(1, (ops) => [...ops, { op: 'sample', logits: 3 }])],
    /no sample op: rank 0 has it/,
  ],
];
for (const [what, programs, message] of refused)
  test(`${what} is refused`, () => {
    assert.throws(() => validateRanks(programs), { code: 'KERNEL_PROGRAM_INVALID', message });
  });

const badPrograms: readonly (readonly [string, Program, RegExp])[] = [
  [
    'a rank beyond its count',
    rankProgram(0, { rank: { index: 2, count: 2 } }),
    /rank index below its count, received 2 of 2/,
  ],
  [
    'a share of an embedding that leaves the vocabulary',
    withOps(1, replaced(0, { op: 'embedding', weight: 0, firstRow: 4, out: 0 })),
    /firstRow from 0 to 3, received 4/,
  ],
  [
    'a sum of what is not written',
    withOps(0, replaced(1, { op: 'allReduce', x: 2 })),
    /written by an earlier op/,
  ],
  [
    'a width too few to gather',
    withOps(0, replaced(4, { op: 'allGather', x: 2, widths: [3], out: 3 })),
    /2 widths of 1 or more, one for each rank, received 3/,
  ],
  [
    'a gathered width that is not the own one',
    withOps(1, replaced(4, { op: 'allGather', x: 2, widths: [2, 3], out: 3 })),
    /width of 2 for rank 1, whose x is as wide, received 3/,
  ],
  [
    'a gathered tensor of another width',
    withOps(0, replaced(4, { op: 'allGather', x: 2, widths: [3, 3], out: 3 })),
    /out to be \(logitRows, 6\), received tensor logits \(logitRows, 5\)/,
  ],
];
for (const [what, program, message] of badPrograms)
  test(`${what} is refused`, () => {
    assert.throws(() => validateProgram(program), { code: 'KERNEL_PROGRAM_INVALID', message });
  });

test('ops between ranks have no place in the program of a whole model', () => {
  const { rank: _, ...program } = rankProgram(0);
  for (const at of [0, 1, 4]) {
    const kept = program.ops.map((op) =>
      op.op === 'embedding' && at > 0 ? { ...op, firstRow: undefined } : op,
    );
    const ops = kept.filter(({ op }, index) => index === at || !/^all/.test(op)) as Op[];
    assert.throws(() => validateProgram({ ...program, ops }), {
      code: 'KERNEL_PROGRAM_INVALID',
      message: /expected the program of a rank, received that of a whole model/,
    });
  }
});

for (const { name, create, skip } of cpuSubjects())
  test(`${name} refuses a divided model by name and runs nothing of it`, { skip }, async () => {
    const refusal = {
      code: 'KERNEL_RANKS_UNSUPPORTED',
      message: /expected a whole model \(tensor 1\).*received 2 ranks/,
    };
    await assert.rejects(create().load(ranks(), loadOptions()), refusal);
  });
