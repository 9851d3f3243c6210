/** A model as found on disk, in one shape whatever the file format. Reads headers only, never tensor bytes. */
import type { TokenizerFiles } from '#engine/tokenizer/tokenizer.ts';
import type { WeightSource } from '#kernels/program.ts';

export interface Checkpoint {
  readonly format: 'huggingface' | 'gguf';
  /** Directory or file it came from, for messages. */
  readonly path: string;
  /** config.json; GGUF metadata mapped to Hugging Face's key names. */
  readonly config: Readonly<Record<string, unknown>>;
  /** By Hugging Face tensor name (GGUF names mapped). */
  readonly tensors: ReadonlyMap<string, WeightSource>;
  readonly tokenizer: TokenizerFiles;
  /** Jinja source, undefined when the checkpoint has none. */
  readonly chatTemplate: string | undefined;
  readonly bosToken: string | undefined;
  readonly eosToken: string | undefined;
  /** From generation_config.json, tokenizer and config: every id that ends a sequence. */
  readonly eosTokenIds: readonly number[];
  /** Sampling defaults of generation_config.json, {} when there is none. */
  readonly generationDefaults: Readonly<{
    temperature?: number;
    topP?: number;
    topK?: number;
    repetitionPenalty?: number;
  }>;
}
