import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Backend } from '#kernels/backend.ts';
import { createReferenceBackend } from '#kernels/reference/backend.ts';
import { adjustedLogits, candidates } from '#kernels/reference/sample.ts';
import type { SamplingInputs, StepOutputs } from '#kernels/step.ts';
import { createRandom, type Random } from '../support/random.ts';
import { greedySampling } from '../support/steps.ts';
import {
  assertClose,
  loadOptions,
  OpRecorder,
  plainStep,
  programOf,
  withRunner,
} from './harness.ts';
import { allSubjects, cpuSubjects } from './subjects.ts';

/** Samples each row of logits (rows, V) in one step, once per entry of `samplings`. */
async function sampleRows(
  backend: Backend,
  logits: Float32Array,
  vocabularyRows: number,
  validTokenCount: number,
  samplings: readonly SamplingInputs[],
  threads = 1,
): Promise<StepOutputs[]> {
  const rows = logits.length / vocabularyRows;
  const record = new OpRecorder();
  const x = record.input('x', vocabularyRows, logits);
  const chosen = record.tensor('logits', vocabularyRows, 'logitRows');
  record.op({ op: 'gatherRows', x, out: chosen });
  record.op({ op: 'sample', logits: chosen });
  const program = programOf(record, { vocabularyRows, validTokenCount });
  const logitRows = Int32Array.from({ length: rows }, (_, row) => row);
  const load = loadOptions({ maxTokens: rows, maxPositions: 1 });
  return withRunner(
    backend,
    program,
    load,
    async (runner) => {
      const outputs: StepOutputs[] = [];
      for (const sampling of samplings)
        outputs.push(await runner.run(plainStep(rows, { logitRows, sampling, wantLogits: true })));
      return outputs;
    },
    threads,
  );
}

/** Random options for every row: each stage is off in about half of them. */
function randomSampling(random: Random, rows: number, vocabularyRows: number): SamplingInputs {
  const each = <T>(make: () => T): T[] => Array.from({ length: rows }, make);
  const half = (off: number, on: () => number): number => (random.uniform() < 0.5 ? off : on());
  const words = Math.ceil(vocabularyRows / 32);
  const ragged = (most: number): { offsets: Int32Array; ids: Int32Array } => {
    const counts = each(() => half(0, () => random.integer(1, most)));
    const offsets = [0];
    const ids: number[] = [];
    for (const count of counts) {
      // Distinct ids: a seen id stands once with its count.
      const row = new Set(
        Array.from({ length: count }, () => random.integer(0, vocabularyRows - 1)),
      );
      ids.push(...row);
      offsets.push(ids.length);
    }
    return { offsets: Int32Array.from(offsets), ids: Int32Array.from(ids) };
  };
  const seen = ragged(40);
  const bias = ragged(8);
  return greedySampling(rows, {
    temperature: Float32Array.from(each(() => half(1, () => random.pick([0, 0.05, 0.7, 1.5, 5])))),
    topK: Int32Array.from(each(() => half(0, () => random.integer(1, 2 * vocabularyRows)))),
    topP: Float32Array.from(each(() => half(1, random.uniform))),
    minP: Float32Array.from(each(() => half(0, () => random.uniform() ** 3))),
    repetitionPenalty: Float32Array.from(each(() => half(1, () => 0.5 + random.uniform()))),
    presencePenalty: Float32Array.from(each(() => half(0, random.normal))),
    frequencyPenalty: Float32Array.from(each(() => half(0, random.normal))),
    seed: Uint32Array.from({ length: 2 * rows }, () => random.integer(0, 2 ** 32 - 1)),
    position: Uint32Array.from(each(() => random.integer(0, 5000))),
    seenOffsets: seen.offsets,
    seenIds: seen.ids,
    seenCounts: seen.ids.map(() => random.integer(0, 4)),
    biasOffsets: bias.offsets,
    biasIds: bias.ids,
    biasValues: Float32Array.from(bias.ids, () =>
      random.uniform() < 0.2 ? -Infinity : 4 * random.normal(),
    ),
    logprobs: Int32Array.from(each(() => random.integer(-1, Math.min(6, vocabularyRows)))),
    ...(random.uniform() < 0.5 && {
      allowedMask: Uint32Array.from({ length: rows * words }, () =>
        half(0xffffffff, () => random.integer(0, 2 ** 32 - 1)),
      ),
    }),
  });
}

for (const subject of cpuSubjects()) {
  // Ids must be equal, not nearly so: both sides keep fp32 logits through bias and penalties with the same roundings and sum the
  // weights of likely ids in double; kernels may sum the unlikely rest in fp32. So they could differ only where u, a multiple
  // of 2^-24, lies within about 1e-8 of a border, which none of these seeded draws does.
  test(`sampling on ${subject.name} draws the reference's ids under random options`, {
    skip: subject.skip,
  }, async () => {
    for (const [seed, vocabularyRows, padding, spread] of [
      [1, 1, 0, 1],
      [2, 33, 2, 1],
      [3, 1000, 17, 3],
      [4, 5003, 0, 0.3],
      [5, 64, 0, 8],
    ] as const) {
      const random = createRandom(seed);
      const rows = 24;
      const logits = Float32Array.from(
        { length: rows * vocabularyRows },
        () => spread * random.normal(),
      );
      // Some rows are full of ties.
      for (let i = 0; i < vocabularyRows * 4; i++) logits[i] = Math.round(logits[i]!);
      const samplings = Array.from({ length: 6 }, () =>
        randomSampling(random, rows, vocabularyRows),
      );
      const valid = vocabularyRows - padding;
      const expected = await sampleRows(
        createReferenceBackend(),
        logits,
        vocabularyRows,
        valid,
        samplings,
      );
      for (const threads of [1, 2]) {
        const actual = await sampleRows(
          subject.create(),
          logits,
          vocabularyRows,
          valid,
          samplings,
          threads,
        );
        for (const [i, outputs] of actual.entries()) {
          const context = `seed ${seed}, vocabulary ${vocabularyRows}, sampling ${i}, threads ${threads}`;
          assert.deepEqual(outputs.tokenIds, expected[i]!.tokenIds, context);
          assert.deepEqual(outputs.logits, logits, `${context}: logits are the raw ones`);
          assert.equal(outputs.maxTop, expected[i]!.maxTop, context);
          assert.deepEqual(outputs.topIds, expected[i]!.topIds, `${context}: top ids`);
          for (const name of ['logprobs', 'topLogprobs'] as const) {
            const numbers = (values: Float32Array): Float32Array =>
              values.filter((value) => !Number.isNaN(value));
            const [got, wanted] = [outputs[name], expected[i]![name]];
            assert.deepEqual(
              got.map((v) => +Number.isNaN(v)),
              wanted.map((v) => +Number.isNaN(v)),
              `${context}: ${name} asked for`,
            );
            // One rounding to fp32 of a difference taken in double.
            assertClose(
              numbers(got),
              numbers(wanted),
              numbers(wanted).map((v) => 2 ** -22 * Math.abs(v)),
              `${context}: ${name}`,
            );
          }
        }
      }
    }
  });

  test(`hostile logits on ${subject.name} give the reference's ids`, {
    skip: subject.skip,
  }, async () => {
    const logit = fc.oneof(
      {
        weight: 3,
        arbitrary: fc.constantFrom(0, -0, 1, -1, Number.NaN, -Infinity, 3e38, -3e38, 1e-45),
      },
      { weight: 3, arbitrary: fc.float({ min: -30, max: 30 }) },
    );
    const row = fc.record({
      logits: fc.array(logit, { minLength: 40, maxLength: 40 }),
      temperature: fc.constantFrom(0, 1e-38, 0.5, 1, 1e30),
      topK: fc.constantFrom(0, 1, 3, 40, 41),
      topP: fc.constantFrom(0, 0.3, 0.999, 1),
      minP: fc.constantFrom(0, 0.1, 1),
      position: fc.nat(),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(row, { minLength: 1, maxLength: 12 }), async (rows) => {
        const logits = Float32Array.from(rows.flatMap((each) => each.logits));
        const sampling = greedySampling(rows.length, {
          temperature: Float32Array.from(rows, (each) => each.temperature),
          topK: Int32Array.from(rows, (each) => each.topK),
          topP: Float32Array.from(rows, (each) => each.topP),
          minP: Float32Array.from(rows, (each) => each.minP),
          position: Uint32Array.from(rows, (each) => each.position),
          logprobs: Int32Array.from(rows, () => 2),
        });
        const [expected] = await sampleRows(createReferenceBackend(), logits, 40, 38, [sampling]);
        const [actual] = await sampleRows(subject.create(), logits, 40, 38, [sampling]);
        assert.deepEqual(actual!.tokenIds, expected!.tokenIds);
        assert.deepEqual(actual!.topIds, expected!.topIds);
      }),
      { numRuns: 60 },
    );
  });
}

for (const subject of allSubjects()) {
  test(`a row with nothing left to draw gives -1 on ${subject.name}, and its neighbours are drawn`, {
    skip: subject.skip,
  }, async () => {
    const nan = Number.NaN;
    const logits = Float32Array.of(nan, nan, nan, 9, 1, 2, 3, 9, 1, 2, 3, 9);
    for (const temperature of [0, 1]) {
      const sampling = greedySampling(3, {
        temperature: new Float32Array(3).fill(temperature),
        logprobs: Int32Array.of(1, 1, 1),
        allowedMask: Uint32Array.of(0xf, 0b1000, 0b0010),
      });
      const [outputs] = await sampleRows(subject.create(), logits, 4, 3, [sampling]);
      assert.deepEqual([...outputs!.tokenIds], [-1, -1, 1]);
      assert.ok(Number.isNaN(outputs!.logprobs[0]) && Number.isNaN(outputs!.logprobs[1]));
      assert.deepEqual([...outputs!.topIds], [-1, 2, 2]);
    }
  });

  test(`draws on ${subject.name} follow the exact probabilities over many seeds`, {
    skip: subject.skip,
  }, async () => {
    const valid = 10;
    const vocabularyRows = 12;
    const rows = 500;
    const row = Float32Array.from({ length: vocabularyRows }, (_, id) => Math.sin(3 * id) * 2);
    const logits = Float32Array.from(
      { length: rows * vocabularyRows },
      (_, i) => row[i % vocabularyRows]!,
    );
    for (const options of [
      { temperature: 1, topK: 0, topP: 1, minP: 0 },
      { temperature: 0.7, topK: 7, topP: 0.9, minP: 0.05 },
    ]) {
      const fill = (value: number): Float32Array => new Float32Array(rows).fill(value);
      const samplings = Array.from({ length: 40 }, (_, step) =>
        greedySampling(rows, {
          temperature: fill(options.temperature),
          topK: new Int32Array(rows).fill(options.topK),
          topP: fill(options.topP),
          minP: fill(options.minP),
          seed: Uint32Array.from({ length: 2 * rows }, (_, i) => (i % 2 === 0 ? i : 3)),
          position: new Uint32Array(rows).fill(step),
        }),
      );
      const steps = await sampleRows(subject.create(), logits, vocabularyRows, valid, samplings);
      const counts = new Map<number, number>();
      for (const { tokenIds } of steps)
        for (const id of tokenIds) counts.set(id, (counts.get(id) ?? 0) + 1);
      const draws = rows * samplings.length;
      const kept = candidates(adjustedLogits(row, samplings[0]!, 0, valid), {
        ...options,
        temperature: Math.fround(options.temperature),
        topP: Math.fround(options.topP),
        minP: Math.fround(options.minP),
      });
      const mass = kept.reduce((sum, { weight }) => sum + weight, 0);
      const wrong = [...counts.keys()].filter(
        (id) => !kept.some((candidate) => candidate.id === id),
      );
      assert.deepEqual(wrong, [], 'ids that no draw can give');
      const chiSquare = kept.reduce((sum, { id, weight }) => {
        const wanted = (draws * weight) / mass;
        return sum + ((counts.get(id) ?? 0) - wanted) ** 2 / wanted;
      }, 0);
      // Seeds are fixed, so this is one sample; 0.999 of all samples lie below 27.9 with nine degrees of freedom.
      assert.ok(chiSquare < 27.9, `chi-square ${chiSquare} with ${kept.length} candidates`);
    }
  });
}
