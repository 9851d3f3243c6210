import assert from 'node:assert/strict';
import { test } from 'node:test';
import { buildProgram } from '#engine/model/registry.ts';
import { openCheckpoint } from '#engine/weights/open.ts';
import { testBackends } from '../../support/backends.ts';
import { PRESETS, type Preset, readGolden } from '../../support/golden.ts';
import { assertCloseAtDivergence, runGreedy } from '../../support/greedy.ts';

/** Absolute, where rotary angles are computed in fp32: the fixtures' README. */
const LOGIT_TOLERANCE = 2e-4;

async function loadPreset(preset: Preset) {
  const golden = readGolden(preset);
  const { program } = buildProgram(await openCheckpoint(golden.checkpointPath), {
    validTokenCount: golden.validIds,
    part: 'language_model',
  });
  return { ...golden, program };
}

function largestDifference(a: Float32Array, b: Float32Array): number {
  assert.equal(a.length, b.length);
  return a.reduce((most, value, index) => Math.max(most, Math.abs(value - b[index]!)), 0);
}

for (const { name, create, skip } of testBackends()) {
  for (const preset of PRESETS) {
    test(`${name} computes the golden fp32 logits and greedy ids of preset ${preset}`, {
      skip,
    }, async () => {
      const { program, textCases } = await loadPreset(preset);
      assert.ok(textCases.length > 0);
      for (const { id, promptIds, logits, safeSteps, greedyIds } of textCases) {
        const run = await runGreedy(create(), program, {
          promptIds,
          steps: safeSteps,
          computeType: 'float32',
        });
        const difference = largestDifference(run.logits[0]!, logits);
        assert.ok(difference <= LOGIT_TOLERANCE, `${id}: logits differ by ${difference}`);
        assert.deepEqual(run.ids, greedyIds.slice(0, safeSteps), id);
      }
    });

    test(`${name} in bf16 leaves the golden ids of preset ${preset} only among close candidates`, {
      skip,
    }, async () => {
      const { program, textCases } = await loadPreset(preset);
      for (const golden of textCases) {
        const run = await runGreedy(create(), program, {
          promptIds: golden.promptIds,
          steps: golden.greedyIds.length,
          computeType: 'bfloat16',
          stop: (id, step) => id !== golden.greedyIds[step],
        });
        assertCloseAtDivergence(golden, run);
      }
    });
  }
}
