/** The sampling panel's fields as data, what the reader chose, and the request parameters that follow from it. */

export interface SamplingField {
  readonly name: string;
  readonly label: string;
  readonly hint: string;
  readonly min: number;
  readonly max: number;
  readonly step: number;
  /** Where the slider rests while the field is unset. */
  readonly neutral: number;
  /** Fields without a useful range get no slider. */
  readonly hasSlider: boolean;
}

/** Names are those of the Responses API and, below max_output_tokens, of vLLM's extra parameters. */
export const SAMPLING_FIELDS: readonly SamplingField[] = [
  {
    name: 'temperature',
    label: 'Temperature',
    hint: '0 always takes the likeliest token; higher is more varied.',
    min: 0,
    max: 2,
    step: 0.05,
    neutral: 1,
    hasSlider: true,
  },
  {
    name: 'top_p',
    label: 'Top p',
    hint: 'Keep the likeliest tokens that together reach this probability.',
    min: 0.01,
    max: 1,
    step: 0.01,
    neutral: 1,
    hasSlider: true,
  },
  {
    name: 'max_output_tokens',
    label: 'Longest answer',
    hint: 'In tokens; a token is about four letters.',
    min: 1,
    max: 1_000_000,
    step: 1,
    neutral: 512,
    hasSlider: false,
  },
  {
    name: 'top_k',
    label: 'Top k',
    hint: 'Keep only this many of the likeliest tokens.',
    min: 1,
    max: 200,
    step: 1,
    neutral: 200,
    hasSlider: true,
  },
  {
    name: 'min_p',
    label: 'Min p',
    hint: 'Drop tokens below this share of the likeliest one.',
    min: 0,
    max: 1,
    step: 0.01,
    neutral: 0,
    hasSlider: true,
  },
  {
    name: 'repetition_penalty',
    label: 'Repetition penalty',
    hint: 'Above 1 makes words already used less likely.',
    min: 0.5,
    max: 2,
    step: 0.05,
    neutral: 1,
    hasSlider: true,
  },
  {
    name: 'seed',
    label: 'Seed',
    hint: 'The same seed and settings give the same answer again.',
    min: 0,
    max: 2 ** 31 - 1,
    step: 1,
    neutral: 0,
    hasSlider: false,
  },
];

export interface Settings {
  systemPrompt: string;
  apiKey: string;
  /** Empty: the server's only or first model. */
  model: string;
  /** Only fields that the reader set; the rest is the model's default. */
  sampling: Record<string, number>;
}

export function defaultSettings(): Settings {
  return { systemPrompt: '', apiKey: '', model: '', sampling: {} };
}

export type FieldReading = { readonly value: number | null } | { readonly problem: string };

/** Reads what was typed: empty is unset (null); outside the range or not a number is a problem to show. */
export function readField(field: SamplingField, text: string): FieldReading {
  const trimmed = text.trim();
  if (trimmed === '') return { value: null };
  const value = Number(trimmed);
  if (!Number.isFinite(value))
    return { problem: 'Enter a number, or leave empty for the default.' };
  if (value < field.min || value > field.max)
    return { problem: `Enter a number from ${field.min} to ${field.max}.` };
  if (Number.isInteger(field.step) && !Number.isInteger(value))
    return { problem: 'Enter a whole number.' };
  return { value };
}

/** The request parameters that the settings ask for. */
export function requestParameters(settings: Settings): Record<string, unknown> {
  const instructions = settings.systemPrompt.trim();
  return {
    ...(settings.model === '' ? {} : { model: settings.model }),
    ...(instructions === '' ? {} : { instructions }),
    ...settings.sampling,
  };
}

/** Settings from storage; whatever does not fit falls back to its default. */
export function restoreSettings(stored: unknown): Settings {
  const settings = defaultSettings();
  if (typeof stored !== 'object' || stored === null) return settings;
  const { systemPrompt, apiKey, model, sampling } = stored as Record<string, unknown>;
  if (typeof systemPrompt === 'string') settings.systemPrompt = systemPrompt;
  if (typeof apiKey === 'string') settings.apiKey = apiKey;
  if (typeof model === 'string') settings.model = model;
  if (typeof sampling !== 'object' || sampling === null) return settings;
  for (const field of SAMPLING_FIELDS) {
    const reading = readField(
      field,
      String((sampling as Record<string, unknown>)[field.name] ?? ''),
    );
    if ('value' in reading && reading.value !== null) settings.sampling[field.name] = reading.value;
  }
  return settings;
}
