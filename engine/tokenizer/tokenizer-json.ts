/** tokenizer.json, checked and read into the parts this layer supports; everything else is refused by name. */
import { TokenizerError } from './errors.ts';

export interface AddedToken {
  readonly id: number;
  readonly content: string;
  readonly special: boolean;
  /** Looked for after normalisation, before otherwise. */
  readonly normalized: boolean;
  /** Swallows white space on that side. */
  readonly lstrip: boolean;
  readonly rstrip: boolean;
}

export type NormalizationForm = 'NFC' | 'NFD' | 'NFKC' | 'NFKD';

/** A text splitting step: every match is a piece of its own, and so is what lies between matches. Oniguruma syntax. */
export interface SplitStep {
  readonly pattern: Readonly<Record<string, string>>;
}

export interface ByteLevelPlan {
  readonly normalization: NormalizationForm | undefined;
  readonly splits: readonly SplitStep[];
  readonly addsPrefixSpace: boolean;
}

export interface TokenizerParts {
  readonly json: Readonly<Record<string, unknown>>;
  readonly vocabulary: ReadonlyMap<string, number>;
  /** Best first. */
  readonly merges: readonly (readonly [string, string])[];
  readonly unknownToken: string | undefined;
  readonly ignoresMerges: boolean;
  readonly addedTokens: readonly AddedToken[];
  /** How text is cut and written in bytes; undefined for the SentencePiece style, which falls back to bytes. */
  readonly byteLevel: ByteLevelPlan | undefined;
  /** Replacements of the decoder, e.g. '\u2581' by ' '. */
  readonly replacements: readonly (readonly [string, string])[];
  /** The decoder drops one space at the start of a text. */
  readonly stripsLeadingSpace: boolean;
  /** Ids that `addSpecialTokens` puts around a text. */
  readonly prefixIds: readonly number[];
  readonly suffixIds: readonly number[];
}

type Json = Readonly<Record<string, unknown>>;

const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const invalid = (message: string): TokenizerError =>
  new TokenizerError('TOKENIZER_INVALID', `tokenizer.json: ${message}`);
const unsupported = (what: string, expected: string): TokenizerError =>
  new TokenizerError(
    'TOKENIZER_UNSUPPORTED',
    `tokenizer.json: ${what} is not supported; expected ${expected}. Use a checkpoint with such a tokenizer`,
  );

/** The word-splitting pattern that `ByteLevel` applies by itself when `use_regex` is set: GPT-2's. */
const GPT2_PATTERN =
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/** Throws TokenizerError 'TOKENIZER_INVALID' | 'TOKENIZER_UNSUPPORTED'. */
export function readTokenizerJson(json: unknown): TokenizerParts {
  if (!isObject(json)) throw invalid('expected an object');
  const { model } = json;
  if (!isObject(model)) throw invalid("expected an object under 'model'");
  checkModel(model);
  const vocabulary = readVocabulary(model);
  const addedTokens = readAddedTokens(json.added_tokens);
  const decoder = readDecoder(json.decoder);
  const splits = steps(json.pre_tokenizer, 'pretokenizers');
  if (decoder.isByteLevel !== splits.some((step) => step.type === 'ByteLevel')) {
    throw invalid("'pre_tokenizer' and 'decoder' must both be ByteLevel, or neither");
  }
  if (!decoder.isByteLevel && model.byte_fallback !== true) {
    throw unsupported('a tokenizer without bytes', 'ByteLevel, or BPE with byte_fallback');
  }
  return {
    json,
    vocabulary,
    merges: readMerges(model.merges),
    unknownToken: typeof model.unk_token === 'string' ? model.unk_token : undefined,
    ignoresMerges: model.ignore_merges === true,
    addedTokens,
    byteLevel: decoder.isByteLevel
      ? { normalization: readNormalization(json.normalizer), ...readSplits(splits) }
      : undefined,
    replacements: decoder.replacements,
    stripsLeadingSpace: decoder.stripsLeadingSpace,
    ...readPostProcessor(json.post_processor),
  };
}

function checkModel(model: Json): void {
  // Old files leave the type out: they are told by their merges.
  const type = model.type ?? (Array.isArray(model.merges) ? 'BPE' : undefined);
  if (type !== 'BPE') throw unsupported(`model type ${JSON.stringify(type)}`, 'BPE');
  for (const key of ['continuing_subword_prefix', 'end_of_word_suffix', 'dropout']) {
    if (model[key]) {
      throw unsupported(`'model.${key}' ${JSON.stringify(model[key])}`, 'it empty');
    }
  }
}

function isId(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) < 2 ** 31;
}

function readVocabulary(model: Json): Map<string, number> {
  if (!isObject(model.vocab)) throw invalid("expected an object under 'model.vocab'");
  const vocabulary = new Map<string, number>();
  for (const [token, id] of Object.entries(model.vocab)) {
    if (!isId(id)) throw invalid(`token ${JSON.stringify(token)} has id ${JSON.stringify(id)}`);
    vocabulary.set(token, id);
  }
  return vocabulary;
}

function readMerges(merges: unknown): (readonly [string, string])[] {
  if (!Array.isArray(merges)) throw invalid("expected an array under 'model.merges'");
  return merges.map((merge: unknown, rank) => {
    const pair = typeof merge === 'string' ? merge.split(' ') : merge;
    if (
      Array.isArray(pair) &&
      pair.length === 2 &&
      pair.every((side) => typeof side === 'string')
    ) {
      return pair as unknown as readonly [string, string];
    }
    throw invalid(`merge ${rank} is not a pair of tokens: ${JSON.stringify(merge)}`);
  });
}

function readAddedTokens(entries: unknown): AddedToken[] {
  if (entries !== undefined && !Array.isArray(entries)) {
    throw invalid("expected an array under 'added_tokens'");
  }
  return (entries ?? []).map((entry: unknown) => {
    if (!isObject(entry) || !isId(entry.id) || typeof entry.content !== 'string') {
      throw invalid(`an added token lacks its id or content: ${JSON.stringify(entry)}`);
    }
    if (entry.content === '') throw invalid(`added token ${entry.id} is empty`);
    if (entry.single_word === true) {
      throw unsupported(`single_word of ${JSON.stringify(entry.content)}`, 'false');
    }
    const special = entry.special === true;
    return {
      id: entry.id,
      content: entry.content,
      special,
      normalized: typeof entry.normalized === 'boolean' ? entry.normalized : !special,
      lstrip: entry.lstrip === true,
      rstrip: entry.rstrip === true,
    };
  });
}

/** A `Sequence` flattened. */
function steps(component: unknown, listKey: string): readonly Json[] {
  if (component === null || component === undefined) return [];
  if (!isObject(component)) throw invalid(`expected an object: ${JSON.stringify(component)}`);
  if (component.type !== 'Sequence') return [component];
  const list = component[listKey];
  if (!Array.isArray(list)) throw invalid(`a Sequence lacks '${listKey}'`);
  return list.flatMap((step: unknown) => steps(step, listKey));
}

function readNormalization(normalizer: unknown): NormalizationForm | undefined {
  const [step, ...more] = steps(normalizer, 'normalizers');
  if (step === undefined) return undefined;
  const { type } = step;
  const isKnown = type === 'NFC' || type === 'NFD' || type === 'NFKC' || type === 'NFKD';
  if (isKnown && more.length === 0) return type;
  throw unsupported(`normalizer ${JSON.stringify(normalizer)}`, 'none, NFC, NFD, NFKC or NFKD');
}

function readSplits(list: readonly Json[]): Pick<ByteLevelPlan, 'splits' | 'addsPrefixSpace'> {
  const splits: SplitStep[] = [];
  let addsPrefixSpace = false;
  for (const [index, step] of list.entries()) {
    if (step.type === 'Split') {
      if (step.behavior !== 'Isolated' || step.invert === true || !isObject(step.pattern)) {
        throw unsupported(`pre_tokenizer ${JSON.stringify(step)}`, 'Split with behavior Isolated');
      }
      splits.push({ pattern: step.pattern as Record<string, string> });
    } else if (step.type === 'Digits') {
      splits.push({ pattern: { Regex: step.individual_digits === true ? '\\p{N}' : '\\p{N}+' } });
    } else if (step.type === 'ByteLevel' && index === list.length - 1) {
      addsPrefixSpace = step.add_prefix_space === true;
      if (addsPrefixSpace && splits.length > 0) {
        throw unsupported('add_prefix_space after another split', 'it false');
      }
      if (step.use_regex !== false) splits.push({ pattern: { Regex: GPT2_PATTERN } });
    } else {
      throw unsupported(
        `pre_tokenizer ${JSON.stringify(step)}`,
        'Split, Digits, and ByteLevel at the end',
      );
    }
  }
  return { splits, addsPrefixSpace };
}

function readDecoder(
  decoder: unknown,
): Pick<TokenizerParts, 'replacements' | 'stripsLeadingSpace'> & { isByteLevel: boolean } {
  const replacements: (readonly [string, string])[] = [];
  let stripsLeadingSpace = false;
  const list = steps(decoder, 'decoders');
  for (const step of list) {
    if (step.type === 'ByteLevel' && list.length === 1) {
      return { isByteLevel: true, replacements, stripsLeadingSpace };
    }
    const from = isObject(step.pattern) ? step.pattern.String : undefined;
    const stripsOne = step.content === ' ' && step.start === 1 && step.stop === 0;
    if (step.type === 'Replace' && typeof from === 'string' && typeof step.content === 'string') {
      replacements.push([from, step.content]);
    } else if (step.type === 'Strip' && stripsOne) {
      stripsLeadingSpace = true;
    } else if (step.type !== 'ByteFallback' && step.type !== 'Fuse') {
      throw unsupported(
        `decoder ${JSON.stringify(step)}`,
        'ByteLevel, or Replace, ByteFallback, Fuse and Strip of one leading space',
      );
    }
  }
  return { isByteLevel: false, replacements, stripsLeadingSpace };
}

function readPostProcessor(processor: unknown): Pick<TokenizerParts, 'prefixIds' | 'suffixIds'> {
  const prefixIds: number[] = [];
  const suffixIds: number[] = [];
  for (const step of steps(processor, 'processors')) {
    if (step.type === 'ByteLevel') continue;
    const { single, special_tokens: specials } = step;
    if (step.type !== 'TemplateProcessing' || !Array.isArray(single) || !isObject(specials)) {
      throw unsupported(`post_processor '${step.type}'`, 'ByteLevel or TemplateProcessing');
    }
    let isAfterText = false;
    for (const piece of single as readonly Json[]) {
      if (isObject(piece.Sequence)) {
        isAfterText = true;
        continue;
      }
      const name = isObject(piece.SpecialToken) ? String(piece.SpecialToken.id) : '';
      const token = specials[name];
      const ids = isObject(token) ? token.ids : undefined;
      if (!Array.isArray(ids) || !ids.every(isId)) {
        throw invalid(`the post_processor names the unknown token ${JSON.stringify(name)}`);
      }
      (isAfterText ? suffixIds : prefixIds).push(...ids);
    }
  }
  return { prefixIds, suffixIds };
}
