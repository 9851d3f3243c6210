/** Writes checkpoint files byte by byte, so that tests can break any one of them. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';

/** A directory that is removed after the test. */
export function temporaryDirectory(context: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'nvlm-test-'));
  context.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

export interface SafetensorsEntry {
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly data_offsets: readonly [number, number];
}

/** A file from its header's text and its data; `headerLength` overrides the announced length. */
export function safetensorsBytes(
  header: string | Record<string, unknown>,
  data: Uint8Array | number = 0,
  headerLength?: bigint,
): Buffer {
  const json = Buffer.from(typeof header === 'string' ? header : JSON.stringify(header));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(headerLength ?? BigInt(json.length));
  return Buffer.concat([prefix, json, typeof data === 'number' ? Buffer.alloc(data) : data]);
}

/** fp32 tensors of zeros one after the other, by name and shape. */
export function safetensorsOf(shapes: Readonly<Record<string, readonly number[]>>): Buffer {
  const header: Record<string, SafetensorsEntry> = {};
  let end = 0;
  for (const [name, shape] of Object.entries(shapes)) {
    const begin = end;
    end += 4 * shape.reduce((product, size) => product * size, 1);
    header[name] = { dtype: 'F32', shape, data_offsets: [begin, end] };
  }
  return safetensorsBytes(header, end);
}

/** One GGUF value: the type number and its bytes. */
export interface GgufBytes {
  readonly type: number;
  readonly bytes: Buffer;
}

export const u32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
};
export const u64 = (value: number | bigint): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
};
export const text = (value: string | Buffer): Buffer => {
  const bytes = Buffer.from(value as string);
  return Buffer.concat([u64(bytes.length), bytes]);
};
export const ggufUint32 = (value: number): GgufBytes => ({ type: 4, bytes: u32(value) });
export const ggufBool = (value: boolean): GgufBytes => ({
  type: 7,
  bytes: Buffer.from([value ? 1 : 0]),
});
export const ggufFloat = (value: number): GgufBytes => {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return { type: 6, bytes };
};
export const ggufString = (value: string): GgufBytes => ({ type: 8, bytes: text(value) });
export const ggufArray = (
  type: number,
  items: readonly Buffer[],
  count = items.length,
): GgufBytes => ({
  type: 9,
  bytes: Buffer.concat([u32(type), u64(count), ...items]),
});
export const ggufStrings = (items: readonly string[]): GgufBytes => ggufArray(8, items.map(text));

export interface GgufTensor {
  readonly name: string | Buffer;
  /** Outermost first, as everywhere else; the file holds the reverse. */
  readonly shape: readonly (number | bigint)[];
  readonly type: number;
  readonly offset: number | bigint;
}

/** A GGUF file; counts and version may be overridden. */
export function ggufBytes(parts: {
  readonly metadata?: readonly (readonly [string | Buffer, GgufBytes])[];
  readonly tensors?: readonly GgufTensor[];
  readonly dataBytes?: number;
  readonly version?: number;
  readonly metadataCount?: number | bigint;
  readonly tensorCount?: number | bigint;
}): Buffer {
  const { metadata = [], tensors = [] } = parts;
  const head = Buffer.concat([
    Buffer.from('GGUF'),
    u32(parts.version ?? 3),
    u64(parts.tensorCount ?? tensors.length),
    u64(parts.metadataCount ?? metadata.length),
    ...metadata.flatMap(([key, value]) => [text(key), u32(value.type), value.bytes]),
    ...tensors.flatMap(({ name, shape, type, offset }) => [
      text(name),
      u32(shape.length),
      ...[...shape].reverse().map(u64),
      u32(type),
      u64(offset),
    ]),
  ]);
  const padding = (32 - (head.length % 32)) % 32;
  return Buffer.concat([head, Buffer.alloc(padding + (parts.dataBytes ?? 0))]);
}

/** Hidden 8, 2 heads of 4, 1 kv head, MLP 16, 1 layer, 6 tokens: the smallest whole llama. All tensors fp32. */
export const TINY_GGUF_SHAPES: Readonly<Record<string, readonly number[]>> = {
  'token_embd.weight': [6, 8],
  'blk.0.attn_norm.weight': [8],
  'blk.0.attn_q.weight': [8, 8],
  'blk.0.attn_k.weight': [4, 8],
  'blk.0.attn_v.weight': [4, 8],
  'blk.0.attn_output.weight': [8, 8],
  'blk.0.ffn_norm.weight': [8],
  'blk.0.ffn_gate.weight': [16, 8],
  'blk.0.ffn_up.weight': [16, 8],
  'blk.0.ffn_down.weight': [8, 16],
  'output_norm.weight': [8],
};

export function tinyGgufMetadata(architecture = 'llama'): Map<string, GgufBytes> {
  return new Map([
    ['general.architecture', ggufString(architecture)],
    [`${architecture}.block_count`, ggufUint32(1)],
    [`${architecture}.context_length`, ggufUint32(64)],
    [`${architecture}.embedding_length`, ggufUint32(8)],
    [`${architecture}.feed_forward_length`, ggufUint32(16)],
    [`${architecture}.attention.head_count`, ggufUint32(2)],
    [`${architecture}.attention.head_count_kv`, ggufUint32(1)],
    [`${architecture}.attention.layer_norm_rms_epsilon`, ggufFloat(1e-5)],
    ['tokenizer.ggml.model', ggufString('gpt2')],
    ['tokenizer.ggml.pre', ggufString('smollm')],
    ['tokenizer.ggml.tokens', ggufStrings(['<|end|>', 'a', 'b', 'ab', '<|pad|>', '[PAD5]'])],
    ['tokenizer.ggml.token_type', ggufArray(5, [3, 1, 1, 1, 4, 5].map(u32))],
    ['tokenizer.ggml.merges', ggufStrings(['a b'])],
    ['tokenizer.ggml.eos_token_id', ggufUint32(0)],
  ]);
}

/** The bytes of a tiny GGUF model; `shapes` and `metadata` replace the defaults. */
export function tinyGgufBytes(
  metadata: ReadonlyMap<string, GgufBytes> = tinyGgufMetadata(),
  shapes: Readonly<Record<string, readonly number[]>> = TINY_GGUF_SHAPES,
): Buffer {
  let end = 0;
  const tensors = Object.entries(shapes).map(([name, shape]): GgufTensor => {
    const offset = end;
    end += Math.ceil((4 * shape.reduce((product, size) => product * size, 1)) / 32) * 32;
    return { name, shape, type: 0, offset };
  });
  return ggufBytes({ metadata: [...metadata], tensors, dataBytes: end });
}

/** Writes `bytes` as `name` below `directory` and returns the path. */
export function writeBytes(directory: string, name: string, bytes: Uint8Array | string): string {
  const path = join(directory, name);
  writeFileSync(path, bytes);
  return path;
}
