/** Collects the program of one rank of a model, and checks that a checkpoint has the model's tensors and no others. */
import type {
  Op,
  Program,
  Rank,
  TensorId,
  TensorSpec,
  WeightId,
  WeightSource,
} from '#kernels/program.ts';
import { STORAGE_FORMATS } from '#kernels/storage.ts';
import { ModelError } from './errors.ts';
import { shareOf, WHOLE } from './tensor-parallel.ts';
import { type Part, type Range, slice, sliceName } from './weight-slices.ts';

/** What a program needs of a model's sizes. */
export interface ProgramShape {
  /** Heads, and key and value heads, of the rank. */
  readonly heads: number;
  readonly kvHeads: number;
  readonly layers: number;
  readonly headSize: number;
  readonly vocabularyRows: number;
}

/** Collects weights, activation tensors and ops while a model file names them in the order of the paper. */
export interface Recorder {
  /**
   * Takes a checkpoint tensor of `shape`, of which the program holds `part`; missing and mis-shaped ones are reported together by
   * `finish`.
   */
  weight(name: string, shape: readonly number[], part?: Part): WeightId;
  /** Like `weight`, for a tensor that is not recorded as it is; undefined when missing or mis-shaped. */
  source(name: string, shape: readonly number[]): WeightSource | undefined;
  /** Shape of a checkpoint tensor, undefined when there is none: what it tells is not in the config. */
  shapeOf(name: string): readonly number[] | undefined;
  /** Records a weight made from `source`s; a placeholder when there was nothing to make it from. */
  derived(weight: WeightSource | undefined): WeightId;
  /** The rank that the program is for. */
  readonly rank: Rank;
  /**
   * The rank's share of `total` things that `what` names, in whole units. The first ranks have one unit more where they do not
   * divide. Throws MODEL_SPLIT_UNSUPPORTED when there are fewer units than ranks.
   */
  share(what: string, total: number, unit?: number): Range;
  /** Throws MODEL_SPLIT_UNSUPPORTED. */
  refuseSplit(reason: string): never;
  /** Largest block of the quantised types in which tensors whose names end with `suffix` are stored; 1 for plain numbers. */
  blockLengthOf(suffix: string): number;
  /** Whether rows of the residual stream come from outside, in place of the embeddings of their tokens. */
  readonly takesInputRows: boolean;
  tensor(name: string, rows: TensorSpec['rows'], width: number): TensorId;
  push(op: Op): void;
  /** The recorded program. Throws MODEL_TENSORS_MISMATCH with every missing, unexpected and mis-shaped tensor. */
  finish(fields: {
    readonly name: string;
    readonly shape: ProgramShape;
    readonly validTokenCount: number;
    /** Tensors that may be there and are not used. */
    readonly ignored: (name: string) => boolean;
  }): Program;
}

/** Records from `tensors`, whose names all carry `prefix`; tensors outside the prefix are not looked at. */
export function createRecorder(
  tensors: ReadonlyMap<string, WeightSource>,
  prefix: string,
  where: string,
  options: { readonly rank?: Rank | undefined; readonly takesInputRows?: boolean } = {},
): Recorder {
  const { rank = WHOLE, takesInputRows = false } = options;
  const weights: WeightSource[] = [];
  const used = new Set<string>();
  const weightIds = new Map<string, WeightId>();
  const specs: TensorSpec[] = [];
  const ops: Op[] = [];
  const missing: string[] = [];
  const misshaped: string[] = [];
  const take = (name: string, shape: readonly number[]): WeightSource | undefined => {
    const fullName = prefix + name;
    used.add(fullName);
    const source = tensors.get(fullName);
    if (source === undefined) {
      missing.push(`${fullName} [${shape.join(', ')}]`);
      return undefined;
    }
    if (sameShape(source.shape, shape)) return source;
    misshaped.push(`${fullName} [${source.shape.join(', ')}], expected [${shape.join(', ')}]`);
    return undefined;
  };
  // The place of what is missing or mis-shaped: `finish` throws before anyone reads it.
  const placeholder: WeightSource = {
    name: '',
    type: 'f32',
    shape: [],
    bytes: { data: new Uint8Array() },
  };
  const derived = (source: WeightSource | undefined): WeightId =>
    weights.push(source ?? placeholder) - 1;
  const refuseSplit = (reason: string): never => {
    throw new ModelError(
      'MODEL_SPLIT_UNSUPPORTED',
      `${where}: tensor ${rank.count} cannot be: ${reason}`,
    );
  };
  return {
    rank,
    takesInputRows,
    refuseSplit,
    share(what, total, unit = 1) {
      const range = shareOf(total, rank, unit);
      const units = Math.ceil(total / unit);
      if (units >= rank.count) return range;
      const blocks = unit > 1 ? ` in blocks of ${unit}, ${units} of them` : '';
      return refuseSplit(`${what}: ${total}${blocks}; set it to at most ${units}`);
    },
    blockLengthOf: (suffix) =>
      Math.max(
        1,
        ...[...tensors]
          .filter(([name]) => name.startsWith(prefix) && name.endsWith(suffix))
          .map(([, { type }]) => STORAGE_FORMATS[type].blockLength),
      ),
    source: take,
    derived,
    shapeOf: (name) => tensors.get(prefix + name)?.shape,
    weight(name, shape, part = {}) {
      const key = sliceName(name, part);
      const known = weightIds.get(key);
      if (known !== undefined) return known;
      const source = take(name, shape);
      if (source && part.columns) checkBlocks(source, part.columns, refuseSplit);
      const id = derived(source && slice(source, part));
      weightIds.set(key, id);
      return id;
    },
    tensor(name, rows, width) {
      specs.push({ name, rows, width });
      return specs.length - 1;
    },
    push: (op) => void ops.push(op),
    finish({ name, shape, validTokenCount, ignored }) {
      const unexpected = [...tensors]
        .filter(([full]) => full.startsWith(prefix) && !used.has(full))
        .filter(([full]) => !ignored(full.slice(prefix.length)))
        .map(([full, tensor]) => `${full} [${tensor.shape.join(', ')}]`);
      refuseMismatch(where, { missing, unexpected, misshaped });
      return {
        name,
        ...(rank.count > 1 && { rank }),
        weights,
        tensors: specs,
        ops,
        heads: shape.heads,
        cache: { layers: shape.layers, kvHeads: shape.kvHeads, headSize: shape.headSize },
        vocabularyRows: shape.vocabularyRows,
        validTokenCount,
      };
    },
  };
}

/** Columns of a quantised tensor can be parted between its blocks only. */
function checkBlocks(
  { name, type, shape }: WeightSource,
  { begin, count }: Range,
  refuseSplit: (reason: string) => never,
): void {
  const { blockLength } = STORAGE_FORMATS[type];
  if (begin % blockLength === 0 && (begin + count) % blockLength === 0) return;
  refuseSplit(
    `${name} is stored as ${type} in blocks of ${blockLength}, and its ${shape.at(-1)} columns would be cut at ${begin} and ${begin + count}`,
  );
}

function sameShape(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((size, index) => size === b[index]);
}

/** Names beyond this many of a kind are counted, not listed. */
const LISTED = 8;

function refuseMismatch(
  where: string,
  problems: Readonly<Record<string, readonly string[]>>,
): void {
  const parts = Object.entries(problems)
    .filter(([, names]) => names.length > 0)
    .map(([kind, names]) => {
      const more = names.length > LISTED ? ` and ${names.length - LISTED} more` : '';
      return `${kind}: ${names.slice(0, LISTED).join('; ')}${more}`;
    });
  if (parts.length === 0) return;
  throw new ModelError(
    'MODEL_TENSORS_MISMATCH',
    `${where}: the tensors are not those of the config. ${parts.join('. ')}`,
  );
}
