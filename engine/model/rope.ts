/**
 * Inverse frequencies of the rotary embedding with the scalings that configs ask for, each step rounded to fp32 where
 * Hugging Face transformers (modeling_rope_utils.py) holds fp32 tensors.
 */
import type { RopeSpec } from '#kernels/program.ts';
import type { ConfigReader } from './config.ts';

const { fround, floor, ceil, log, min, max, PI } = Math;

export interface Rope extends RopeSpec {
  /** Positions the scaling was made for. */
  readonly maxPositions: number;
}

const SUPPORTED = 'default, linear, llama3, yarn';

/**
 * The rotary table of `config`: `rope_parameters` (newer files) or `rope_theta` with `rope_scaling`. Other scalings
 * (dynamic, longrope, mrope, ...) and partial rotation are refused by name.
 */
export function readRope(config: ConfigReader, headSize: number): Rope {
  const parameters = config.section('rope_parameters');
  const scaling = parameters ?? config.section('rope_scaling');
  for (const source of [config, parameters]) {
    if ((source?.raw('partial_rotary_factor') ?? 1) !== 1) {
      source?.unsupported('partial_rotary_factor', '1');
    }
  }
  const theta = parameters?.raw('rope_theta') === undefined ? config : parameters;
  const base = theta.positive('rope_theta', 10000);
  const trained = config.count('max_position_embeddings');
  const plain = plainFrequencies(base, headSize);
  const typeKey = scaling?.raw('rope_type') === undefined ? 'type' : 'rope_type';
  const type = scaling?.text(typeKey, 'default') ?? 'default';
  if (scaling === undefined || type === 'default') {
    return { inverseFrequencies: plain, magnitude: 1, maxPositions: trained };
  }
  switch (type) {
    case 'linear':
      return linear(scaling, plain, trained);
    case 'llama3':
      return llama3(scaling, plain, trained);
    case 'yarn':
      return yarn(scaling, base, headSize, trained);
    case 'frequency_factors':
      return divided(scaling, plain, trained);
    default:
      return scaling.unsupported(typeKey, SUPPORTED);
  }
}

/** base ^ (2i / D) for i in 0 .. D/2 - 1, fp32. */
function powers(base: number, headSize: number): Float32Array {
  return Float32Array.from({ length: headSize / 2 }, (_, index) =>
    fround(base ** fround((2 * index) / headSize)),
  );
}

function plainFrequencies(base: number, headSize: number): Float32Array {
  return powers(base, headSize).map((power) => 1 / power);
}

function linear(scaling: ConfigReader, plain: Float32Array, trained: number): Rope {
  const factor = scaling.positive('factor');
  return {
    inverseFrequencies: plain.map((frequency) => frequency / factor),
    magnitude: 1,
    maxPositions: floor(trained * factor),
  };
}

/** The factors a GGUF file stores instead of llama3's parameters. */
function divided(scaling: ConfigReader, plain: Float32Array, trained: number): Rope {
  const factors = scaling.raw('factors');
  if (
    !Array.isArray(factors) ||
    factors.length !== plain.length ||
    !factors.every((factor) => typeof factor === 'number' && factor > 0)
  ) {
    return scaling.invalid('factors', `${plain.length} positive numbers`);
  }
  return {
    inverseFrequencies: plain.map((frequency, index) => frequency / factors[index]),
    magnitude: 1,
    maxPositions: trained,
  };
}

/** Long wavelengths are stretched by `factor`, short ones kept, those between blended. */
function llama3(scaling: ConfigReader, plain: Float32Array, trained: number): Rope {
  const factor = scaling.positive('factor');
  const lowFactor = scaling.positive('low_freq_factor');
  const highFactor = scaling.positive('high_freq_factor');
  const original = scaling.positive('original_max_position_embeddings', trained);
  const lowWavelength = original / lowFactor;
  const highWavelength = original / highFactor;
  const inverseFrequencies = plain.map((frequency) => {
    const wavelength = fround(fround(2 * PI) / frequency);
    if (wavelength < highWavelength) return frequency;
    if (wavelength > lowWavelength) return frequency / factor;
    const smooth = fround(
      fround(fround(original / wavelength) - lowFactor) / (highFactor - lowFactor),
    );
    const stretched = fround(fround(fround(1 - smooth) * frequency) / factor);
    return stretched + fround(smooth * frequency);
  });
  return { inverseFrequencies, magnitude: 1, maxPositions: trained };
}

/** YaRN (arXiv 2309.00071): a ramp over the dimensions between interpolated and kept frequencies. */
function yarn(scaling: ConfigReader, base: number, headSize: number, trained: number): Rope {
  const original = scaling.positive('original_max_position_embeddings', trained);
  const factor = scaling.positive('factor', trained / original);
  const rotationsToDimension = (rotations: number): number =>
    (headSize * log(original / (rotations * 2 * PI))) / (2 * log(base));
  const truncate = scaling.flag('truncate', true);
  const low = rotationsToDimension(scaling.positive('beta_fast', 32));
  const high = rotationsToDimension(scaling.positive('beta_slow', 1));
  const rampStart = max(truncate ? floor(low) : low, 0);
  const rampEnd = min(truncate ? ceil(high) : high, headSize - 1);
  // An empty ramp would divide by zero.
  const rampLength = rampEnd === rampStart ? 0.001 : rampEnd - rampStart;
  const inverseFrequencies = powers(base, headSize).map((power, index) => {
    const ramp = min(max(fround(fround(index - rampStart) / rampLength), 0), 1);
    const kept = fround(1 - ramp);
    const interpolated = fround(1 / fround(factor * power));
    return fround(interpolated * fround(1 - kept)) + fround(fround(1 / power) * kept);
  });
  return {
    inverseFrequencies,
    magnitude: yarnMagnitude(scaling, factor),
    maxPositions: max(trained, floor(original * factor)),
  };
}

function yarnMagnitude(scaling: ConfigReader, factor: number): number {
  if (scaling.raw('attention_factor') !== undefined) return scaling.positive('attention_factor');
  const magnitude = (scale: number): number => (factor <= 1 ? 1 : 0.1 * scale * log(factor) + 1);
  // 0 counts as absent, as in transformers.
  const numerator = scaling.raw('mscale') || undefined;
  const denominator = scaling.raw('mscale_all_dim') || undefined;
  if (numerator === undefined || denominator === undefined) return magnitude(1);
  return magnitude(scaling.positive('mscale')) / magnitude(scaling.positive('mscale_all_dim'));
}
