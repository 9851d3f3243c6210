/** The golden files of test/fixtures/nvlm-tiny, read as its README describes them. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export const FIXTURES = join(import.meta.dirname, '..', 'fixtures');
export const PRESETS = ['a', 'b', 'c'] as const;
export type Preset = (typeof PRESETS)[number];

export interface GoldenCase {
  readonly id: string;
  readonly promptIds: readonly number[];
  /** (V) fp32 logits at the last prompt position. */
  readonly logits: Float32Array;
  readonly greedyIds: readonly number[];
  /** Steps before the first whose top-2 margin is below 2e-3. */
  readonly safeSteps: number;
  readonly top5Ids: readonly (readonly number[])[];
}

/** What is read of a case in cases.json; `input_ids` and `logits` name tensors. */
interface CaseFile {
  readonly id: string;
  readonly images: readonly unknown[];
  readonly input_ids: string;
  readonly logits: string;
  readonly greedy: {
    readonly ids: readonly number[];
    readonly safe_steps: number;
    readonly top5_ids: readonly (readonly number[])[];
  };
}

export interface Golden {
  readonly checkpointPath: string;
  readonly validIds: number;
  readonly vocabularyRows: number;
  readonly textCases: readonly GoldenCase[];
}

export function readGolden(preset: Preset): Golden {
  const checkpointPath = join(FIXTURES, 'nvlm-tiny', preset);
  const read = (name: string) =>
    JSON.parse(readFileSync(join(checkpointPath, 'golden', name), 'utf8'));
  const cases = read('cases.json');
  const table = read('tensors.json');
  const bytes = readFileSync(join(checkpointPath, 'golden', 'tensors.bin'));
  const slice = (name: string): ArrayBuffer => {
    const { offset, nbytes } = table[name];
    return Uint8Array.from(bytes.subarray(offset, offset + nbytes)).buffer;
  };
  const textCases = cases.cases
    .filter((entry: CaseFile) => entry.images.length === 0)
    .map(
      (entry: CaseFile): GoldenCase => ({
        id: entry.id,
        promptIds: [...new Int32Array(slice(entry.input_ids))],
        logits: new Float32Array(slice(entry.logits)),
        greedyIds: entry.greedy.ids,
        safeSteps: entry.greedy.safe_steps,
        top5Ids: entry.greedy.top5_ids,
      }),
    );
  return {
    checkpointPath,
    validIds: cases.valid_ids,
    vocabularyRows: cases.vocab_rows,
    textCases,
  };
}
