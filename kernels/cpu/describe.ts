/** Flattens a validated program into the plain object that kernels/src/read_spec.cc reads. */
import type { LoadOptions } from '../backend.ts';
import {
  ATTENTION_PARTITION,
  type CacheType,
  type Op,
  type Program,
  type WeightSource,
} from '../program.ts';
import { readBytes } from '../reference/weights.ts';
import { CACHE_TYPES, COMPUTE_TYPES, OPS, ROW_KINDS, STORAGE_TYPES } from './addon.ts';

const nothing = new Float32Array(0);

function describeWeight({ name, type, shape, bytes: source, rowOrder }: WeightSource): object {
  // The native side reads whole rows.
  const bytes = 'rows' in source ? { data: readBytes(name, source) } : source;
  const rows = shape.length === 2 ? shape[0]! : 1;
  return {
    name,
    type: STORAGE_TYPES.indexOf(type),
    rows,
    columns: shape.at(-1)!,
    rotaryHead: rowOrder?.headSize ?? 0,
    path: 'path' in bytes ? bytes.path : '',
    offset: 'path' in bytes ? bytes.offset : 0,
    byteLength: 'path' in bytes ? bytes.byteLength : bytes.data.byteLength,
    data: 'path' in bytes ? undefined : bytes.data,
  };
}

function describeOp(op: Op): object {
  const flat = {
    kind: OPS.indexOf(op.op),
    x: -1,
    out: -1,
    residual: -1,
    weight: -1,
    layer: 0,
    eps: 0,
    scale: 0,
    magnitude: 1,
    siluMul: false,
    gelu: false,
    causal: true,
    add: false,
    bias: -1,
    outputScale: -1,
    meanWidth: 0,
    offsets: [0] as readonly number[],
    weights: [] as readonly number[],
    biases: [] as readonly number[],
    inverseFrequencies: nothing,
  };
  switch (op.op) {
    case 'embedding':
      return { ...flat, weight: op.weight, out: op.out };
    case 'rmsNorm':
      return {
        ...flat,
        x: op.x,
        residual: op.residual ?? -1,
        weight: op.weight,
        eps: op.eps,
        out: op.out,
      };
    case 'linear':
      return {
        ...flat,
        x: op.x,
        weights: op.weights,
        biases: op.biases ?? [],
        siluMul: op.epilogue === 'siluMul',
        gelu: op.epilogue === 'gelu',
        outputScale: op.scale ?? -1,
        residual: op.residual ?? -1,
        out: op.out,
      };
    case 'ropeAndCache':
      return {
        ...flat,
        x: op.qkv,
        layer: op.layer,
        inverseFrequencies: op.rope?.inverseFrequencies ?? nothing,
        magnitude: op.rope?.magnitude ?? 1,
      };
    case 'attention':
      return {
        ...flat,
        x: op.qkv,
        layer: op.layer,
        scale: op.scale,
        causal: op.causal ?? true,
        out: op.out,
      };
    case 'gatherRows':
      return { ...flat, x: op.x, offsets: op.offsets ?? [0], out: op.out };
    case 'input':
      return { ...flat, out: op.out };
    case 'scatterRows':
      return { ...flat, x: op.x, add: op.add, out: op.out };
    case 'layerNorm':
      return { ...flat, x: op.x, weight: op.weight, bias: op.bias, eps: op.eps, out: op.out };
    case 'queryKeyNorm':
      return {
        ...flat,
        x: op.qkv,
        weights: [op.queryWeight, op.keyWeight],
        meanWidth: op.meanWidth,
        eps: op.eps,
      };
    case 'sample':
      return { ...flat, x: op.logits };
    case 'queryKeySquares':
    case 'allReduce':
    case 'allGather':
      throw new Error(`${op.op} is in the programs of ranks only, which cpu.ts refuses`);
  }
}

export function describeProgram(
  program: Program,
  options: LoadOptions,
  cacheType: CacheType,
): object {
  return {
    weights: program.weights.map(describeWeight),
    tensors: program.tensors.map(({ rows, width }) => ({
      rows: ROW_KINDS.indexOf(rows),
      width,
    })),
    ops: program.ops.map(describeOp),
    heads: program.heads,
    layers: program.cache.layers,
    kvHeads: program.cache.kvHeads,
    headSize: program.cache.headSize,
    vocabularyRows: program.vocabularyRows,
    validTokens: program.validTokenCount,
    partition: ATTENTION_PARTITION,
    blockSize: options.cache.blockSize,
    blockCount: options.cache.blockCount,
    maxTokens: options.maxTokens,
    maxSequences: options.maxSequences,
    maxPositions: options.maxPositions,
    computeType: COMPUTE_TYPES.indexOf(options.computeType),
    cacheType: CACHE_TYPES.indexOf(cacheType),
    poison: options.poison ?? false,
  };
}
