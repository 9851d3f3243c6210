/** A random Llama-shaped program of a few layers, made in memory: what schedulers, servers and kernels are tested with. */
import type {
  Op,
  Program,
  StorageType,
  TensorId,
  TensorSpec,
  WeightId,
  WeightSource,
} from '#kernels/program.ts';
import { createRandom } from './random.ts';
import { randomWeight } from './weights.ts';

export interface TinyProgramOptions {
  readonly seed?: number;
  readonly layers?: number;
  readonly hidden?: number;
  readonly heads?: number;
  readonly kvHeads?: number;
  readonly headSize?: number;
  readonly intermediate?: number;
  readonly vocabularyRows?: number;
  readonly validTokenCount?: number;
  /** Storage of the linears; norms, biases and the embedding are f32. */
  readonly storage?: StorageType;
  /** Biases on q, k and v, as Qwen2 has them. */
  readonly biases?: boolean;
}

/** Collects weights, tensors and ops; each method returns the id of what it added. */
export class ProgramRecorder {
  readonly weights: WeightSource[] = [];
  readonly tensors: TensorSpec[] = [];
  readonly ops: Op[] = [];

  weight(source: WeightSource): WeightId {
    return this.weights.push(source) - 1;
  }

  tensor(name: string, width: number, rows: TensorSpec['rows'] = 'tokens'): TensorId {
    return this.tensors.push({ name, rows, width }) - 1;
  }

  op(op: Op): void {
    this.ops.push(op);
  }
}

/**
 * Embedding, then per layer norm, qkv, rope, attention, output, norm, gated MLP; then norm, gather, head and sample. Weights
 * are scaled so that logits spread by a few units and attention is not flat. The same options give the same bytes.
 */
export function tinyProgram(options: TinyProgramOptions = {}): Program {
  const {
    seed = 1,
    layers = 2,
    hidden = 64,
    heads = 4,
    kvHeads = 2,
    headSize = 16,
    intermediate = 96,
    vocabularyRows = 160,
    validTokenCount = vocabularyRows,
    storage = 'f32',
    biases = false,
  } = options;
  const random = createRandom(seed);
  const record = new ProgramRecorder();
  const plain = (name: string, width: number, deviation: number): WeightId =>
    record.weight(randomWeight(random, name, 'f32', [width], deviation));
  const linear = (name: string, outputs: number, inputs: number, gain = 1): WeightId =>
    record.weight(randomWeight(random, name, storage, [outputs, inputs], gain / Math.sqrt(inputs)));
  const qkvWidths = [heads * headSize, kvHeads * headSize, kvHeads * headSize];
  const qkvWidth = (heads + 2 * kvHeads) * headSize;

  const residual = record.tensor('residual', hidden);
  const normed = record.tensor('normed', hidden);
  const qkv = record.tensor('qkv', qkvWidth);
  const attended = record.tensor('attended', heads * headSize);
  const gated = record.tensor('gated', intermediate);
  const chosen = record.tensor('chosen', hidden, 'logitRows');
  const logits = record.tensor('logits', vocabularyRows, 'logitRows');
  const rope = {
    inverseFrequencies: Float32Array.from(
      { length: headSize / 2 },
      (_, i) => 10000 ** ((-2 * i) / headSize),
    ),
    magnitude: 1,
  };

  record.op({
    op: 'embedding',
    weight: record.weight(randomWeight(random, 'embedding', 'f32', [vocabularyRows, hidden])),
    out: residual,
  });
  for (let layer = 0; layer < layers; layer++) {
    const name = (part: string): string => `layer${layer}.${part}`;
    const projections = ['q', 'k', 'v'].map((part, i) =>
      linear(name(part), qkvWidths[i]!, hidden, i < 2 ? 1.6 : 1),
    );
    const norm = (part: string): void =>
      record.op({
        op: 'rmsNorm',
        x: residual,
        weight: plain(name(part), hidden, 1),
        eps: 1e-5,
        out: normed,
      });
    norm('inputNorm');
    record.op({
      op: 'linear',
      x: normed,
      weights: projections,
      ...(biases && {
        biases: ['q', 'k', 'v'].map((part, i) => plain(name(`${part}Bias`), qkvWidths[i]!, 0.3)),
      }),
      epilogue: 'none',
      out: qkv,
    });
    record.op({ op: 'ropeAndCache', qkv, layer, rope });
    record.op({ op: 'attention', qkv, layer, scale: headSize ** -0.5, out: attended });
    record.op({
      op: 'linear',
      x: attended,
      weights: [linear(name('output'), hidden, heads * headSize)],
      epilogue: 'none',
      residual,
      out: residual,
    });
    norm('mlpNorm');
    record.op({
      op: 'linear',
      x: normed,
      weights: [
        linear(name('gate'), intermediate, hidden),
        linear(name('up'), intermediate, hidden),
      ],
      epilogue: 'siluMul',
      out: gated,
    });
    record.op({
      op: 'linear',
      x: gated,
      weights: [linear(name('down'), hidden, intermediate)],
      epilogue: 'none',
      residual,
      out: residual,
    });
  }
  record.op({
    op: 'rmsNorm',
    x: residual,
    weight: plain('finalNorm', hidden, 1),
    eps: 1e-5,
    out: normed,
  });
  record.op({ op: 'gatherRows', x: normed, out: chosen });
  record.op({
    op: 'linear',
    x: chosen,
    weights: [linear('head', vocabularyRows, hidden)],
    epilogue: 'none',
    out: logits,
  });
  record.op({ op: 'sample', logits });
  return {
    name: `tiny-${seed}`,
    weights: record.weights,
    tensors: record.tensors,
    ops: record.ops,
    heads,
    cache: { layers, kvHeads, headSize },
    vocabularyRows,
    validTokenCount,
  };
}
