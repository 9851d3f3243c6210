/** Which model a checkpoint holds, and the program recorded from it. The table here is the extension point. */
import type { Checkpoint } from '#engine/weights/checkpoint.ts';
import type { Program, Rank } from '#kernels/program.ts';
import type { DecoderShape } from './blocks.ts';
import { type ConfigReader, createConfigReader } from './config.ts';
import { ModelError } from './errors.ts';
import { INTERN_VL } from './intern-vl.ts';
import { recordLlama } from './llama.ts';
import { NVLM_D } from './nvlm-d.ts';
import { recordQwen2 } from './qwen2.ts';
import { createRecorder, type Recorder } from './recorder.ts';
import {
  LANGUAGE_MODEL_PREFIX,
  recordVision,
  type VisionFamily,
  type VisionModel,
} from './vision.ts';

export interface RecordedModel {
  readonly program: Program;
  readonly shape: DecoderShape;
}

type RecordModel = (
  config: ConfigReader,
  recorder: Recorder,
  validTokenCount: number,
) => RecordedModel;

/** `model_type` of a config -> model. */
const MODELS: ReadonlyMap<string, RecordModel> = new Map([
  ['llama', recordLlama],
  ['qwen2', recordQwen2],
]);

/** `model_type` of a vision-language checkpoint, which holds one of the models above under a prefix -> its vision half. */
const VISION_FAMILIES: ReadonlyMap<string, VisionFamily> = new Map(
  [NVLM_D, INTERN_VL].map((family) => [family.name, family]),
);

export interface BuildOptions {
  /** Ids the tokenizer can decode: 0 .. validTokenCount - 1. */
  readonly validTokenCount: number;
  /** Longest sequence wanted, in tokens; default: all the model has positions for. */
  readonly maxModelLength?: number;
  /**
   * 'language_model': the text model inside a vision-language checkpoint, as if it were alone. Of a whole one, the program is that
   * model too, but takes image embeddings as input rows; `buildVision` records what makes them.
   */
  readonly part?: 'whole' | 'language_model';
  /** Which of the ranks that divide every layer the program is for; default: one has all. */
  readonly rank?: Rank;
}

export interface ModelDescription {
  readonly program: Program;
  /** `model_type` of what was recorded. */
  readonly modelType: string;
  /** Whether rows may come from images: `StepInputs.inputRows`. */
  readonly takesImages: boolean;
  /** Longest sequence: `maxModelLength`, or what the config gives with its rotary scaling. */
  readonly maxPositions: number;
  readonly shape: DecoderShape;
  /** Numbers in the rank's weights, tied ones once. */
  readonly parameterCount: number;
}

/**
 * Records the program of `checkpoint`. Throws ModelError: an architecture or feature without a model here, a config key
 * missing or impossible, tensors missing, unexpected or mis-shaped, a tokenizer larger than the vocabulary, a context
 * longer than the positions,
 * ranks that the layers cannot be divided between.
 */
export function buildProgram(checkpoint: Checkpoint, options: BuildOptions): ModelDescription {
  const whole = readWholeConfig(checkpoint);
  const takesImages = options.part !== 'language_model' && VISION_FAMILIES.has(whole.modelType);
  const isInner = takesImages || options.part === 'language_model';
  const { config, modelType } = isInner ? readLanguageConfig(checkpoint) : whole;
  const record = MODELS.get(modelType);
  if (record === undefined) return refuseArchitecture(checkpoint, modelType);
  const prefix = isInner ? LANGUAGE_MODEL_PREFIX : '';
  const recorder = createRecorder(checkpoint.tensors, prefix, checkpoint.path, {
    rank: options.rank,
    takesInputRows: takesImages,
  });
  const { program, shape } = record(config, recorder, options.validTokenCount);
  checkVocabulary(checkpoint, options.validTokenCount, shape.vocabularyRows);
  return {
    program,
    modelType,
    takesImages,
    maxPositions: checkLength(checkpoint, options.maxModelLength, shape.rope.maxPositions),
    shape,
    parameterCount: program.weights.reduce(
      (sum, weight) => sum + weight.shape.reduce((product, size) => product * size, 1),
      0,
    ),
  };
}

/**
 * Records encoder and projector of a vision-language checkpoint; undefined for a text model. Reads the position embeddings, and
 * the dummy heads to see whether they are zero. Throws ModelError as `buildProgram` does; tensors that belong to neither
 * half of the model are reported here.
 */
export function buildVision(checkpoint: Checkpoint, rank?: Rank): VisionModel | undefined {
  const { config, modelType } = readWholeConfig(checkpoint);
  const family = VISION_FAMILIES.get(modelType);
  if (family === undefined) return undefined;
  const recorder = createRecorder(checkpoint.tensors, '', checkpoint.path, { rank });
  return recordVision(config, readLanguageConfig(checkpoint).config, recorder, family);
}

function readWholeConfig(checkpoint: Checkpoint): { config: ConfigReader; modelType: string } {
  const config = createConfigReader(checkpoint.config, `${checkpoint.path}: config`);
  return { config, modelType: config.text('model_type') };
}

/** Older files name the text model's config `llm_config`, newer ones `text_config`. */
function readLanguageConfig(checkpoint: Checkpoint): { config: ConfigReader; modelType: string } {
  const whole = createConfigReader(checkpoint.config, `${checkpoint.path}: config`);
  const config =
    whole.section('llm_config') ??
    whole.section('text_config') ??
    whole.invalid('llm_config', "an object, here or as 'text_config'");
  return { config, modelType: config.text('model_type') };
}

function refuseArchitecture(checkpoint: Checkpoint, modelType: string): never {
  throw new ModelError(
    'MODEL_ARCHITECTURE_UNSUPPORTED',
    `${checkpoint.path}: model_type '${modelType}' is not supported; supported: ` +
      `${[...MODELS.keys()].join(', ')}, alone or inside ${[...VISION_FAMILIES.keys()].join(', ')}`,
  );
}

function checkVocabulary(checkpoint: Checkpoint, validTokenCount: number, rows: number): void {
  if (validTokenCount >= 1 && validTokenCount <= rows) return;
  throw new ModelError(
    'MODEL_VOCABULARY_MISMATCH',
    `${checkpoint.path}: the tokenizer has ${validTokenCount} ids, the embedding ${rows} rows; ` +
      'use the tokenizer files that belong to these weights',
  );
}

function checkLength(
  checkpoint: Checkpoint,
  wanted: number | undefined,
  maxPositions: number,
): number {
  if (wanted === undefined) return maxPositions;
  if (Number.isSafeInteger(wanted) && wanted >= 1 && wanted <= maxPositions) return wanted;
  throw new ModelError(
    'MODEL_LENGTH_UNSUPPORTED',
    `${checkpoint.path}: a context of ${wanted} tokens was asked for, the model has ` +
      `${maxPositions} positions; ask for 1 to ${maxPositions}`,
  );
}
