import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { LoadOptions } from '#kernels/backend.ts';
import type { Op, Program, StorageType, WeightSource } from '#kernels/program.ts';
import type { SamplingInputs, StepInputs } from '#kernels/step.ts';
import { validateLoadOptions, validateProgram, validateThreads } from '#kernels/validate.ts';
import { tokenIdLimit, validateStep } from '#kernels/validate-step.ts';
import { greedySampling, stepOf } from '../support/steps.ts';
import { tinyProgram } from '../support/tiny-program.ts';
import { BLOCK_SIZE, loadOptions } from './harness.ts';

const program = tinyProgram({ biases: true });

/** The tiny program with its first op of a kind replaced. */
function withOp<Kind extends Op['op']>(
  kind: Kind,
  change: Partial<Extract<Op, { op: Kind }>>,
): Program {
  const index = program.ops.findIndex(({ op }) => op === kind);
  const ops = [...program.ops];
  ops[index] = { ...ops[index]!, ...change } as Op;
  return { ...program, ops };
}

function withWeight(change: Partial<WeightSource>): Program {
  const [first, ...others] = program.weights;
  return { ...program, weights: [{ ...first!, ...change }, ...others] };
}

test('the tiny program, its options and its steps are accepted', () => {
  validateProgram(program);
  validateLoadOptions(loadOptions());
  validateThreads(3);
  validateStep(program, loadOptions(), step());
  validateStep(program, loadOptions(), stepOf([], BLOCK_SIZE));
  assert.equal(tokenIdLimit(program), 160);
});

const badPrograms: readonly (readonly [string, Program, RegExp])[] = [
  [
    'a head count that the key heads do not divide',
    { ...program, heads: 3 },
    /multiple of the key heads, received 3 and 2/,
  ],
  [
    'a head size that is no multiple of 8',
    { ...program, cache: { ...program.cache, headSize: 12 } },
    /head size.*received 12/,
  ],
  [
    'more valid tokens than rows',
    { ...program, validTokenCount: 161 },
    /from 1 to 160, received 161/,
  ],
  [
    'a tensor without width',
    { ...program, tensors: [{ name: 'x', rows: 'tokens', width: 0 }] },
    /tensor x.*width.*received 0/,
  ],
  [
    'an embedding wider than its output',
    withOp('embedding', { out: 2 }),
    /out to be \(tokens, 64\), received tensor qkv \(tokens, 128\)/,
  ],
  [
    'a tensor read before it is written',
    withOp('rmsNorm', { x: 2 }),
    /written by an earlier op, received tensor qkv/,
  ],
  [
    'a norm weight of another width',
    withOp('rmsNorm', { weight: 0 }),
    /weight of shape \[64\], received embedding \[160, 64\]/,
  ],
  ['a norm with a negative eps', withOp('rmsNorm', { eps: -1 }), /eps of 0 or more, received -1/],
  ['a linear in place', withOp('linear', { out: 1 }), /another tensor than its input/],
  ['a linear without weights', withOp('linear', { weights: [] }), /at least one weight/],
  [
    'siluMul over three weights',
    withOp('linear', { epilogue: 'siluMul' }),
    /two weights of equal rows for siluMul/,
  ],
  [
    'fewer biases than weights',
    withOp('linear', { biases: [] }),
    /3 biases, one for each weight, received 0/,
  ],
  [
    'a weight id that does not exist',
    withOp('linear', { weights: [999] }),
    /weight id below \d+, received 999/,
  ],
  ['a layer without cache', withOp('attention', { layer: 2 }), /layer below 2, received 2/],
  [
    'rotation with too few frequencies',
    withOp('ropeAndCache', { rope: { inverseFrequencies: new Float32Array(3), magnitude: 1 } }),
    /8 inverse frequencies, received 3/,
  ],
  [
    'attention with a scale that is not a number',
    withOp('attention', { scale: Number.NaN }),
    /finite scale, received NaN/,
  ],
  [
    'gathering what is gathered already',
    withOp('gatherRows', { x: 5 }),
    /written by an earlier op/,
  ],
  [
    'sampling from token rows',
    withOp('sample', { logits: 1 }),
    /logits to be \(logitRows, 160\), received tensor normed \(tokens, 64\)/,
  ],
  [
    'an op after sample',
    { ...program, ops: [...program.ops, program.ops[0]!] },
    /sample to be the last op/,
  ],
  [
    'an unknown op',
    { ...program, ops: [{ op: 'conv' } as unknown as Op] },
    /known op, received conv/,
  ],
];
for (const [what, bad, message] of badPrograms)
  test(`${what} is refused`, () => {
    assert.throws(() => validateProgram(bad), { code: 'KERNEL_PROGRAM_INVALID', message });
  });

const data = new Uint8Array(64);
const badWeights: readonly (readonly [string, Partial<WeightSource>, RegExp])[] = [
  [
    'an unknown storage type',
    { type: 'q2_k' as StorageType },
    /weight embedding: expected one of f32.*received q2_k/,
  ],
  [
    'three axes',
    { shape: [4, 2, 2], bytes: { data } },
    /one or two positive sizes, received \[4, 2, 2\]/,
  ],
  ['an empty axis', { shape: [0, 64] }, /positive sizes/],
  ['fewer bytes than its shape asks for', { bytes: { data } }, /expected 40960 bytes, received 64/],
  [
    'rows that are no whole number of blocks',
    { type: 'q4_k', shape: [160, 64] },
    /multiple of 256 values, received 64/,
  ],
  [
    'a negative file offset',
    { bytes: { path: 'x', offset: -1, byteLength: 40960 } },
    /offset of 0 or more, received -1/,
  ],
  [
    'a row order that does not divide its rows',
    { rowOrder: { kind: 'interleavedToHalf', headSize: 48 } },
    /even head size divides the rows, received 48/,
  ],
];
for (const [what, change, message] of badWeights)
  test(`a weight with ${what} is refused by name`, () => {
    assert.throws(() => validateProgram(withWeight(change)), {
      code: 'KERNEL_WEIGHT_INVALID',
      message,
    });
  });

const badOptions: readonly (readonly [Partial<LoadOptions>, RegExp])[] = [
  [
    { cache: { blockSize: 24, blockCount: 4 } },
    /cache.blockSize: expected a positive multiple of 16, received 24/,
  ],
  [{ cache: { blockSize: 16, blockCount: 0 } }, /cache.blockCount.*received 0/],
  [{ cache: { blockSize: 2 ** 20, blockCount: 2 ** 12 } }, /fewer than 2\^31 slots/],
  [{ maxTokens: 0 }, /maxTokens: expected a positive integer, received 0/],
  [{ maxSequences: 1.5 }, /maxSequences.*1.5/],
  [{ maxPositions: Number.NaN }, /maxPositions.*NaN/],
  [
    { cacheType: 'int4' as 'int8' },
    /cacheType: expected one of auto, float32, bfloat16, int8, received int4/,
  ],
  [
    { computeType: 'float16' as 'float32' },
    /computeType: expected one of auto, float32.*received float16/,
  ],
];
for (const [change, message] of badOptions)
  test(`load options ${JSON.stringify(change)} are refused`, () => {
    assert.throws(() => validateLoadOptions(loadOptions(change)), {
      code: 'KERNEL_OPTION_INVALID',
      message,
    });
  });

test('thread counts that are no positive integer are refused', () => {
  for (const threads of [0, -1, 1.5, Number.NaN, 1025])
    assert.throws(() => validateThreads(threads), {
      code: 'KERNEL_OPTION_INVALID',
      message: /threads/,
    });
});

/** Two sequences, one of three tokens and one of a token after 20 cached ones. */
function step(overrides: Partial<StepInputs> = {}): StepInputs {
  const sequences = [
    { tokenIds: [1, 2, 3], cachedLength: 0, blocks: [3] },
    { tokenIds: [4], cachedLength: 20, blocks: [0, 2] },
  ];
  return stepOf(sequences, BLOCK_SIZE, overrides);
}
const sampling = (overrides: Partial<SamplingInputs>): Partial<StepInputs> => ({
  sampling: greedySampling(2, overrides),
});
const int = (...values: number[]): Int32Array => Int32Array.from(values);
const float = (...values: number[]): Float32Array => Float32Array.from(values);
const badSteps: readonly (readonly [string, Partial<StepInputs>, RegExp])[] = [
  [
    'a token id beyond the table',
    { tokenIds: int(1, 2, 3, 160) },
    /tokenIds\[3\]: expected a value from 0 to 159, received 160/,
  ],
  ['a negative token id', { tokenIds: int(1, -2, 3, 4) }, /tokenIds\[1\]/],
  [
    'too few positions',
    { positions: int(0, 1, 2) },
    /positions: expected length 4, received length 3/,
  ],
  [
    'a position beyond the rotary table',
    { positions: int(0, 1, 2, 64) },
    /positions\[3\].*0 to 63, received 64/,
  ],
  [
    'a slot beyond the cache',
    { slotMapping: int(0, 1, 2, 64) },
    /slotMapping\[3\].*-1 to 63, received 64/,
  ],
  [
    'offsets that do not begin at 0',
    { cuSeqlensQ: int(1, 3, 4) },
    /cuSeqlensQ\[0\]: expected 0, received 1/,
  ],
  [
    'offsets that fall',
    { cuSeqlensQ: int(0, 5, 4) },
    /cuSeqlensQ\[2\]: expected at least 5, received 4/,
  ],
  [
    'offsets that end elsewhere',
    { cuSeqlensQ: int(0, 3, 3) },
    /cuSeqlensQ\[2\]: expected 4, received 3/,
  ],
  [
    'fewer keys than queries',
    { seqLens: int(2, 21) },
    /seqLens\[0\]: expected from its 3 queries to 32 keys, received 2/,
  ],
  ['more keys than its blocks hold', { seqLens: int(3, 33) }, /seqLens\[1\].*received 33/],
  [
    'a block beyond the cache',
    { blockTables: int(3, 0, 0, 4) },
    /blockTables\[3\]: expected a block from 0 to 3, received 4/,
  ],
  [
    'a short block table',
    { blockTables: int(3, 0, 0) },
    /blockTables: expected length 4, received length 3/,
  ],
  [
    'logit rows out of order',
    { logitRows: int(3, 2) },
    /logitRows\[1\]: expected ascending rows below 4, received 2/,
  ],
  ['a logit row beyond the tokens', { logitRows: int(2, 4) }, /logitRows\[1\]/],
  ['a wanted tensor that does not exist', { wantTensors: [99] }, /wantTensors.*received 99/],
  [
    'a temperature that is not a number',
    sampling({ temperature: float(0, Number.NaN) }),
    /sampling.temperature\[1\].*received NaN/,
  ],
  ['a negative temperature', sampling({ temperature: float(-1, 0) }), /sampling.temperature\[0\]/],
  [
    'top-p above 1',
    sampling({ topP: float(1, 1.5) }),
    /sampling.topP\[1\]: expected a value from 0 to 1, received 1.5/,
  ],
  ['a negative top-k', sampling({ topK: int(-1, 0) }), /sampling.topK\[0\]/],
  ['min-p above 1', sampling({ minP: float(0, 2) }), /sampling.minP\[1\]/],
  [
    'a repetition penalty of 0',
    sampling({ repetitionPenalty: float(0, 1) }),
    /sampling.repetitionPenalty\[0\]/,
  ],
  [
    'an infinite presence penalty',
    sampling({ presencePenalty: float(0, Infinity) }),
    /sampling.presencePenalty\[1\]/,
  ],
  [
    'a seed for one row of two',
    sampling({ seed: new Uint32Array(2) }),
    /sampling.seed: expected length 4, received length 2/,
  ],
  [
    'seen ids beyond the vocabulary',
    sampling({ seenOffsets: int(0, 0, 1), seenIds: int(160), seenCounts: int(1) }),
    /sampling.seenIds\[0\]/,
  ],
  [
    'seen ids without counts',
    sampling({ seenOffsets: int(0, 0, 1), seenIds: int(1) }),
    /sampling.seenCounts/,
  ],
  [
    'seen offsets beyond the ids',
    sampling({ seenOffsets: int(0, 1, 2) }),
    /sampling.seenOffsets\[2\]: expected 0, received 2/,
  ],
  [
    'an infinite bias',
    sampling({ biasOffsets: int(0, 0, 1), biasIds: int(1), biasValues: float(Infinity) }),
    /sampling.biasValues\[0\]/,
  ],
  [
    'a mask of too few words',
    sampling({ allowedMask: new Uint32Array(9) }),
    /sampling.allowedMask: expected length 10, received length 9/,
  ],
  ['log-probabilities of -2 tokens', sampling({ logprobs: int(-2, 0) }), /sampling.logprobs\[0\]/],
];
for (const [what, change, message] of badSteps)
  test(`a step with ${what} is refused`, () => {
    assert.throws(() => validateStep(program, loadOptions(), step(change)), {
      code: 'KERNEL_INPUT_INVALID',
      message,
    });
  });

test('a step of more tokens or sequences than the options allow is refused', () => {
  assert.throws(() => validateStep(program, loadOptions({ maxTokens: 3 }), step()), {
    code: 'KERNEL_INPUT_INVALID',
    message: /at most 3 tokens, received 4/,
  });
  assert.throws(() => validateStep(program, loadOptions({ maxSequences: 1 }), step()), {
    code: 'KERNEL_INPUT_INVALID',
    message: /at most 1 sequences, received 2/,
  });
});
