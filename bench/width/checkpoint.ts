/** Checkpoints of a few layers at NVLM-D-72B's widths, with random bf16 weights, as safetensors files. */
import { closeSync, existsSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { Checkpoint } from '#engine/weights/checkpoint.ts';
import { readSafetensors } from '#engine/weights/safetensors.ts';
import { bfloat16Bits } from '../../test/support/weights.ts';

/** How the values of a tensor are drawn: normal with a deviation, about a mean. */
interface Drawn {
  readonly shape: readonly number[];
  readonly deviation: number;
  readonly mean?: number;
  /** Rows of each of three equal parts, and columns, that are not zero: InternViT's dummy heads. */
  readonly realRows?: number;
  readonly realColumns?: number;
}

type Config = Readonly<Record<string, unknown>>;
export const section = (config: Config, name: string): Config => config[name] as Config;
export const size = (config: Config, name: string): number => config[name] as number;

const published = JSON.parse(
  readFileSync(join(import.meta.dirname, '../../examples/nvlm-d-72b/config.json'), 'utf8'),
) as Config;

/** Dummy heads that pad the 25 real ones to 32. */
const dummyHeads = 7;
const vocabularyRows = 256;

export const visionConfig: Config = {
  ...published,
  vision_config: { ...section(published, 'vision_config'), num_hidden_layers: 1 },
  // The projector is not measured: as narrow as it may be.
  llm_config: { ...section(published, 'llm_config'), hidden_size: 8, intermediate_size: 8 },
};

export const languageConfig: Config = {
  ...section(published, 'llm_config'),
  num_hidden_layers: 2,
  vocab_size: vocabularyRows,
  tie_word_embeddings: true,
};

const matrix = (rows: number, columns: number): Drawn => ({
  shape: [rows, columns],
  deviation: columns ** -0.5,
});
const vector = (length: number, mean: number, deviation: number): Drawn => ({
  shape: [length],
  deviation,
  mean,
});

function visionTensors(): Map<string, Drawn> {
  const config = section(visionConfig, 'vision_config');
  const width = size(config, 'hidden_size');
  const inner = size(config, 'intermediate_size');
  const real = width;
  const stored = (width / size(config, 'num_attention_heads')) * dummyHeads + real;
  const patch = size(config, 'patch_size');
  const positions = (size(config, 'image_size') / patch) ** 2 + 1;
  const at = 'vision_model.encoder.layers.0.';
  return new Map<string, Drawn>([
    ['vision_model.embeddings.class_embedding', { shape: [1, 1, width], deviation: 1 }],
    [
      'vision_model.embeddings.patch_embedding.weight',
      { shape: [width, 3, patch, patch], deviation: (3 * patch * patch) ** -0.5 },
    ],
    ['vision_model.embeddings.patch_embedding.bias', vector(width, 0, 0.1)],
    ['vision_model.embeddings.position_embedding', { shape: [1, positions, width], deviation: 1 }],
    [`${at}norm1.weight`, vector(width, 1, 0.1)],
    [`${at}norm2.weight`, vector(width, 1, 0.1)],
    [`${at}attn.qkv.weight`, { ...matrix(3 * stored, width), realRows: real }],
    [`${at}attn.q_norm.weight`, vector(stored, 1, 0.1)],
    [`${at}attn.k_norm.weight`, vector(stored, 1, 0.1)],
    [`${at}attn.proj.weight`, { ...matrix(width, stored), realColumns: real }],
    [`${at}attn.proj.bias`, vector(width, 0, 0.1)],
    [`${at}mlp.fc1.weight`, matrix(inner, width)],
    [`${at}mlp.fc1.bias`, vector(inner, 0, 0.1)],
    [`${at}mlp.fc2.weight`, matrix(width, inner)],
    [`${at}mlp.fc2.bias`, vector(width, 0, 0.1)],
    [`${at}ls1`, vector(width, 0, 0.5)],
    [`${at}ls2`, vector(width, 0, 0.5)],
    ['mlp1.0.weight', vector(4 * width, 1, 0.1)],
    ['mlp1.0.bias', vector(4 * width, 0, 0.1)],
    ['mlp1.1.weight', matrix(8, 4 * width)],
    ['mlp1.3.weight', matrix(8, 8)],
  ]);
}

function languageTensors(): Map<string, Drawn> {
  const width = size(languageConfig, 'hidden_size');
  const inner = size(languageConfig, 'intermediate_size');
  const heads = size(languageConfig, 'num_attention_heads');
  const kvWidth = (width / heads) * size(languageConfig, 'num_key_value_heads');
  const tensors = new Map<string, Drawn>([
    ['model.embed_tokens.weight', { shape: [vocabularyRows, width], deviation: 1 }],
    ['model.norm.weight', vector(width, 1, 0.1)],
  ]);
  for (let layer = 0; layer < size(languageConfig, 'num_hidden_layers'); layer++) {
    const add = (name: string, drawn: Drawn) => tensors.set(`model.layers.${layer}.${name}`, drawn);
    add('input_layernorm.weight', vector(width, 1, 0.1));
    add('post_attention_layernorm.weight', vector(width, 1, 0.1));
    add('self_attn.q_proj.weight', matrix(width, width));
    add('self_attn.k_proj.weight', matrix(kvWidth, width));
    add('self_attn.v_proj.weight', matrix(kvWidth, width));
    add('self_attn.q_proj.bias', vector(width, 0, 0.1));
    add('self_attn.k_proj.bias', vector(kvWidth, 0, 0.1));
    add('self_attn.v_proj.bias', vector(kvWidth, 0, 0.1));
    add('self_attn.o_proj.weight', matrix(width, width));
    add('mlp.gate_proj.weight', matrix(inner, width));
    add('mlp.up_proj.weight', matrix(inner, width));
    add('mlp.down_proj.weight', matrix(width, inner));
  }
  return tensors;
}

/** A checkpoint of one of the two halves, its file written when it is not there yet. */
export function layersCheckpoint(half: 'vision' | 'language', directory: string): Checkpoint {
  const path = join(directory, `${half}.safetensors`);
  const tensors = half === 'vision' ? visionTensors() : languageTensors();
  if (!existsSync(path)) writeSafetensors(path, tensors);
  return {
    format: 'huggingface',
    path,
    config: half === 'vision' ? visionConfig : languageConfig,
    tensors: readSafetensors(path),
    tokenizer: {} as Checkpoint['tokenizer'],
    chatTemplate: undefined,
    bosToken: undefined,
    eosToken: undefined,
    eosTokenIds: [],
    generationDefaults: {},
  };
}

function writeSafetensors(path: string, tensors: ReadonlyMap<string, Drawn>): void {
  let offset = 0;
  const header: Record<string, unknown> = {};
  for (const [name, { shape }] of tensors) {
    const end = offset + 2 * shape.reduce((product, n) => product * n, 1);
    header[name] = { dtype: 'BF16', shape, data_offsets: [offset, end] };
    offset = end;
  }
  const text = Buffer.from(JSON.stringify(header));
  const padded = Buffer.concat([text, Buffer.alloc((8 - (text.length % 8)) % 8, ' ')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  const file = openSync(`${path}.new`, 'w');
  try {
    writeSync(file, length);
    writeSync(file, padded);
    let state = 0x9e3779b9;
    const next = (): number => {
      // Marsaglia's xorshift32.
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      return state >>> 0;
    };
    for (const drawn of tensors.values()) writeTensor(file, drawn, next);
  } finally {
    closeSync(file);
  }
  renameSync(`${path}.new`, path);
}

const standardNormals = (() => {
  let state = 12345;
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state + 0.5) / 2 ** 32;
  };
  return Float64Array.from(
    { length: 2 ** 16 },
    () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform()),
  );
})();

/** Draws from a table of normals: billions of values take seconds, not minutes. */
function writeTensor(file: number, drawn: Drawn, next: () => number): void {
  const { shape, deviation, mean = 0 } = drawn;
  const table = Uint16Array.from(standardNormals, (x) => bfloat16Bits(mean + deviation * x));
  const columns = shape.length > 1 ? (shape.at(-1) as number) : 1;
  const rows = shape.reduce((product, n) => product * n, 1) / columns;
  const realColumns = drawn.realColumns ?? columns;
  const part = rows / 3;
  const rowsAtOnce = Math.max(1, Math.floor(2 ** 22 / columns));
  for (let first = 0; first < rows; first += rowsAtOnce) {
    const count = Math.min(rowsAtOnce, rows - first);
    const values = new Uint16Array(count * columns);
    for (let row = 0; row < count; row++) {
      if (drawn.realRows !== undefined && (first + row) % part >= drawn.realRows) continue;
      const end = row * columns + realColumns;
      for (let i = row * columns; i < end; i++) values[i] = table[next() >>> 16] as number;
    }
    writeSync(file, values);
  }
}
